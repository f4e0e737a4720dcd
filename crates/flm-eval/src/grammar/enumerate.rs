//! Every string of a grammar with its probability, by brute force: what the chart is tested with.

use std::collections::HashMap;

use super::Grammar;
use super::expand::Item;

type Strings = HashMap<Vec<String>, f64>;

/// The strings of the start node. Only for languages of some thousand strings.
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
