//! Expands rules with features into a plain context-free grammar without recursion.

use std::collections::HashMap;

use super::error::{GrammarError, GrammarErrorKind as Kind};
use super::source::{Alternative as Written, Item as WrittenItem, Mention, Rule, Source};

/// Limit on plain alternatives. It is far more than a readable file needs, and catches a mistake
/// with many free variables.
const MAX_ALTERNATIVES: usize = 100_000;

type Result<T> = std::result::Result<T, GrammarError>;

/// A word or a node, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Word(u32),
    Node(u32),
}

/// One way to replace a node.
#[derive(Debug, Clone)]
pub(super) struct Alternative {
    /// Probability given the node.
    pub(super) p: f64,
    /// Natural logarithm of `p`.
    pub(super) log_p: f64,
    pub(super) items: Vec<Item>,
    /// Number of the written alternative from which this one was expanded.
    pub(super) written: usize,
}

/// The plain grammar. Nodes come after all nodes they use, and the start node is last.
#[derive(Debug)]
pub(super) struct Plain {
    /// The distinct words, sorted.
    pub(super) words: Vec<String>,
    pub(super) nodes: Vec<Vec<Alternative>>,
}

impl Plain {
    pub(super) fn expand(source: &Source, last_line: usize) -> Result<Self> {
        let start =
            (source.start.as_ref()).ok_or_else(|| GrammarError::new(last_line, Kind::NoStart))?;
        let mut words: Vec<String> = (source.rules.iter())
            .flat_map(|rule| &rule.alternatives)
            .flat_map(|alternative| &alternative.items)
            .filter_map(|item| match item {
                WrittenItem::Word(word) => Some(word.clone()),
                WrittenItem::Symbol(_) => None,
            })
            .collect();
        words.sort_unstable();
        words.dedup();

        let mut expansion = Expansion::new(source, &words);
        expansion.node(start, &HashMap::new());
        expansion.run()?;
        let nodes = expansion.children_first()?;
        Ok(Self { words, nodes })
    }
}

/// A node during expansion: a symbol with a value for each feature.
struct Draft<'s> {
    name: &'s str,
    values: Vec<usize>,
    /// Line of the first mention.
    line: usize,
    weights: Vec<f64>,
    alternatives: Vec<Vec<Item>>,
    /// For each alternative, the number of the written one.
    written: Vec<usize>,
}

/// Values of variables by name.
type Binding<'s> = HashMap<&'s str, usize>;

struct Expansion<'s> {
    source: &'s Source,
    word_ids: HashMap<&'s str, u32>,
    rules: HashMap<&'s str, Vec<usize>>,
    reached: Vec<bool>,
    ids: HashMap<(&'s str, Vec<usize>), u32>,
    drafts: Vec<Draft<'s>>,
    total: usize,
}

