//! Where large blocks lie in a range of memory that grows.

use std::collections::{BTreeMap, BTreeSet};

/// Blocks of a range, as offsets from its start: a block takes the smallest hole that holds it, of equal ones the first, and
/// holes that touch become one. Only where no hole is large enough does the range grow.
///
/// What a training step frees has other sizes than what the next operation needs; a hole that can be cut and joined serves
/// them all.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// First byte that never belonged to a block.
    top: usize,
    /// Length of the hole at each offset.
    holes: BTreeMap<usize, usize>,
    /// The same as (length, offset).
    by_length: BTreeSet<(usize, usize)>,
}

/// A block that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Where it starts.
    pub(crate) offset: usize,
    /// How many of its last bytes nobody had before.
    pub(crate) fresh: usize,
}

impl Blocks {
    pub(crate) const fn new() -> Self {
        Self {
            top: 0,
            holes: BTreeMap::new(),
            by_length: BTreeSet::new(),
        }
    }

    /// Takes `length` bytes, unless the range would grow beyond `limit`.
    pub(crate) fn take(&mut self, length: usize, limit: usize) -> Option<Taken> {
        if let Some(&(hole, offset)) = self.by_length.range((length, 0)..).next() {
            self.remove(offset, hole);
            if hole > length {
                self.insert(offset + length, hole - length);
            }
            return Some(Taken { offset, fresh: 0 });
        }
        // A hole at the end is the start of what is taken.
        let last = self
            .holes
            .last_key_value()
            .map(|(&offset, &hole)| (offset, hole));
        let offset = match last {
            Some((offset, hole)) if offset + hole == self.top => offset,
            _ => self.top,
        };
        let end = offset.checked_add(length).filter(|&end| end <= limit)?;
        if offset < self.top {
            self.remove(offset, self.top - offset);
        }
        let fresh = end - self.top;
        self.top = end;
        Some(Taken { offset, fresh })
    }

    /// Gives back a block of this offset and length.
    pub(crate) fn give(&mut self, mut offset: usize, mut length: usize) {
        let before = self.holes.range(..offset).next_back();
        if let Some((&start, &hole)) = before
            && start + hole == offset
        {
            self.remove(start, hole);
            (offset, length) = (start, hole + length);
        }
        if let Some(&hole) = self.holes.get(&(offset + length)) {
            self.remove(offset + length, hole);
            length += hole;
        }
        self.insert(offset, length);
    }

    /// Makes a block longer or shorter where it is. Whether it could.
    pub(crate) fn resize(&mut self, offset: usize, from: usize, to: usize, limit: usize) -> bool {
        let end = offset + from;
        if to < from {
            self.give(offset + to, from - to);
        } else if to > from {
            let hole = self.holes.get(&end).copied().unwrap_or(0);
            let more = to - from;
            let fresh = more.saturating_sub(hole);
            let reaches = end + hole == self.top && self.top + fresh <= limit;
            if fresh > 0 && !reaches {
                return false;
            }
            self.remove(end, hole);
            if hole > more {
                self.insert(end + more, hole - more);
            }
            self.top += fresh;
        }
        true
    }

    fn insert(&mut self, offset: usize, length: usize) {
        self.holes.insert(offset, length);
        self.by_length.insert((length, offset));
    }

    fn remove(&mut self, offset: usize, length: usize) {
        self.holes.remove(&offset);
        self.by_length.remove(&(length, offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const LIMIT: usize = 1_000;

    #[test]
    fn the_smallest_hole_that_holds_a_block_is_taken_and_cut() {
        let mut blocks = Blocks::new();
        let at: Vec<usize> = [10, 1, 6, 1, 8, 1]
            .map(|length| blocks.take(length, LIMIT).unwrap().offset)
            .to_vec();
        for i in [0, 2, 4] {
            blocks.give(at[i], [10, 1, 6, 1, 8][i]);
        }
        let mut take = |length| {
            let taken = blocks.take(length, LIMIT).unwrap();
            (taken.offset, taken.fresh)
        };
        assert_eq!(take(7), (at[4], 0));
        assert_eq!(take(10), (at[0], 0));
        assert_eq!(take(1), (at[4] + 7, 0));
        assert_eq!(take(7), (27, 7));
    }

    #[test]
    fn a_hole_at_the_end_is_the_start_of_a_longer_block() {
        let mut blocks = Blocks::new();
        let [first, last] = [5, 3].map(|length| blocks.take(length, LIMIT).unwrap().offset);
        blocks.give(last, 3);
        let longer = blocks.take(7, LIMIT).unwrap();
        assert_eq!((longer.offset, longer.fresh), (5, 4));
        assert_eq!(blocks.take(LIMIT, LIMIT), None);
        blocks.give(first, 5);
        blocks.give(5, 7);
        assert_eq!(
            blocks.take(LIMIT, LIMIT),
            Some(Taken {
                offset: 0,
                fresh: LIMIT - 12
            })
        );
    }

    /// Random takes, gives and resizes: blocks never overlap, and what is free is joined and counted whole.
    #[test]
    fn blocks_never_overlap_and_holes_are_joined() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |below: usize| rng.random_range(0..below);
        let (mut blocks, mut live) = (Blocks::new(), BTreeMap::new());
        let (mut grown, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let chosen = live
                .iter()
                .nth(random(live.len() + 1))
                .map(|(&o, &l)| (o, l));
            match (random(4), chosen) {
                (0, Some((offset, length))) => {
                    live.remove(&offset);
                    blocks.give(offset, length);
                }
                (1, Some((offset, length))) => {
                    let to = 1 + random(40);
                    if blocks.resize(offset, length, to, LIMIT) {
                        live.insert(offset, to);
                        grown += usize::from(to > length);
                    } else {
                        assert!(to > length);
                        refused += 1;
                    }
                }
                _ => {
                    let length = 1 + random(40);
                    if let Some(taken) = blocks.take(length, LIMIT) {
                        assert_eq!(live.insert(taken.offset, length), None);
                    } else {
                        assert!(blocks.by_length.iter().all(|(hole, _)| *hole < length));
                        assert!(blocks.top + length > LIMIT);
                    }
                }
            }
            // Blocks and holes follow each other from 0 to the top.
            let mut end = 0;
            let mut parts: Vec<_> = live.iter().map(|(&o, &l)| (o, l, false)).collect();
            parts.extend(blocks.holes.iter().map(|(&o, &l)| (o, l, true)));
            parts.sort_unstable();
            for pair in parts.windows(2) {
                assert!(!(pair[0].2 && pair[1].2), "two holes that touch");
            }
            for (offset, length, _) in parts {
                assert!(offset == end && length > 0, "{offset} after {end}");
                end = offset + length;
            }
            assert_eq!(end, blocks.top);
            assert!(blocks.top <= LIMIT);
            let mirror: Vec<_> = blocks.by_length.iter().map(|&(l, o)| (o, l)).collect();
            assert_eq!(mirror.into_iter().collect::<BTreeMap<_, _>>(), blocks.holes);
        }
        assert!(grown > 100 && refused > 100, "{grown} {refused}");
    }
}
