//! Rows that hold one sentence each, and queries on them.

use std::collections::BTreeSet;

use super::Grammar;
use super::expand::{Alternative, Item};
use super::posterior::Posterior;

/// The rows of one length that hold one sentence each: its words, an end symbol, and padding.
///
/// Each position holds a *symbol*: the index of a word in [`Grammar::words`], [`end`](Self::end)
/// or [`padding`](Self::padding).
///
/// ```
/// use flm_eval::Grammar;
/// use rand::SeedableRng;
///
/// let grammar = Grammar::parse("start S\nS -> new york @3 | san diego")?;
/// let rows = grammar.rows(3);
/// let [san, diego] = ["san", "diego"].map(|word| rows.symbol(word).unwrap());
/// // Only the second word is known.
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
    /// Nodes that may start at each position, including the one after the last, children first.
    pub(super) candidates: Vec<Vec<u32>>,
}

impl Grammar {
    /// Returns the rows of `length` positions.
    ///
    /// Sentences of `length` or more words leave no position for the end symbol, so they are
    /// excluded. The probabilities of the others are not renormalized.
    pub fn rows(&self, length: usize) -> GrammarRows<'_> {
        GrammarRows {
            grammar: self,
            length,
            candidates: candidates(&self.nodes, length),
        }
    }
}

impl GrammarRows<'_> {
    /// Returns the number of positions in a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the number of symbols: the words, the end and the padding.
    pub fn symbols(&self) -> usize {
        self.grammar.words.len() + 2
    }

    /// Returns the end symbol, which follows the last word of a sentence.
    pub fn end(&self) -> usize {
        self.grammar.words.len()
    }

    /// Returns the padding symbol, which fills the positions after the end.
    pub fn padding(&self) -> usize {
        self.grammar.words.len() + 1
    }

    /// Returns the words in the order of their symbols.
    pub fn words(&self) -> &[String] {
        self.grammar.words()
    }

    /// Returns the symbol of a word; `None` if the grammar does not have it.
    pub fn symbol(&self, word: &str) -> Option<usize> {
        self.grammar.ids.get(word).map(|id| *id as usize)
    }

    /// Returns weights for [`given`](Self::given), `[length, symbols]`, that fix the known symbols
    /// of a row and allow any symbol elsewhere.
    ///
    /// # Panics
    ///
    /// Panics if the row has another length or a symbol is out of range.
    pub fn known(&self, row: &[Option<usize>]) -> Vec<f64> {
        assert_eq!(row.len(), self.length, "the row has the wrong length");
        let mut weights = vec![0.0; self.length * self.symbols()];
        for (place, known) in weights.chunks_mut(self.symbols()).zip(row) {
            if let Some(symbol) = known {
                place.fill(f64::NEG_INFINITY);
                place[*symbol] = 0.0;
            }
        }
        weights
    }

    /// Computes the posterior of rows x, proportional to p(x)·Π exp(wᵢ(xᵢ)).
    ///
    /// The weights w are given for every symbol at every position, `[length, symbols]`; −∞ excludes
    /// a symbol. Returns `None` if no row is possible.
    ///
    /// Time and memory are proportional to the number of possible derivations of all spans, so they
    /// are smallest where much is known.
    ///
    /// # Panics
    ///
    /// Panics if the number of weights is wrong, or if a weight is NaN or +∞.
    pub fn given(&self, weights: &[f64]) -> Option<Posterior<'_>> {
        assert_eq!(
            weights.len(),
            self.length * self.symbols(),
            "expected one weight per symbol and position"
        );
        assert!(
            weights.iter().all(|weight| *weight < f64::INFINITY),
            "weights must be finite or −∞"
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

/// Returns the nodes that may start at each position, including the one after the last.
fn candidates(nodes: &[Vec<Alternative>], length: usize) -> Vec<Vec<u32>> {
    // Possible lengths of each node's strings, children first.
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
    // Possible start positions of each node, parents first.
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
