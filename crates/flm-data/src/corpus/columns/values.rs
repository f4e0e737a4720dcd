//! Reads the values of one page in sequence.

use super::pages::Page;

/// The values of a dictionary page: the bytes, and the range of each value.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
}

impl Dictionary {
    pub(super) fn read(bytes: Vec<u8>, count: usize) -> Result<Self, String> {
        let mut places = Vec::new();
        let mut at = 0;
        for _ in 0..count {
            let (start, end) = plain(&bytes, at)?;
            // The ranges fit in `u32` because a page is smaller than 4 GiB.
            places.push((start as u32, end as u32));
            at = end;
        }
        Ok(Self { bytes, places })
    }

    fn get(&self, place: usize) -> Result<&[u8], String> {
        match self.places.get(place) {
            Some(&(start, end)) => Ok(&self.bytes[start as usize..end as usize]),
            None => Err(format!(
                "a page refers to value {place} of a dictionary of {}",
                self.places.len()
            )),
        }
    }
}

/// Returns the range of the value whose length prefix is at `at`.
fn plain(bytes: &[u8], at: usize) -> Result<(usize, usize), String> {
    let start = at + 4;
    bytes
        .get(at..start)
        .and_then(|length| length.try_into().ok())
        .map(|length| start + u32::from_le_bytes(length) as usize)
        .filter(|&end| end <= bytes.len())
        .map(|end| (start, end))
        .ok_or_else(|| "a page ends within a value".to_owned())
}

/// A data page and the current position in it.
#[derive(Debug)]
pub(super) struct Values {
    levels: Option<Runs>,
    /// The definition level of a value that is not null.
    present: u32,
    bytes: Vec<u8>,
    /// The start of the next plain value.
    at: usize,
    places: Option<Runs>,
    left: usize,
}

impl Values {
    /// Creates the values of a page in a column whose highest definition level is `present`.
    pub(super) fn new(page: Page, present: u32) -> Result<Self, String> {
        let Page::Data {
            levels,
            mut values,
            count,
            refers,
        } = page
        else {
            return Err("found a dictionary page, expected values".to_owned());
        };
        let places = if !refers {
            None
        } else if let Some((&bits, _)) = values.split_first() {
            // The first byte is the bit width of the indices.
            values.remove(0);
            Some(Runs::new(std::mem::take(&mut values), bits.into())?)
        } else {
            // The page contains only nulls.
            Some(Runs::new(Vec::new(), 0)?)
        };
        Ok(Self {
            levels: match present {
                0 => None,
                highest => Some(Runs::new(levels, u32::BITS - highest.leading_zeros())?),
            },
            present,
            bytes: values,
            at: 0,
            places,
            left: count,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Returns the value of the next row, or `None` for a null. Must not be called after the page
    /// is done.
    pub(super) fn next<'a>(
        &'a mut self,
        dictionary: &'a Dictionary,
    ) -> Result<Option<&'a [u8]>, String> {
        self.left = self.left.saturating_sub(1);
        if let Some(levels) = &mut self.levels
            && levels.next()? != self.present
        {
            return Ok(None);
        }
        if let Some(places) = &mut self.places {
            let place = places.next()? as usize;
            return dictionary.get(place).map(Some);
        }
        let (start, end) = plain(&self.bytes, self.at)?;
        self.at = end;
        Ok(Some(&self.bytes[start..end]))
    }
}

/// An iterator over small integers in runs: one value repeated, or several values of a few bits
/// each. Parquet calls this the RLE/bit-packing hybrid.
#[derive(Debug)]
struct Runs {
    bytes: Vec<u8>,
    at: usize,
    bits: u32,
    run: Run,
    /// Values left in the run.
    left: u64,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    Repeated(u32),
    /// The position of the next value, in bits of `bytes`.
    Packed(usize),
}

impl Runs {
    fn new(bytes: Vec<u8>, bits: u32) -> Result<Self, String> {
        if bits > u32::BITS {
            return Err(format!("a page holds numbers of {bits} bits"));
        }
        Ok(Self {
            bytes,
            at: 0,
            bits,
            run: Run::Repeated(0),
            left: 0,
        })
    }

    fn next(&mut self) -> Result<u32, String> {
        while self.left == 0 {
            self.begin_run()?;
        }
        self.left -= 1;
        match &mut self.run {
            Run::Repeated(number) => Ok(*number),
            Run::Packed(bit) => {
                let (first, shift) = (*bit / 8, *bit % 8);
                // At most 7 + 32 bits, so 5 bytes.
                let window = self.bytes[first..].iter().take(5).rev();
                let number = window.fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
                *bit += self.bits as usize;
                Ok((number >> shift & ((1 << self.bits) - 1)) as u32)
            }
        }
    }

    fn begin_run(&mut self) -> Result<(), String> {
        let header = self.varint()?;
        if header & 1 == 0 {
            let size = self.bits.div_ceil(8) as usize;
            let bytes = self.bytes.get(self.at..self.at + size).ok_or_else(short)?;
            let number = bytes.iter().rev();
            let number = number.fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
            self.at += size;
            self.left = header >> 1;
            self.run = Run::Repeated(number as u32);
            return Ok(());
        }
        // Groups of eight values. The last group of a page may be truncated.
        let bits = (header >> 1).saturating_mul(8 * u64::from(self.bits));
        let there = (self.bytes.len() - self.at) as u64 * 8;
        self.left = if self.bits == 0 {
            (header >> 1).saturating_mul(8)
        } else {
            bits.min(there) / u64::from(self.bits)
        };
        if self.left == 0 && header >> 1 > 0 {
            return Err(short());
        }
        self.run = Run::Packed(self.at * 8);
        self.at += (bits.min(there) / 8) as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(short)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a page holds a run of more than 2^32 numbers".to_owned())
    }
}

fn short() -> String {
    "a page ends before its last value".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(bytes: &[u8], bits: u32, count: usize) -> Result<Vec<u32>, String> {
        let mut runs = Runs::new(bytes.to_vec(), bits)?;
        (0..count).map(|_| runs.next()).collect()
    }

    #[test]
    fn runs_are_those_of_the_format() {
        // The example of the format's documentation: the numbers 0 to 7 in three bits each.
        let packed = [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(runs(&packed, 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        // Nine-bit values: 300 five times, then 1 once.
        assert_eq!(
            runs(&[10, 0x2c, 1, 2, 1, 0], 9, 6).unwrap(),
            [300, 300, 300, 300, 300, 1]
        );
        assert_eq!(runs(&[8], 0, 4).unwrap(), [0; 4]);
        let wide = [3, 1, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(runs(&wide, 32, 2).unwrap(), [1, u32::MAX]);
    }

    #[test]
    fn what_ends_early_is_an_error() {
        for bytes in [&[][..], &[10], &[10, 0x2c], &[0x80; 3], &[3]] {
            assert!(runs(bytes, 9, 1).is_err(), "{bytes:?}");
        }
        assert!(runs(&[0xff; 9], 9, 1).is_err());
        assert!(runs(&[], 33, 0).is_err());
        assert_eq!(
            Dictionary::read(vec![1, 0, 0, 0, 7], 1).unwrap().places,
            [(4, 5)]
        );
        assert!(Dictionary::read(vec![1, 0, 0, 0, 7], 2).is_err());
        assert!(Dictionary::read(vec![255, 255, 255, 255, 7], usize::MAX).is_err());
    }
}
