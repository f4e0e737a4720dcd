//! The inside algorithm: the weight with which a node derives a span, summed over derivations.
//!
//! The chart visits start positions from right to left. At each position it visits the nodes,
//! children first. So everything that a node needs is already known, without recursion. A node is
//! tried only where it can occur. For each node and start, the chart keeps the few possible ends
//! with their weights. In such languages a node derives almost every span in one way or not at all.

use super::expand::{Alternative, Item, Plain};
use super::weight::{Log, Weight};

/// The nodes that can begin with a given word, computed once per grammar.
#[derive(Debug)]
pub(super) struct Starters {
    by_word: Vec<Vec<u32>>,
    /// Nodes that can derive the empty string. Only these are tried after the last word.
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

/// Possible ends of a span, each with the total weight of what ends there.
pub(super) type Ends<W> = Vec<(u32, W)>;

/// The inside weights of every node from every start position.
#[derive(Debug)]
pub(super) struct Chart<'g, W> {
    pub(super) nodes: &'g [Vec<Alternative>],
    /// Ranges of `arena`, by start and node.
    spans: Vec<(u32, u32)>,
    pub(super) arena: Ends<W>,
}

impl<'g, W: Weight> Chart<'g, W> {
    /// Computes the chart of `length` positions, where `weigh` returns the weight of a word at
    /// a position.
    ///
    /// `candidates` returns the nodes to try from a position, children first. It is also called
    /// with `length`, the position after the last word.
    pub(super) fn new<'c>(
        nodes: &'g [Vec<Alternative>],
        length: usize,
        candidates: impl Fn(usize) -> &'c [u32],
        weigh: impl Fn(usize, u32) -> W,
    ) -> Self {
        let mut chart = Self {
            nodes,
            spans: vec![(0, 0); nodes.len() * (length + 1)],
            arena: Ends::new(),
        };
        let (mut total, mut frontier, mut reached) = (Ends::new(), Ends::new(), Ends::new());
        for start in (0..=length).rev() {
            for &node in candidates(start) {
                total.clear();
                for alternative in &nodes[node as usize] {
                    frontier.clear();
                    frontier.push((start as u32, W::of(alternative)));
                    for item in &alternative.items {
                        chart.advance(*item, &frontier, &mut reached, length, &weigh);
                        std::mem::swap(&mut frontier, &mut reached);
                        if frontier.is_empty() {
                            break;
                        }
                    }
                    for (end, weight) in &frontier {
                        add(&mut total, *end, *weight);
                    }
                }
                let from = chart.arena.len() as u32;
                chart.arena.extend_from_slice(&total);
                chart.spans[start * nodes.len() + node as usize] = (from, chart.arena.len() as u32);
            }
        }
        chart
    }

    /// Extends a prefix by one item: computes its possible ends from those of the items before it.
    pub(super) fn advance(
        &self,
        item: Item,
        from: &[(u32, W)],
        reached: &mut Ends<W>,
        length: usize,
        weigh: &impl Fn(usize, u32) -> W,
    ) {
        reached.clear();
        match item {
            Item::Word(word) => reached.extend(from.iter().filter_map(|(at, left)| {
                if *at as usize == length {
                    return None;
                }
                let right = weigh(*at as usize, word);
                (!right.is_none()).then(|| (at + 1, left.times(right)))
            })),
            Item::Node(child) => {
                for (middle, left) in from {
                    for (end, right) in &self.arena[self.span(child, *middle)] {
                        add(reached, *end, left.times(*right));
                    }
                }
            }
        }
    }

    /// Returns the range of the arena that holds the ends of a node.
    pub(super) fn span(&self, node: u32, start: u32) -> std::ops::Range<usize> {
        let (from, to) = self.spans[start as usize * self.nodes.len() + node as usize];
        from as usize..to as usize
    }

    /// Returns the range of the arena that holds the ends of whole sentences.
    pub(super) fn sentences(&self) -> std::ops::Range<usize> {
        self.span(self.nodes.len() as u32 - 1, 0)
    }
}

/// Adds a weight to the entry of `end`.
fn add<W: Weight>(ends: &mut Ends<W>, end: u32, weight: W) {
    match ends.iter_mut().find(|(other, _)| *other == end) {
        Some((_, sum)) => *sum = sum.plus(weight),
        None => ends.push((end, weight)),
    }
}

/// Returns the log-probability that the last node derives exactly `words`; `None` if it cannot.
pub(super) fn log_prob(
    nodes: &[Vec<Alternative>],
    starters: &Starters,
    words: &[u32],
) -> Option<f64> {
    let chart = chart(nodes, starters, words);
    whole(&chart.arena[chart.sentences()], words.len())
}

/// Returns the log-probability that each alternative, if chosen, derives exactly `words`; `None` if
/// it cannot.
pub(super) fn log_probs_given<'g>(
    nodes: &'g [Vec<Alternative>],
    starters: &Starters,
    words: &[u32],
    alternatives: impl Iterator<Item = &'g Alternative>,
) -> Vec<Option<f64>> {
    let chart = chart(nodes, starters, words);
    let weigh = |place: usize, word| Log::of_match(words[place] == word);
    let log_prob = |alternative: &Alternative| {
        let (mut frontier, mut reached) = (vec![(0, Log::ONE)], Ends::new());
        for item in &alternative.items {
            chart.advance(*item, &frontier, &mut reached, words.len(), &weigh);
            std::mem::swap(&mut frontier, &mut reached);
        }
        whole(&frontier, words.len())
    };
    alternatives.map(log_prob).collect()
}

/// Returns the log weight of the entry that ends at `length`.
fn whole(ends: &[(u32, Log)], length: usize) -> Option<f64> {
    let end = ends.iter().find(|(end, _)| *end as usize == length);
    end.map(|(_, Log(log_p))| *log_p)
}

/// Computes the chart of known words.
fn chart<'g>(nodes: &'g [Vec<Alternative>], starters: &Starters, words: &[u32]) -> Chart<'g, Log> {
    let candidates = |start: usize| match words.get(start) {
        Some(word) => starters.by_word[*word as usize].as_slice(),
        None => starters.empty.as_slice(),
    };
    let weigh = |place: usize, word| Log::of_match(words[place] == word);
    Chart::new(nodes, words.len(), candidates, weigh)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::Grammar;
    use crate::grammar::enumerate::{random_grammar, strings};

    /// Returns all strings over `words` with up to `max` tokens.
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

    /// Compares the chart with enumeration, on all strings of up to one token more than
    /// the longest.
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
        // `a a a` has two bracketings under S -> A A, and a third derivation as a whole.
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn random_grammars_match_enumeration(text in random_grammar()) {
            check(&Grammar::parse(&text).unwrap())?;
        }
    }
}
