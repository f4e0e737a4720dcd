//! The built-in corpus.

use super::Grammar;

impl Grammar {
    /// Source of the built-in grammar, `datasets/grammar/small-english.grammar`.
    pub const SMALL_ENGLISH: &'static str =
        include_str!("../../../../datasets/grammar/small-english.grammar");

    /// The built-in corpus: small English, 169 words, sentences of 6 to 22 tokens.
    ///
    /// # Panics
    ///
    /// Never: the source is part of the crate, and a test parses it.
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
        assert_eq!(grammar.words().len(), 169);
        // With the end token a sentence must fit into 24 places.
        assert_eq!((grammar.min_len(), grammar.max_len()), (6, 22));
        assert!((11.0..13.0).contains(&grammar.mean_len()));
        let per_token = grammar.derivation_entropy() / grammar.mean_len();
        assert!((1.1..1.3).contains(&per_token), "{per_token}");
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
                "the boys who love the girl drive to the station today .",
                "the boys who love the girl drives to the station today .",
            ),
            (
                "the man who lives in santa fe sells two hats today .",
                "the man who lived in santa fe sells two hats today .",
            ),
            (
                "when clara bell lost her hat , she was hungry .",
                "when clara bell lost her hat , he was hungry .",
            ),
            (
                "when robin stone lost his hat , he was late .",
                "when robin bell lost his hat , he was late .",
            ),
            (
                "clara bell met the women in new york because she was late .",
                "clara bell met the women in new diego because she was late .",
            ),
            (
                "clara bell drove to the school yesterday .",
                "clara stone drove to the school yesterday .",
            ),
            (
                "there were two coats in the garden yesterday .",
                "there were two coat in the garden yesterday .",
            ),
            (
                "\" i am late , \" said henry lee .",
                "\" i am late , said henry lee .",
            ),
            (
                "\" we lost our hat at the station , \" said the men .",
                "\" i lost my hat at the station , \" said the men .",
            ),
            (
                "either the boys or henry lee drives to the school today .",
                "either the boys and henry lee drives to the school today .",
            ),
            (
                "the women not only found a red hat but also lost their lamp .",
                "the women not only found a red hat or also lost their lamp .",
            ),
            (
                "the dogs were hungry , so my son gave them some milk .",
                "the dogs were hungry , so my son gave it some milk .",
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
            ("a", "two"),
            ("many", "a"),
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
