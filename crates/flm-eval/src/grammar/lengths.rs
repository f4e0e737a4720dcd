//! Sentence lengths and derivation entropy, computed from the rules.

use super::error::{GrammarError, GrammarErrorKind as Kind};
use super::expand::{Alternative, Item};

/// Limit on the sentence length. Charts of longer sentences would be large, and doubling rules
/// reach astronomical lengths in a few lines.
const MAX_LENGTH: usize = 512;

/// Exact properties of a node's strings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) min: usize,
    pub(super) max: usize,
    /// Expected length in tokens.
    pub(super) mean: f64,
    /// Entropy of a derivation in nats.
    pub(super) entropy: f64,
}

impl Summary {
    /// Summarizes the last node. Nodes come after the nodes they use.
    pub(super) fn new(nodes: &[Vec<Alternative>], line: usize) -> Result<Self, GrammarError> {
        let mut summaries: Vec<Self> = Vec::with_capacity(nodes.len());
        let mut last = Self::EMPTY;
        for alternatives in nodes {
            last = Self::any_of(alternatives, &summaries);
            if last.max > MAX_LENGTH {
                let limit = MAX_LENGTH;
                return Err(GrammarError::new(line, Kind::TooLong { limit }));
            }
            summaries.push(last);
        }
        Ok(last)
    }

    const EMPTY: Self = Self {
        min: 0,
        max: 0,
        mean: 0.0,
        entropy: 0.0,
    };

    fn any_of(alternatives: &[Alternative], children: &[Self]) -> Self {
        let mut node = Self {
            min: usize::MAX,
            ..Self::EMPTY
        };
        for alternative in alternatives {
            let p = alternative.p;
            let whole = Self::sequence(&alternative.items, children);
            node.min = node.min.min(whole.min);
            node.max = node.max.max(whole.max);
            node.mean += p * whole.mean;
            node.entropy += p * (whole.entropy - alternative.log_p);
        }
        node
    }

    fn sequence(items: &[Item], children: &[Self]) -> Self {
        let mut whole = Self::EMPTY;
        for item in items {
            let part = match item {
                Item::Word(_) => Self {
                    min: 1,
                    max: 1,
                    mean: 1.0,
                    entropy: 0.0,
                },
                Item::Node(node) => children[*node as usize],
            };
            whole.min += part.min;
            whole.max += part.max;
            whole.mean += part.mean;
            whole.entropy += part.entropy;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use crate::{Grammar, GrammarErrorKind};

    #[test]
    fn closed_forms_on_a_grammar_done_by_hand() {
        let grammar = Grammar::parse("start S\nS -> A A @3 | c\nA -> a | b b").unwrap();
        assert_eq!((grammar.min_len(), grammar.max_len()), (1, 4));
        assert!((grammar.mean_len() - (0.75 * 3.0 + 0.25)).abs() < 1e-12);
        // The choice at S, and two fair choices with probability ¾.
        let choice = -(0.75 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
        let expected = choice + 0.75 * 2.0 * 2.0_f64.ln();
        assert!((grammar.derivation_entropy() - expected).abs() < 1e-12);
    }

    #[test]
    fn doubling_rules_are_refused_not_expanded() {
        let mut text = String::from("start A0\n");
        for layer in 0..64 {
            text += &format!("A{layer} -> A{next} A{next}\n", next = layer + 1);
        }
        text += "A64 -> a";
        let error = Grammar::parse(&text).unwrap_err();
        assert_eq!(error.line, 1);
        assert_eq!(error.kind, GrammarErrorKind::TooLong { limit: 512 });
    }
}