impl<'s> Expansion<'s> {
    fn new(source: &'s Source, words: &'s [String]) -> Self {
        let mut rules: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, rule) in source.rules.iter().enumerate() {
            rules.entry(&rule.head.name).or_default().push(index);
        }
        let word_ids = words.iter().map(String::as_str).zip(0..).collect();
        Self {
            source,
            word_ids,
            rules,
            reached: vec![false; source.rules.len()],
            ids: HashMap::new(),
            drafts: Vec::new(),
            total: 0,
        }
    }

    /// Returns the node of a symbol under a binding. A new node is added to the end of the queue.
    fn node(&mut self, mention: &'s Mention, binding: &Binding<'s>) -> u32 {
        let name = mention.name.as_str();
        let values: Vec<usize> = (mention.arguments.iter())
            .map(|a| binding.get(a.text.as_str()).copied().unwrap_or(a.values[0]))
            .collect();
        let line = mention.line;
        let next = self.drafts.len() as u32;
        let id = *self.ids.entry((name, values.clone())).or_insert(next);
        if id == next {
            self.drafts.push(Draft {
                name,
                values,
                line,
                weights: Vec::new(),
                alternatives: Vec::new(),
                written: Vec::new(),
            });
        }
        id
    }

    /// Expands all nodes that the start symbol needs.
    fn run(&mut self) -> Result<()> {
        let source = self.source;
        let mut id = 0;
        while id < self.drafts.len() {
            let rules = self.rules.get(self.drafts[id].name).cloned();
            for index in rules.unwrap_or_default() {
                let rule = &source.rules[index];
                let Some(binding) = unify(&rule.head, &self.drafts[id].values) else {
                    continue;
                };
                self.reached[index] = true;
                let before = source.rules[..index].iter();
                let first: usize = before.map(|rule| rule.alternatives.len()).sum();
                for (number, alternative) in (first..).zip(&rule.alternatives) {
                    self.alternative(id, rule, (number, alternative), &binding)?;
                }
            }
            if self.drafts[id].alternatives.is_empty() {
                let symbol = self.display(id);
                let line = self.drafts[id].line;
                return Err(GrammarError::new(line, Kind::Undefined { symbol }));
            }
            id += 1;
        }
        match self.reached.iter().position(|reached| !reached) {
            None => Ok(()),
            Some(index) => {
                let head = &source.rules[index].head;
                let symbol = head.to_string();
                Err(GrammarError::new(head.line, Kind::Unreachable { symbol }))
            }
        }
    }

    /// Adds one plain alternative per assignment of the variables that the head does not bind.
    fn alternative(
        &mut self,
        id: usize,
        rule: &Rule,
        (number, alternative): (usize, &'s Written),
        bound: &Binding<'s>,
    ) -> Result<()> {
        let mut free: Vec<(&'s str, &'s [usize])> = Vec::new();
        for item in &alternative.items {
            let WrittenItem::Symbol(mention) = item else {
                continue;
            };
            for argument in mention.arguments.iter().filter(|a| a.is_variable) {
                let text = argument.text.as_str();
                if !bound.contains_key(text) && free.iter().all(|(seen, _)| *seen != text) {
                    free.push((text, &argument.values));
                }
            }
        }
        let count = free.iter().map(|(_, values)| values.len());
        let count = count.fold(1, usize::saturating_mul);
        self.total = self.total.saturating_add(count);
        if self.total > MAX_ALTERNATIVES {
            let limit = MAX_ALTERNATIVES;
            return Err(GrammarError::new(rule.head.line, Kind::TooLarge { limit }));
        }
        for assignment in 0..count {
            let mut binding = bound.clone();
            let mut rest = assignment;
            for (text, values) in &free {
                binding.insert(text, values[rest % values.len()]);
                rest /= values.len();
            }
            let items = (alternative.items.iter())
                .map(|item| match item {
                    WrittenItem::Word(word) => Item::Word(self.word_ids[word.as_str()]),
                    WrittenItem::Symbol(mention) => Item::Node(self.node(mention, &binding)),
                })
                .collect();
            let draft = &mut self.drafts[id];
            draft.alternatives.push(items);
            draft.written.push(number);
            draft.weights.push(alternative.weight / count as f64);
        }
        Ok(())
    }

    /// Sorts the nodes topologically and normalizes the weights.
    fn children_first(self) -> Result<Vec<Vec<Alternative>>> {
        let order = self.order()?;
        let mut rank = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            rank[*old] = new as u32;
        }
        let renumber = |item: &Item| match item {
            Item::Word(word) => Item::Word(*word),
            Item::Node(node) => Item::Node(rank[*node as usize]),
        };
        let plain = |old: &usize| {
            let draft = &self.drafts[*old];
            let total: f64 = draft.weights.iter().sum();
            (draft.weights.iter())
                .zip(&draft.alternatives)
                .zip(&draft.written)
                .map(|((weight, items), written)| Alternative {
                    p: weight / total,
                    log_p: (weight / total).ln(),
                    items: items.iter().map(renumber).collect(),
                    written: *written,
                })
                .collect()
        };
        Ok(order.iter().map(plain).collect())
    }

    /// Returns the nodes in depth-first postorder from the start node. The stack is explicit, so a
    /// deep grammar cannot overflow the call stack.
    fn order(&self) -> Result<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let children: Vec<Vec<usize>> = (self.drafts.iter())
            .map(|draft| {
                let items = draft.alternatives.iter().flatten();
                let node = |item: &Item| match item {
                    Item::Node(node) => Some(*node as usize),
                    Item::Word(_) => None,
                };
                items.filter_map(node).collect()
            })
            .collect();
        let mut state = vec![State::New; self.drafts.len()];
        let mut order = Vec::with_capacity(self.drafts.len());
        let mut path = vec![(0, 0)];
        state[0] = State::Open;
        while let Some((node, next)) = path.last_mut() {
            let Some(&child) = children[*node].get(*next) else {
                state[*node] = State::Done;
                order.push(*node);
                path.pop();
                continue;
            };
            *next += 1;
            match state[child] {
                State::Done => {}
                State::New => {
                    state[child] = State::Open;
                    path.push((child, 0));
                }
                State::Open => {
                    let open = path.iter().map(|(node, _)| *node);
                    let cycle = open.skip_while(|node| *node != child).chain([child]);
                    let names: Vec<String> = cycle.map(|node| self.display(node)).collect();
                    let cycle = names.join(" -> ");
                    let line = self.drafts[child].line;
                    return Err(GrammarError::new(line, Kind::Recursive { cycle }));
                }
            }
        }
        Ok(order)
    }

    fn display(&self, id: usize) -> String {
        let draft = &self.drafts[id];
        if draft.values.is_empty() {
            return draft.name.to_owned();
        }
        let values: Vec<&str> = (draft.values.iter())
            .map(|value| self.source.values[*value].as_str())
            .collect();
        format!("{}[{}]", draft.name, values.join(","))
    }
}

