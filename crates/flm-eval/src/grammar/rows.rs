//! Rows that hold a sentence each, and what is asked of them.

use std::collections::BTreeSet;

use super::Grammar;
use super::expand::{Alternative, Item};
use super::posterior::Posterior;

/// Rows of one length that hold one sentence each: its words, an end, padding.
///
/// What stands in a place is a *symbol*: the number of one of [`Grammar::words`], or
/// [`end`](Self::end), or [`padding`](Self::padding).
///
/// ```
/// use flm_eval::Grammar;
/// use rand::SeedableRng;
///
/// let grammar = Grammar::parse("start S\nS -> new york @3 | san diego")?;
/// let rows = grammar.rows(3);
/// let [san, diego] = ["san", "diego"].map(|word| rows.symbol(word).unwrap());
/// // Nothing is known but the second word.
/// let known = rows.known(&[None, Some(diego), None]);
/// let posterior = rows.given(&known).expect("there is such a sentence");
/// assert_eq!(posterior.log_mass(), 0.25_f64.ln());
/// assert_eq!(posterior.marginals()[san], 1.0);
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
/// assert_eq!(posterior.draw(&mut rng), [san, diego, rows.end()]);
/// # Ok::<(), flm_eval::GrammarError>(())
/// ```
#[derive(Debug)]
pub struct GrammarRows<'g> {
    pub(super) grammar: &'g Grammar,
    pub(super) length: usize,
    /// Nodes that a sentence may have at each place and behind the last, children first.
    pub(super) candidates: Vec<Vec<u32>>,
}

impl Grammar {
    /// Rows of `length` places. Sentences that leave no place for an end are none of them, and p is not made up for that.
    pub fn rows(&self, length: usize) -> GrammarRows<'_> {
        GrammarRows {
            grammar: self,
            length,
            candidates: candidates(&self.nodes, length),
        }
    }
}

impl GrammarRows<'_> {
    /// Places of a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Number of symbols: the words, the end and the padding.
    pub fn symbols(&self) -> usize {
        self.grammar.words.len() + 2
    }

    /// The symbol behind the last word of a sentence.
    pub fn end(&self) -> usize {
        self.grammar.words.len()
    }

    /// The symbol behind the end.
    pub fn padding(&self) -> usize {
        self.grammar.words.len() + 1
    }

    /// The words, in the order of their symbols.
    pub fn words(&self) -> &[String] {
        self.grammar.words()
    }

    /// The symbol of a word of the grammar.
    pub fn symbol(&self, word: &str) -> Option<usize> {
        self.grammar.ids.get(word).map(|id| *id as usize)
    }

    /// Weights for [`given`](Self::given), `[length, symbols]`, that leave what is known of a row, and anything elsewhere.
    ///
    /// # Panics
    ///
    /// If the row has another length, or a symbol is none.
    pub fn known(&self, row: &[Option<usize>]) -> Vec<f64> {
        assert_eq!(row.len(), self.length, "places of a row");
        let mut weights = vec![0.0; self.length * self.symbols()];
        for (place, known) in weights.chunks_mut(self.symbols()).zip(row) {
            if let Some(symbol) = known {
                place.fill(f64::NEG_INFINITY);
                place[*symbol] = 0.0;
            }
        }
        weights
    }

    /// The distribution of rows x with probabilities in proportion to p(x)·Π exp(wᵢ(xᵢ)), for the weights w of every symbol at every place,
    /// `[length, symbols]`; −∞ is what cannot be. `None` if no row can be.
    ///
    /// Takes time and memory in proportion to the derivations of all spans that can be: least where much is known.
    ///
    /// # Panics
    ///
    /// If there are not as many weights, or one is NaN or +∞.
    pub fn given(&self, weights: &[f64]) -> Option<Posterior<'_>> {
        assert_eq!(
            weights.len(),
            self.length * self.symbols(),
            "a weight for each symbol at each place"
        );
        assert!(
            weights.iter().all(|weight| *weight < f64::INFINITY),
            "weights are finite, or −∞"
        );
        let mut scaled = weights.to_vec();
        let mut scale = 0.0;
        for place in scaled.chunks_mut(self.symbols()) {
            let largest = place.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if largest == f64::NEG_INFINITY {
                return None;
            }
            place.iter_mut().for_each(|weight| *weight -= largest);
            scale += largest;
        }
        Posterior::new(self, &scaled, scale)
    }
}

/// Nodes that sentences may have at each place and behind the last of `length`.
fn candidates(nodes: &[Vec<Alternative>], length: usize) -> Vec<Vec<u32>> {
    // Lengths that a node's strings may have, children first.
    let mut lengths: Vec<BTreeSet<usize>> = Vec::with_capacity(nodes.len());
    let behind = |places: &BTreeSet<usize>, item: &Item, lengths: &[BTreeSet<usize>]| {
        let one = BTreeSet::from([1]);
        let own = match item {
            Item::Word(_) => &one,
            Item::Node(node) => &lengths[*node as usize],
        };
        let all = places
            .iter()
            .flat_map(|place| own.iter().map(move |own| place + own));
        all.filter(|place| *place <= length).collect()
    };
    for alternatives in nodes {
        let mut own = BTreeSet::new();
        for alternative in alternatives {
            let start = BTreeSet::from([0]);
            own.extend(
                (alternative.items.iter())
                    .fold(start, |places, item| behind(&places, item, &lengths)),
            );
        }
        lengths.push(own);
    }
    // Where it may start, parents first.
    let mut starts = vec![BTreeSet::new(); nodes.len()];
    if let Some(root) = starts.last_mut() {
        root.insert(0);
    }
    for (node, alternatives) in nodes.iter().enumerate().rev() {
        for alternative in alternatives {
            let mut places = starts[node].clone();
            for item in &alternative.items {
                if let Item::Node(child) = item {
                    starts[*child as usize].extend(&places);
                }
                places = behind(&places, item, &lengths);
            }
        }
    }
    (0..=length)
        .map(|place| {
            let there = (0..)
                .zip(&starts)
                .filter(|(_, starts)| starts.contains(&place));
            there.map(|(node, _)| node).collect()
        })
        .collect()
}
