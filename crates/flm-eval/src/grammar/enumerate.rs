//! Brute-force enumeration of a grammar's strings with their probabilities, to test the chart.

use std::collections::HashMap;

use proptest::prelude::*;

use super::Grammar;
use super::expand::Item;

type Strings = HashMap<Vec<String>, f64>;

/// Returns the strings of the start node. Only for languages of some thousand strings.
pub(super) fn strings(grammar: &Grammar) -> Strings {
    let mut nodes: Vec<Strings> = Vec::new();
    for alternatives in &grammar.nodes {
        let mut all = Strings::new();
        for alternative in alternatives {
            let mut prefixes = vec![(Vec::new(), alternative.p)];
            for item in &alternative.items {
                let parts = match item {
                    Item::Word(word) => {
                        Strings::from([(vec![grammar.words[*word as usize].clone()], 1.0)])
                    }
                    Item::Node(node) => nodes[*node as usize].clone(),
                };
                prefixes = (prefixes.iter())
                    .flat_map(|(left, p)| {
                        let join = move |(right, q): (&Vec<String>, &f64)| {
                            ([left.as_slice(), right].concat(), p * q)
                        };
                        parts.iter().map(join)
                    })
                    .collect();
            }
            for (string, p) in prefixes {
                *all.entry(string).or_default() += p;
            }
        }
        nodes.push(all);
    }
    nodes.pop().unwrap_or_default()
}

/// Generates a layered grammar. Layer i uses words and later layers, and always the next layer.
pub(super) fn random_grammar() -> impl Strategy<Value = String> {
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
