//! PyTorch files: zip archives of a pickle and one file per storage.
//!
//! `burn-store` reads damaged or short storages as zeros, ignores strides, drops lists and
//! settings, and limits neither depth nor memory. Untrusted checkpoints are therefore read here.

use super::pickle::{Heap, Id, Value};
use crate::tensor_file::widened;
use safetensors::Dtype;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Maximum size of a pickle in bytes. Tensors are stored outside, so a few megabytes are
/// already large.
const MOST_PICKLE: u64 = 16 << 20;

/// An open file: its parsed pickle, with storages read on demand.
pub(super) struct Archive {
    zip: RefCell<ZipArchive<BufReader<File>>>,
    /// Prefix of all names in the archive.
    folder: String,
    pub(super) heap: Heap,
}

impl Archive {
    /// Opens a file and reads its pickle.
    ///
    /// # Errors
    ///
    /// A description of the fault.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            format!("{error} (torch.save has written zip archives since PyTorch 1.6)")
        })?;
        let pickle = zip
            .file_names()
            .find(|name| name.ends_with("/data.pkl"))
            .ok_or("it is a zip archive without data.pkl")?;
        let folder = pickle[..pickle.len() - "data.pkl".len()].to_owned();
        let order = read(&mut zip, &format!("{folder}byteorder"), 16);
        if order.is_ok_and(|order| order != b"little") {
            return Err("its numbers are not little-endian".to_owned());
        }
        let bytes = read(&mut zip, &format!("{folder}data.pkl"), MOST_PICKLE)?;
        Ok(Self {
            zip: RefCell::new(zip),
            folder,
            heap: Heap::read(&bytes)?,
        })
    }

    /// Returns the shape of a tensor.
    ///
    /// # Errors
    ///
    /// A description, if the value is not a tensor.
    pub(super) fn shape(&self, id: Id) -> Result<&[usize], String> {
        match self.heap.value(id) {
            Value::Tensor(_, _, sizes, _) => Ok(sizes),
            other => Err(format!("is {}, expected a tensor", other.kind())),
        }
    }

    /// Returns the shape and the values, in row order, of a floating-point tensor.
    ///
    /// # Errors
    ///
    /// A description of the fault.
    pub(super) fn tensor(&self, id: Id) -> Result<(Vec<usize>, Vec<f32>), String> {
        let Value::Tensor(storage, offset, sizes, strides) = self.heap.value(id) else {
            return Err(format!(
                "is {}, expected a tensor",
                self.heap.value(id).kind()
            ));
        };
        let Value::Storage(kind, key) = self.heap.value(*storage) else {
            return Err("has no storage".to_owned());
        };
        let name = format!("{}data/{key}", self.folder);
        let bytes = read(&mut self.zip.borrow_mut(), &name, u64::MAX)
            .map_err(|reason| format!("cannot be read: {reason}"))?;
        let numbers = floats(kind, &bytes)
            .ok_or_else(|| format!("has type {kind}, expected floating-point numbers"))?;
        let values = gather(&numbers, *offset, sizes, strides).ok_or_else(|| {
            format!(
                "of shape {sizes:?}, offset {offset} and strides {strides:?} does not fit in its storage of {} numbers",
                numbers.len()
            )
        })?;
        Ok((sizes.clone(), values))
    }
}

/// Reads a file of the archive. Only uncompressed files are read, so memory use is bounded by the
/// archive's size.
fn read(zip: &mut ZipArchive<BufReader<File>>, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let mut file = zip
        .by_name(name)
        .map_err(|error| format!("{name}: {error}"))?;
    if file.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which PyTorch never does"));
    }
    if file.size() > most {
        return Err(format!(
            "{name} has {} bytes, expected at most {most}",
            file.size()
        ));
    }
    let mut bytes = Vec::new();
    // Reading to the end verifies the checksum.
    file.read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}

fn floats(kind: &str, bytes: &[u8]) -> Option<Vec<f32>> {
    let dtype = match kind.rsplit('.').next()? {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        _ => return None,
    };
    widened(dtype, bytes)
}

/// Returns the values of a strided view in row order, or `None` if it exceeds the storage or has
/// more values than the storage.
fn gather(storage: &[f32], offset: usize, sizes: &[usize], strides: &[usize]) -> Option<Vec<f32>> {
    let count = (sizes.iter()).try_fold(1_usize, |count, size| count.checked_mul(*size))?;
    if count > storage.len() || sizes.len() != strides.len() {
        return None;
    }
    if count == 0 {
        return Some(Vec::new());
    }
    let contiguous = {
        let mut expected = 1;
        (sizes.iter().zip(strides).rev()).all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    };
    if contiguous {
        let whole = storage.get(offset..offset.checked_add(count)?)?;
        return Some(whole.to_vec());
    }
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0_usize; sizes.len()];
    for _ in 0..count {
        let place = index
            .iter()
            .zip(strides)
            .try_fold(offset, |place, (i, stride)| {
                place.checked_add(i.checked_mul(*stride)?)
            })?;
        values.push(*storage.get(place)?);
        for (i, size) in index.iter_mut().zip(sizes).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_a_storage_are_read_in_row_order() {
        let storage: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let view =
            |offset, sizes: &[usize], strides: &[usize]| gather(&storage, offset, sizes, strides);
        assert_eq!(view(2, &[2, 3], &[3, 1]).unwrap(), [2., 3., 4., 5., 6., 7.]);
        // A transpose, every other column, a broadcast row, a size of one with any stride, and
        // a scalar.
        assert_eq!(view(0, &[3, 2], &[1, 3]).unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(view(1, &[2, 2], &[6, 2]).unwrap(), [1., 3., 7., 9.]);
        assert_eq!(view(4, &[2, 2], &[0, 1]).unwrap(), [4., 5., 4., 5.]);
        assert_eq!(view(3, &[1, 2], &[99, 1]).unwrap(), [3., 4.]);
        assert_eq!(view(11, &[], &[]).unwrap(), [11.]);
        assert_eq!(view(0, &[0, 5], &[5, 1]).unwrap(), [0.0_f32; 0]);
    }

    #[test]
    fn a_view_beyond_its_storage_is_none() {
        let storage = [0.0; 12];
        for (offset, sizes, strides) in [
            (0, &[13][..], &[1][..]),
            (7, &[2, 3], &[3, 1]),
            (0, &[2, 2], &[11, 1]),
            (usize::MAX, &[2], &[1]),
            (0, &[2, 2], &[usize::MAX, 1]),
            (0, &[usize::MAX, 3], &[1, 1]),
            (0, &[2, 2], &[1]),
        ] {
            assert_eq!(gather(&storage, offset, sizes, strides), None);
        }
    }
}
