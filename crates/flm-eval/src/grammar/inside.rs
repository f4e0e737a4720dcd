//! The inside algorithm: the probability that a node derives a span, all derivations summed.
//!
//! The chart goes through the starting positions from the right and, at each, through the nodes
//! with children first; so everything a node needs is known when it is reached, without
//! recursion. A node is tried only where the next word can begin it. For each node and start the
//! chart keeps the few possible ends with their log-probabilities, because in a language like
//! ours almost every span is a node in one way or none.

use super::expand::{Alternative, Item, Plain};

/// Nodes that can begin at a given word, found once per grammar.
#[derive(Debug)]
pub(super) struct Starters {
    by_word: Vec<Vec<u32>>,
    /// Nodes that can derive the empty string: the ones to try where no word is left.
    empty: Vec<u32>,
}

impl Starters {
    pub(super) fn new(plain: &Plain) -> Self {
        let mut first: Vec<Vec<u32>> = Vec::with_capacity(plain.nodes.len());
        let mut nullable: Vec<bool> = Vec::with_capacity(plain.nodes.len());
        for alternatives in &plain.nodes {
            let mut words = Vec::new();
            let mut is_empty = false;
            for alternative in alternatives {
                let mut open = true;
                for item in &alternative.items {
                    match item {
                        Item::Word(word) => {
                            words.push(*word);
                            open = false;
                        }
                        Item::Node(node) => {
                            words.extend_from_slice(&first[*node as usize]);
                            open = nullable[*node as usize];
                        }
                    }
                    if !open {
                        break;
                    }
                }
                is_empty |= open;
            }
            words.sort_unstable();
            words.dedup();
            first.push(words);
            nullable.push(is_empty);
        }

        let mut by_word = vec![Vec::new(); plain.words.len()];
        let mut empty = Vec::new();
        for (node, (words, is_empty)) in (0..).zip(first.iter().zip(&nullable)) {
            if *is_empty {
                empty.push(node);
                by_word.iter_mut().for_each(|nodes| nodes.push(node));
            } else {
                words
                    .iter()
                    .for_each(|word| by_word[*word as usize].push(node));
            }
        }
        Self { by_word, empty }
    }
}

/// Where a span can end, and the log-probability of the words up to there, in nats.
type Ends = Vec<(u32, f64)>;

/// Log-probability that the last node derives exactly `words`; `None` if it cannot.
pub(super) fn log_prob(
    nodes: &[Vec<Alternative>],
    starters: &Starters,
    words: &[u32],
) -> Option<f64> {
    let length = words.len();
    // Ranges of `arena`, by start and node.
    let mut spans = vec![(0_u32, 0_u32); nodes.len() * (length + 1)];
    let mut arena = Ends::new();
    let (mut total, mut frontier, mut reached) = (Ends::new(), Ends::new(), Ends::new());
    for start in (0..=length).rev() {
        let candidates = match words.get(start) {
            Some(word) => &starters.by_word[*word as usize],
            None => &starters.empty,
        };
        for &node in candidates {
            total.clear();
            for alternative in &nodes[node as usize] {
                frontier.clear();
                frontier.push((start as u32, alternative.log_p));
                for item in &alternative.items {
                    match item {
                        Item::Word(word) => {
                            frontier.retain_mut(|(end, _)| {
                                let is_next = words.get(*end as usize) == Some(word);
                                *end += 1;
                                is_next
                            });
                        }
                        Item::Node(child) => {
                            reached.clear();
                            for (middle, left) in &frontier {
                                let row = *middle as usize * nodes.len();
                                let (from, to) = spans[row + *child as usize];
                                for (end, right) in &arena[from as usize..to as usize] {
                                    add(&mut reached, *end, left + right);
                                }
                            }
                            std::mem::swap(&mut frontier, &mut reached);
                        }
                    }
                    if frontier.is_empty() {
                        break;
                    }
                }
                for (end, log_p) in &frontier {
                    add(&mut total, *end, *log_p);
                }
            }
            let from = arena.len() as u32;
            arena.extend_from_slice(&total);
            spans[start * nodes.len() + node as usize] = (from, arena.len() as u32);
        }
    }
    let (from, to) = spans[nodes.len() - 1];
    (arena[from as usize..to as usize].iter())
        .find(|(end, _)| *end as usize == length)
        .map(|(_, log_p)| *log_p)
}

/// Adds a probability to the one that `end` has already.
fn add(ends: &mut Ends, end: u32, log_p: f64) {
    match ends.iter_mut().find(|(other, _)| *other == end) {
        Some((_, sum)) => *sum = log_add(*sum, log_p),
        None => ends.push((end, log_p)),
    }
}

