//! The built-in grammar.

use super::Grammar;

impl Grammar {
    /// Source text of the built-in grammar, `grammars/small-english.grammar`.
    pub const SMALL_ENGLISH: &'static str = include_str!("../../grammars/small-english.grammar");

    /// Returns the built-in grammar of small English, with 157 words and sentences of 6 to
    /// 21 tokens.
    ///
    /// # Panics
    ///
    /// Never panics: the source is part of the crate, and a test parses it.
    pub fn small_english() -> Self {
        Self::parse(Self::SMALL_ENGLISH).expect("the built-in grammar is well formed")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn contains(grammar: &Grammar, sentence: &str) -> bool {
        grammar.contains(&sentence.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn size_and_lengths_are_as_documented() {
        let grammar = Grammar::small_english();
        assert_eq!(grammar.words().len(), 157);
        // With its end token a sentence must fit into 22 positions.
        assert_eq!((grammar.min_len(), grammar.max_len()), (6, 21));
        assert!((10.0..12.0).contains(&grammar.mean_len()));
        let per_token = grammar.derivation_entropy() / grammar.mean_len();
        assert!((0.9..1.1).contains(&per_token), "{per_token}");
        assert!(grammar.words().is_sorted());
        for word in grammar.words() {
            assert_eq!(*word, word.to_lowercase());
        }
    }

    #[test]
    fn samples_are_sentences_of_permitted_length() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for _ in 0..2000 {
            let tokens = grammar.sample(&mut rng);
            assert!(grammar.contains(&tokens), "{tokens:?}");
            assert!((6..=grammar.max_len()).contains(&tokens.len()));
            assert_eq!(tokens.iter().filter(|token| **token == "\"").count() % 2, 0);
        }
    }

    #[test]
    fn every_word_is_used() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for _ in 0..20_000 {
            for token in grammar.sample(&mut rng) {
                *counts.entry(token).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), grammar.words().len());
    }

    #[test]
    fn what_belongs_together_is_enforced() {
        let grammar = Grammar::small_english();
        for (good, bad) in [
            (
                "the boys who live in new york sell two hats .",
                "the boys who live in new york sells two hats .",
            ),
            (
                "the man who lives in santa fe sells two hats .",
                "the man who lived in santa fe sells two hats .",
            ),
            (
                "the books that our sister bought were red .",
                "the books that our sister bought was red .",
            ),
            (
                "clara bell lost her hat because she was tired .",
                "clara bell lost her hat because he was tired .",
            ),
            (
                "robin stone lost his hat because he was late .",
                "robin bell lost his hat because he was late .",
            ),
            (
                "clara bell met the women in new york yesterday .",
                "clara bell met the women in new diego yesterday .",
            ),
            (
                "clara bell was late yesterday .",
                "clara stone was late yesterday .",
            ),
            (
                "there were two coats in the garden yesterday .",
                "there were two coat in the garden yesterday .",
            ),
            (
                "\" i lost my hat , \" said henry lee .",
                "\" i lost my hat , said henry lee .",
            ),
            (
                "\" we lost our hat , \" said the men .",
                "\" i lost my hat , \" said the men .",
            ),
            (
                "either the boys or henry lee sells two hats .",
                "either the boys and henry lee sells two hats .",
            ),
            (
                "not only clara bell but also the boys walk to the market .",
                "not only clara bell or also the boys walk to the market .",
            ),
            (
                "the dogs were hungry , so our son gave them some milk .",
                "the dogs were hungry , so our son gave it some milk .",
            ),
        ] {
            assert!(contains(&grammar, good), "{good}");
            assert!(!contains(&grammar, bad), "{bad}");
        }
    }

    #[test]
    fn one_wrong_word_breaks_a_sentence_wherever_it_is() {
        let grammar = Grammar::small_english();
        let wrong = HashMap::from([
            ("is", "are"),
            ("are", "is"),
            ("was", "were"),
            ("were", "was"),
            ("buys", "buy"),
            ("he", "she"),
            ("she", "they"),
            ("his", "her"),
            ("their", "his"),
            ("york", "diego"),
            ("diego", "fe"),
            ("maria", "james"),
            ("one", "two"),
            ("many", "one"),
            ("last", "next"),
            ("tomorrow", "yesterday"),
            ("or", "and"),
            ("but", "or"),
            ("either", "the"),
            ("asked", "said"),
            ("\"", ","),
        ]);
        let mut met: HashMap<&str, usize> = HashMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(13);
        for _ in 0..4000 {
            let tokens = grammar.sample(&mut rng);
            for (place, &token) in tokens.iter().enumerate() {
                // "many of the girls" and "one of the girls" are both possible.
                let Some(&other) = wrong
                    .get(token)
                    .filter(|_| tokens.get(place + 1) != Some(&"of"))
                else {
                    continue;
                };
                let mut broken = tokens.clone();
                broken[place] = other;
                assert!(!grammar.contains(&broken), "{}", broken.join(" "));
                *met.entry(token).or_default() += 1;
            }
        }
        assert_eq!(met.len(), wrong.len(), "{met:?}");
    }

    #[test]
    fn ambiguity_is_rare() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(14);
        let ambiguous = (0..2000)
            .filter(|_| {
                let (tokens, log_p) = grammar.derive(&mut rng);
                grammar.log_prob(&tokens).unwrap() > log_p + 1e-9
            })
            .count();
        assert!(ambiguous < 20, "{ambiguous}");
    }
}
