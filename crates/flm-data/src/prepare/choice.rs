//! Selects the documents or blocks for validation.

use super::{PrepareOptions, Validation};
use crate::DataError;
use crate::mix::mix;

/// The rule that assigns a position in the corpus to a split.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// One of every `1 / share` consecutive positions.
    Share {
        /// The share in millionths. Integers give the same choice on every machine.
        millionths: u128,
    },
    /// All positions starting from this one.
    From(u64),
}

const MILLION: u128 = 1_000_000;

/// Whether a share is below 1 and a whole number of millionths, so that it can be met exactly.
pub(crate) fn is_share(share: f64) -> bool {
    let millionths = share * MILLION as f64;
    // A number with at most six decimals equals the rounded quotient.
    (0.0..1.0).contains(&share) && millionths.round() / MILLION as f64 == share
}

impl Choice {
    /// Creates the rule for the options, in a corpus of `documents` if they were counted.
    pub(super) fn new(options: &PrepareOptions, documents: Option<u64>) -> Result<Self, DataError> {
        match options.validation {
            Validation::Share => Ok(Self::share(options.validation_share)),
            // Documents of a validation corpus are marked when they are read.
            Validation::Corpus(_) => Ok(Self::share(0.0)),
            Validation::Last(last) => {
                let documents = documents.unwrap_or_default();
                let first = documents.checked_sub(last).filter(|&first| first > 0);
                first
                    .map(Self::From)
                    .ok_or(DataError::LastTooMany { last, documents })
            }
        }
    }

    fn share(share: f64) -> Self {
        Self::Share {
            millionths: (share * MILLION as f64).round() as u128,
        }
    }

    pub(super) fn is_validation(self, place: u64) -> bool {
        let millionths = match self {
            Self::From(first) => return place >= first,
            Self::Share { millionths: 0 } => return false,
            Self::Share { millionths } => millionths,
        };
        // Group g contains the positions with floor(position · share) = g; a hash of g selects one.
        let group = u128::from(place) * millionths / MILLION;
        let first = (group * MILLION).div_ceil(millionths);
        let next = ((group + 1) * MILLION).div_ceil(millionths);
        let chosen = first + u128::from(mix(group as u64)) % (next - first);
        u128::from(place) == chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_at_most_six_decimals() {
        for millionths in (0..1_000_000).step_by(7).chain([1, 999_999]) {
            let share: f64 = format!("0.{millionths:06}").parse().unwrap();
            assert!(is_share(share), "{share}");
        }
        for share in [
            -0.1,
            1.0,
            1e-7,
            0.0200001,
            0.999_999_9,
            f64::NAN,
            f64::INFINITY,
        ] {
            assert!(!is_share(share), "{share}");
        }
    }

    #[test]
    fn every_group_has_one_place_for_validation() {
        let choice = Choice::share(0.02);
        for group in 0..1000 {
            let places = group * 50..(group + 1) * 50;
            let chosen = places.filter(|&place| choice.is_validation(place)).count();
            assert_eq!(chosen, 1, "group {group}");
        }
    }

    #[test]
    fn the_share_is_met_whatever_it_is() {
        for share in [0.0, 1e-6, 0.003, 0.1, 0.3, 0.5, 0.77, 0.999] {
            let choice = Choice::share(share);
            let chosen = (0..100_000)
                .filter(|&place| choice.is_validation(place))
                .count();
            // Only the last group can be incomplete.
            let error = chosen as f64 - share * 100_000.0;
            assert!(error.abs() <= 1.0, "share {share}: {chosen}");
        }
    }

    #[test]
    fn the_choice_has_no_period() {
        let choice = Choice::share(0.02);
        let mut places = [0_u32; 50];
        for place in 0..50 * 500 {
            if choice.is_validation(place) {
                places[place as usize % 50] += 1;
            }
        }
        // 500 draws among 50 positions: chi-square with 49 degrees of freedom is above 98 with a
        // probability of 4e-5. The hash has no seed, so the result is always the same.
        let chi: f64 = places
            .iter()
            .map(|&n| (f64::from(n) - 10.0).powi(2) / 10.0)
            .sum();
        assert!(chi < 98.0, "chi-square {chi}");
    }
}
