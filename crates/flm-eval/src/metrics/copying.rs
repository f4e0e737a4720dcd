//! Detects runs of tokens that samples copy from the training text.

use std::collections::HashMap;

/// A suffix automaton of samples that finds the runs they share with training rows. Each training
/// row is read once, regardless of the number of samples.
///
/// A contiguous run of tokens is *copied* if it also occurs in a training row. A model that
/// memorized its text writes whole rows. A model that learned the distribution copies runs as long
/// as those that held-out text shares with the training rows, so compare with held-out text.
///
/// ```
/// let mut copying = flm_eval::Copying::new(&[vec![1, 2, 3, 4], vec![5, 5]]);
/// copying.read(&[9, 2, 3, 4, 9]);
/// copying.read(&[5, 6]);
/// assert_eq!(copying.longest_runs(), [3, 1]);
/// ```
#[derive(Debug)]
pub struct Copying {
    states: Vec<State>,
    /// For each sample, the state after each of its tokens.
    samples: Vec<Vec<usize>>,
}

#[derive(Debug, Default)]
struct State {
    next: HashMap<u32, usize>,
    /// Suffix link: the state of the longest suffix that also occurs elsewhere. The root links
    /// to itself.
    link: usize,
    /// Length of the longest run that ends here.
    length: usize,
    /// Length of the longest run that ends here and was read from a training row.
    read: usize,
}

const ROOT: usize = 0;

impl Copying {
    /// Builds the automaton of these samples.
    pub fn new<S: AsRef<[u32]>>(samples: &[S]) -> Self {
        let mut copying = Self {
            states: vec![State::default()],
            samples: Vec::with_capacity(samples.len()),
        };
        for sample in samples {
            let mut last = ROOT;
            let tokens = sample.as_ref().iter();
            let ends = tokens.map(|&token| {
                last = copying.extend(last, token);
                last
            });
            let ends = ends.collect();
            copying.samples.push(ends);
        }
        copying
    }

    /// Appends a token to the run that ends at `last` and returns the state of the longer run.
    fn extend(&mut self, last: usize, token: u32) -> usize {
        let length = self.states[last].length + 1;
        if let Some(&next) = self.states[last].next.get(&token) {
            // The run is known from an earlier sample.
            return if self.states[next].length == length {
                next
            } else {
                self.split(last, token, next)
            };
        }
        let new = self.push(State {
            length,
            ..State::default()
        });
        let mut at = last;
        loop {
            if let Some(&next) = self.states[at].next.get(&token) {
                let link = if self.states[next].length == self.states[at].length + 1 {
                    next
                } else {
                    self.split(at, token, next)
                };
                self.states[new].link = link;
                return new;
            }
            self.states[at].next.insert(token, new);
            if at == ROOT {
                return new;
            }
            at = self.states[at].link;
        }
    }

    /// Splits `next`: its runs of at most one token more than the run of `at` get a state of
    /// their own.
    fn split(&mut self, mut at: usize, token: u32, next: usize) -> usize {
        let part = self.push(State {
            next: self.states[next].next.clone(),
            link: self.states[next].link,
            length: self.states[at].length + 1,
            read: 0,
        });
        self.states[next].link = part;
        while self.states[at].next.get(&token) == Some(&next) {
            self.states[at].next.insert(token, part);
            if at == ROOT {
                break;
            }
            at = self.states[at].link;
        }
        part
    }

    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// Reads a training row.
    pub fn read(&mut self, row: &[u32]) {
        let (mut at, mut length) = (ROOT, 0);
        for token in row {
            while at != ROOT && !self.states[at].next.contains_key(token) {
                at = self.states[at].link;
                length = self.states[at].length;
            }
            if let Some(&next) = self.states[at].next.get(token) {
                (at, length) = (next, length + 1);
            }
            let read = &mut self.states[at].read;
            *read = length.max(*read);
        }
    }

    /// Returns, for each sample, the length in tokens of its longest run that occurs in a
    /// training row.
    pub fn longest_runs(&self) -> Vec<usize> {
        // If a run was read, so were its suffixes, which end at the linked states.
        let mut read: Vec<usize> = self.states.iter().map(|state| state.read).collect();
        let mut order: Vec<usize> = (0..self.states.len()).collect();
        order.sort_by_key(|&state| std::cmp::Reverse(self.states[state].length));
        for state in order {
            let link = self.states[state].link;
            if read[state] > 0 {
                read[link] = read[link].max(read[state].min(self.states[link].length));
            }
        }
        let longest = |&end: &usize| {
            let mut at = end;
            while read[at] == 0 && at != ROOT {
                at = self.states[at].link;
            }
            read[at]
        };
        let of_sample = |ends: &Vec<usize>| ends.iter().map(longest).max().unwrap_or(0);
        self.samples.iter().map(of_sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Finds the longest copied run by brute force.
    fn naive(sample: &[u32], rows: &[Vec<u32>]) -> usize {
        let is_copied = |run: &[u32]| {
            rows.iter()
                .any(|row| row.windows(run.len()).any(|part| part == run))
        };
        let longest = (1..=sample.len()).filter(|&n| sample.windows(n).any(is_copied));
        longest.max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn runs_are_those_of_the_naive_comparison(
            samples in prop::collection::vec(prop::collection::vec(0_u32..3, 0..10), 1..6),
            rows in prop::collection::vec(prop::collection::vec(0_u32..4, 0..10), 0..6),
        ) {
            let mut copying = Copying::new(&samples);
            rows.iter().for_each(|row| copying.read(row));
            let expected: Vec<usize> = samples.iter().map(|s| naive(s, &rows)).collect();
            prop_assert_eq!(copying.longest_runs(), expected);
        }
    }
}