/// Returns the binding under which a rule's head matches these values, if there is one.
fn unify<'s>(head: &'s Mention, values: &[usize]) -> Option<Binding<'s>> {
    let mut binding = Binding::new();
    for (argument, value) in head.arguments.iter().zip(values) {
        if !argument.values.contains(value) {
            return None;
        }
        if argument.is_variable && *binding.entry(&argument.text).or_insert(*value) != *value {
            return None;
        }
    }
    Some(binding)
}

#[cfg(test)]
mod tests {
    use crate::Grammar;
    use crate::grammar::enumerate::strings;

    fn probability(grammar: &Grammar, sentence: &str) -> f64 {
        let tokens: Vec<&str> = sentence.split(' ').collect();
        grammar.log_prob(&tokens).map_or(0.0, f64::exp)
    }

    #[test]
    fn a_variable_has_one_value_and_primes_make_another() {
        let text = "feature num = sg pl\nstart S\nS -> N[num] V[num] N[num']\n\
                    N[sg] -> dog\nN[pl] -> dogs\nV[sg] -> sees\nV[pl] -> see";
        let grammar = Grammar::parse(text).unwrap();
        assert_eq!(strings(&grammar).len(), 4);
        for sentence in [
            "dog sees dog",
            "dog sees dogs",
            "dogs see dog",
            "dogs see dogs",
        ] {
            assert!((probability(&grammar, sentence) - 0.25).abs() < 1e-12);
        }
    }

    #[test]
    fn a_free_variable_shares_the_weight_of_its_alternative() {
        // `A` has three values, but `x` keeps probability ½.
        let text = "feature f = a b c\nstart S\nS -> x | A[f]\nA[a] -> p\nA[b] -> q\nA[c] -> r";
        let grammar = Grammar::parse(text).unwrap();
        assert!((probability(&grammar, "x") - 0.5).abs() < 1e-12);
        assert!((probability(&grammar, "q") - 1.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_part_takes_its_own_values_only() {
        let text = "feature g = m f n\npart human of g = m f\nstart S\nS -> P[human]\n\
                    P[m] -> he\nP[f] -> she";
        let grammar = Grammar::parse(text).unwrap();
        assert_eq!(grammar.words(), ["he", "she"]);
    }

    #[test]
    fn rules_for_one_head_add_up() {
        let text = "feature n = s p\nstart S\nS -> A[s]\nA[n] -> a\nA[s] -> b @3";
        let grammar = Grammar::parse(text).unwrap();
        assert!((probability(&grammar, "b") - 0.75).abs() < 1e-12);
    }

    #[test]
    fn deep_grammars_do_not_overflow_the_stack() {
        let mut text = String::from("start A0\n");
        for layer in 0..50_000 {
            text += &format!("A{layer} -> A{}\n", layer + 1);
        }
        text += "A50000 -> a";
        let grammar = Grammar::parse(&text).unwrap();
        assert_eq!(grammar.log_prob(&["a"]), Some(0.0));
    }
}
