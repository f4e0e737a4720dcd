//! Sentence frames: the top-level sentence patterns of a grammar.
//!
//! A model that writes a single kind of sentence can still reach high validity and entropy. The
//! frequencies of the frames reveal it. There are few frames, so some hundred samples suffice, and
//! their distribution is known.

use super::expand::{Alternative, Item};
use super::{Grammar, inside};
use std::collections::BTreeMap;

/// The sentence frames of a grammar.
///
/// A frame is the first written alternative of a derivation that is not a single symbol.
#[derive(Debug)]
pub struct Frames<'g> {
    grammar: &'g Grammar,
    /// The plain alternatives of all frames, each with its probability from the start symbol and
    /// the number of its frame.
    plain: Vec<(&'g Alternative, f64, usize)>,
    probabilities: Vec<f64>,
}

/// A comparison of the frames of samples with the grammar's distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameMatch {
    /// Divergence Σ share·ln(share/p) of the frame shares among valid samples from the
    /// distribution, in nats; 0 if they agree. For n samples of the grammar itself its mean is
    /// about (frames − 1)/2n.
    pub divergence: f64,
    /// Total probability, under the distribution, of the frames that occur in samples, in [0, 1].
    pub recall: f64,
}

impl Grammar {
    /// Returns the sentence frames of the grammar.
    pub fn frames(&self) -> Frames<'_> {
        let mut plain = Vec::new();
        let mut open = vec![(self.nodes.len() - 1, 1.0)];
        while let Some((node, p)) = open.pop() {
            for alternative in &self.nodes[node] {
                let p = p * alternative.p;
                match alternative.items[..] {
                    [Item::Node(child)] => open.push((child as usize, p)),
                    _ => plain.push((alternative, p, alternative.written)),
                }
            }
        }
        let mut probabilities: BTreeMap<usize, f64> = BTreeMap::new();
        for (_, p, written) in &plain {
            *probabilities.entry(*written).or_default() += p;
        }
        let numbers: BTreeMap<usize, usize> = probabilities.keys().copied().zip(0..).collect();
        Frames {
            grammar: self,
            plain: (plain.into_iter())
                .map(|(alternative, p, written)| (alternative, p, numbers[&written]))
                .collect(),
            probabilities: probabilities.into_values().collect(),
        }
    }
}

impl Frames<'_> {
    /// Returns the probability of each frame. They sum to one.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Returns the number of a sentence's most probable frame; `None` if the language does not
    /// contain the sentence.
    pub fn of<S: AsRef<str>>(&self, tokens: &[S]) -> Option<usize> {
        let words = self.grammar.ids_of(tokens)?;
        let alternatives = self.plain.iter().map(|(alternative, ..)| *alternative);
        let grammar = self.grammar;
        let log_probs =
            inside::log_probs_given(&grammar.nodes, &grammar.starters, &words, alternatives);
        (log_probs.into_iter().zip(&self.plain))
            .filter_map(|(log_p, (_, p, frame))| Some((log_p? + p.ln(), *frame)))
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, frame)| frame)
    }

    /// Compares samples with the distribution; `None` if no sample is valid.
    pub fn compare<S: AsRef<str>>(&self, samples: &[Vec<S>]) -> Option<FrameMatch> {
        let mut counts = vec![0_usize; self.probabilities.len()];
        for frame in samples.iter().filter_map(|sample| self.of(sample)) {
            counts[frame] += 1;
        }
        let valid: usize = counts.iter().sum();
        if valid == 0 {
            return None;
        }
        let written = || (counts.iter().zip(&self.probabilities)).filter(|(count, _)| **count > 0);
        let share = |count: usize| count as f64 / valid as f64;
        Some(FrameMatch {
            divergence: written()
                .map(|(n, p)| share(*n) * (share(*n) / p).ln())
                .sum(),
            // The sum over all frames may round to more than one.
            recall: written().map(|(_, p)| p).sum::<f64>().min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const TEXT: &str = "feature n = s p\nstart S\nS -> A @3 | B\nA -> a X[n] @2 | X[n] c\nB -> b b\nX[s] -> x\nX[p] -> y";

    fn words(sentence: &str) -> Vec<&str> {
        sentence.split(' ').collect()
    }

    #[test]
    fn a_frame_is_the_first_rule_that_is_no_lone_symbol() {
        let grammar = Grammar::parse(TEXT).unwrap();
        let frames = grammar.frames();
        assert_eq!(frames.probabilities().len(), 3);
        let p = |sentence| {
            frames
                .of(&words(sentence))
                .map(|f| frames.probabilities()[f])
        };
        for (sentence, expected) in [("a x", 0.5), ("a y", 0.5), ("x c", 0.25), ("b b", 0.25)] {
            assert!(
                (p(sentence).unwrap() - expected).abs() < 1e-12,
                "{sentence}"
            );
        }
        assert_eq!(frames.of(&words("a c")), None);
        assert_ne!(frames.of(&words("x c")), frames.of(&words("b b")));
    }

    #[test]
    fn the_comparison_is_the_divergence_of_the_shares() {
        let grammar = Grammar::parse(TEXT).unwrap();
        let samples = ["a x", "a y", "x c", "c c"].map(words);
        let found = grammar.frames().compare(&samples).unwrap();
        let third = 1.0 / 3.0_f64;
        let expected = 2.0 * third * (2.0 * third / 0.5).ln() + third * (third / 0.25).ln();
        assert!((found.divergence - expected).abs() < 1e-12, "{found:?}");
        assert!((found.recall - 0.75).abs() < 1e-12);
        assert_eq!(grammar.frames().compare(&[words("c c")]), None);
    }

    #[test]
    fn sentences_of_the_distribution_have_its_frames_and_one_kind_of_sentence_has_not() {
        let grammar = Grammar::small_english();
        let frames = grammar.frames();
        assert_eq!(frames.probabilities().len(), 13);
        assert!((frames.probabilities().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let samples: Vec<Vec<&str>> = (0..1_000).map(|_| grammar.sample(&mut rng)).collect();
        let found = frames.compare(&samples).unwrap();
        // 2n·divergence is χ² with 12 degrees of freedom: above 48 with probability 3e-6.
        assert!(found.divergence < 48.0 / 2_000.0, "{found:?}");
        assert_eq!(found.recall, 1.0);
        let kind: Vec<Vec<&str>> = (samples.iter())
            .filter(|sample| frames.of(sample) == Some(0))
            .cloned()
            .collect();
        let found = frames.compare(&kind).unwrap();
        assert!(found.divergence > 1.0 && found.recall < 0.2, "{found:?}");
    }
}
