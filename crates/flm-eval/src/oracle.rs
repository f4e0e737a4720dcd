//! Exact scores of samples under a grammar.

use crate::Grammar;
use crate::grammar::log_add;

impl Grammar {
    /// Weight ε of the floor in [`floored_log_prob`](Self::floored_log_prob).
    ///
    /// It costs a sentence of the language at most 0.001 nats. An impossible sentence costs about
    /// 6.9 nats plus the cost of its words.
    pub const FLOOR: f64 = 1e-3;

    /// Returns the log-probability in nats with a floor: ln((1−ε)·p(x) + ε·q(x)).
    ///
    /// The floor q picks uniformly at each position: one of the V words, one symbol for all other
    /// words, or the end. So q(x) = (V+2)^−(n+1) for a string x of n tokens. Both p and q are
    /// distributions over finite strings, hence the mixture is one too. It is finite and comparable
    /// for any string.
    pub fn floored_log_prob<S: AsRef<str>>(&self, tokens: &[S]) -> f64 {
        let symbols = (self.words().len() + 2) as f64;
        let floor = Self::FLOOR.ln() - (tokens.len() + 1) as f64 * symbols.ln();
        match self.log_prob(tokens) {
            Some(log_p) => log_add((-Self::FLOOR).ln_1p() + log_p, floor),
            None => floor,
        }
    }
}

/// Returns the cross-entropy of samples against the grammar in nats per token; `None`
/// without samples.
///
/// It is −Σ ln p̃(x) / Σ (n(x) + 1), where p̃ is the [floored
/// distribution](Grammar::floored_log_prob) and n(x) the number of tokens. The added one counts the
/// decision to end, which is part of every sentence's probability. The ratio is taken over all
/// samples together, so long samples have more weight.
pub fn oracle_nats_per_token<S: AsRef<str>, T: AsRef<[S]>>(
    grammar: &Grammar,
    samples: &[T],
) -> Option<f64> {
    let (mut nats, mut decisions) = (0.0, 0);
    for tokens in samples.iter().map(AsRef::as_ref) {
        nats -= grammar.floored_log_prob(tokens);
        decisions += tokens.len() + 1;
    }
    (decisions > 0).then(|| nats / decisions as f64)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    const TOY: &str = "start S\nS -> a @3 | a b | ()";

    /// All strings over `symbols` with up to `max` tokens.
    fn strings(symbols: &[&'static str], max: usize) -> Vec<Vec<&'static str>> {
        let mut all = vec![vec![]];
        let mut from = 0;
        for _ in 0..max {
            let to = all.len();
            for index in from..to {
                for symbol in symbols {
                    let mut longer = all[index].clone();
                    longer.push(*symbol);
                    all.push(longer);
                }
            }
            from = to;
        }
        all
    }

    #[test]
    fn the_floored_grammar_is_a_distribution() {
        let grammar = Grammar::parse(TOY).unwrap();
        // "?" represents all unknown words, which share one symbol.
        let all = strings(&["a", "b", "?"], 6);
        assert_eq!(all.len(), 1093);
        let mass: f64 = (all.iter())
            .map(|tokens| grammar.floored_log_prob(tokens).exp())
            .sum();
        // q ends within 6 tokens unless 7 draws in a row are not the end.
        let beyond = Grammar::FLOOR * (3.0_f64 / 4.0).powi(7);
        assert!((mass + beyond - 1.0).abs() < 1e-12, "{mass}");
    }

    #[test]
    fn impossible_and_unknown_strings_have_the_documented_score() {
        let grammar = Grammar::parse(TOY).unwrap();
        for tokens in [["b", "a"], ["b", "unheard-of"]] {
            let expected = 1e-3_f64.ln() - 3.0 * 4.0_f64.ln();
            assert!((grammar.floored_log_prob(&tokens) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_floor_costs_a_member_at_most_a_thousandth() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let tokens = grammar.sample(&mut rng);
            let loss = grammar.log_prob(&tokens).unwrap() - grammar.floored_log_prob(&tokens);
            assert!(loss <= -(-Grammar::FLOOR).ln_1p() + 1e-12, "{loss}");
        }
    }

    #[test]
    fn cross_entropy_counts_the_end_decision() {
        let grammar = Grammar::parse(TOY).unwrap();
        let samples: [&[&str]; 3] = [&["a"], &["a", "b"], &[]];
        let nats: f64 = samples.iter().map(|s| -grammar.floored_log_prob(s)).sum();
        let per_token = oracle_nats_per_token(&grammar, &samples).unwrap();
        assert!((per_token - nats / 6.0).abs() < 1e-12);
        assert_eq!(oracle_nats_per_token::<&str, &[&str]>(&grammar, &[]), None);
    }

    #[test]
    fn broken_samples_score_worse_than_the_corpus() {
        let grammar = Grammar::small_english();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let good: Vec<Vec<&str>> = (0..100).map(|_| grammar.sample(&mut rng)).collect();
        let broken: Vec<Vec<&str>> = (good.iter())
            .map(|tokens| tokens.iter().rev().copied().collect())
            .collect();
        let good = oracle_nats_per_token(&grammar, &good).unwrap();
        let broken = oracle_nats_per_token(&grammar, &broken).unwrap();
        assert!(broken > ((grammar.words().len() + 2) as f64).ln() && good < 1.5);
    }
}
