//! Entropy, diversity and repetition of samples of words or token ids.

mod copying;
mod distinct;
mod entropy;
mod mauve;
mod ngrams;
mod repetition;
mod self_bleu;
mod variety;

pub use self::copying::Copying;
pub use self::distinct::{distinct_ngrams, distinct_share};
pub use self::entropy::{mean_unigram_entropy, unigram_entropy};
pub use self::mauve::Mauve;
pub use self::repetition::repetition;
pub use self::self_bleu::self_bleu;
pub use self::variety::Variety;

/// Returns the mean number of tokens in a sample; `None` without samples.
pub fn mean_length<T, S: AsRef<[T]>>(samples: &[S]) -> Option<f64> {
    mean(samples.iter().map(|sample| sample.as_ref().len() as f64))
}

/// Returns the mean of the values; `None` if there are none.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_usize, 0.0), |(count, sum), value| {
        (count + 1, sum + value)
    });
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_samples_not_over_tokens() {
        let samples = [vec![1, 2], vec![3, 3, 3, 3, 3, 3]];
        let entropy = mean_unigram_entropy(&samples).unwrap();
        assert!((entropy - 2.0_f64.ln() / 2.0).abs() < 1e-12);
        assert_eq!(mean_length(&samples), Some(4.0));
    }

    #[test]
    fn nothing_is_said_about_no_samples() {
        let none: [Vec<u32>; 0] = [];
        assert_eq!(mean_unigram_entropy(&none), None);
        assert_eq!(distinct_share(&none), None);
        assert_eq!(distinct_ngrams(&none, 1), None);
        assert_eq!(repetition(&none, 2), None);
        assert_eq!(self_bleu(&none), None);
        assert_eq!(mean_length(&none), None);
    }
}