/// ln(eᵃ + eᵇ) without underflow.
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    large + (small - large).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Grammar;
    use crate::grammar::enumerate::strings;

    /// All strings over `words` with up to `max` tokens.
    fn all_strings(words: &[String], max: usize) -> Vec<Vec<String>> {
        let mut all = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..max {
            let to = all.len();
            for index in from..to {
                for word in words {
                    let longer = [all[index].as_slice(), std::slice::from_ref(word)].concat();
                    all.push(longer);
                }
            }
            from = to;
        }
        all
    }

    /// On every string up to a bit over the longest: the chart gives what enumeration gives.
    fn check(grammar: &Grammar) -> Result<(), TestCaseError> {
        let expected = strings(grammar);
        let mut mass = 0.0;
        for string in all_strings(grammar.words(), grammar.max_len().min(6) + 1) {
            let found = grammar.log_prob(&string).map(f64::exp);
            mass += found.unwrap_or(0.0);
            match (found, expected.get(&string)) {
                (None, None) => {}
                (Some(found), Some(expected)) => {
                    prop_assert!((found - expected).abs() < 1e-12 * expected, "{string:?}");
                }
                (found, expected) => {
                    prop_assert!(false, "{string:?}: {found:?} against {expected:?}");
                }
            }
        }
        if grammar.max_len() <= 6 {
            prop_assert!((mass - 1.0).abs() < 1e-12, "{mass}");
        }
        let lengths = || expected.keys().map(Vec::len);
        prop_assert_eq!(lengths().min(), Some(grammar.min_len()));
        prop_assert_eq!(lengths().max(), Some(grammar.max_len()));
        let mean: f64 = expected.iter().map(|(s, p)| s.len() as f64 * p).sum();
        prop_assert!((mean - grammar.mean_len()).abs() < 1e-12 * (1.0 + mean));
        let entropy: f64 = expected.values().map(|p| p * -p.ln()).sum();
        prop_assert!(grammar.derivation_entropy() > entropy - 1e-12);
        Ok(())
    }

    #[test]
    fn derivations_of_an_ambiguous_string_are_summed() {
        // `a a a` has two bracketings under S -> A A, and one more as a whole.
        let text = "start S\nS -> A A @3 | a a a\nA -> a @2 | a a";
        let grammar = Grammar::parse(text).unwrap();
        let p = grammar.log_prob(&["a", "a", "a"]).unwrap().exp();
        let expected = 0.75 * 2.0 * (2.0 / 3.0) * (1.0 / 3.0) + 0.25;
        assert!((p - expected).abs() < 1e-15);
        check(&grammar).unwrap();
    }

    #[test]
    fn empty_alternatives_are_found_everywhere() {
        let text = "start S\nS -> A b A | A A\nA -> () | a @2 | B\nB -> () | b";
        check(&Grammar::parse(text).unwrap()).unwrap();
    }

    #[test]
    fn log_add_neither_overflows_nor_underflows() {
        assert!((log_add(-1000.0, -1000.0) - (2.0_f64.ln() - 1000.0)).abs() < 1e-12);
        assert_eq!(log_add(-1.0, -1e6), -1.0);
    }

    /// A layered grammar: layer i uses words and later layers, and the next one for certain.
    fn random_grammar() -> impl Strategy<Value = String> {
        let items = |layer: usize| {
            let later: Vec<String> = ["a", "b", "()"]
                .into_iter()
                .map(str::to_owned)
                .chain((layer + 1..3).map(|next| format!("L{next}")))
                .collect();
            prop::collection::vec(prop::sample::select(later), 1..3)
        };
        let rules = move |layer: usize| {
            let rule = (items(layer), 1_u32..5).prop_map(|(items, weight)| (items, weight));
            prop::collection::vec(rule, 1..4).prop_map(move |alternatives| {
                let mut text = match layer {
                    2 => format!("L{layer} -> a\n"),
                    _ => format!("L{layer} -> L{}\n", layer + 1),
                };
                for (items, weight) in alternatives {
                    text += &format!("  | {} @{weight}\n", items.join(" "));
                }
                text
            })
        };
        (rules(0), rules(1), rules(2)).prop_map(|(a, b, c)| format!("start L0\n{a}{b}{c}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn random_grammars_match_enumeration(text in random_grammar()) {
            check(&Grammar::parse(&text).unwrap())?;
        }
    }
}
