//! Infilling: holes in validation rows, and metrics of their fills.

use crate::{Error, Result, Symbols, purpose};
use flm::{Conditioning, Record};
use flm_data::{Dataset, Layout, TextTokenizer};
use flm_eval::{Grammar, GrammarRows};
use flm_simplex::stream::generator;
use rand::RngExt;
use serde::Serialize;
use std::collections::HashSet;
use std::ops::Range;

/// Metrics of the original rows.
#[derive(Serialize)]
pub struct Themselves {
    /// Number of tokens in a hole.
    pub span: usize,
    /// Number of rows, each with one hole.
    pub count: usize,
    /// Share of rows that are sentences, if the grammar is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Share of distinct spans among all removed spans.
    pub distinct: f64,
    /// Mean probability of the removed words given the rest of the row, under the exact
    /// distribution: the expected share of exact fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_exact: Option<f64>,
}

/// Metrics of one fill per hole.
#[derive(Serialize)]
pub struct Fills {
    /// Number of holes.
    pub count: usize,
    /// Share of holes that are filled with the original tokens.
    pub exact: f64,
    /// Share of filled rows that are sentences, if the grammar is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Share of distinct fills among all fills.
    pub distinct: f64,
}

/// Metrics of rejection sampling: unconditional samples that agree with the known tokens.
#[derive(Serialize)]
pub struct Rejection {
    /// Number of samples drawn.
    pub samples: usize,
    /// Share of samples that agree with a row, averaged over rows.
    pub accepted: f64,
    /// Share of rows with at least one agreeing sample.
    pub answered: f64,
    /// Share of sentences among agreeing samples; `None` if no sample agrees or there is
    /// no grammar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Share of agreeing samples that also match the hole; `None` if no sample agrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
}

/// Decides whether rows are sentences, if there is a grammar.
pub struct Sentences<'a> {
    /// The grammar of the text, if any.
    pub grammar: Option<&'a Grammar>,
    /// The tokenizer of the rows.
    pub tokenizer: &'a TextTokenizer,
}

impl Sentences<'_> {
    /// Returns `true` if a filled row is a sentence and every token of the fill is a word.
    ///
    /// An end token in the fill would leave a different, shorter text to check.
    fn holds(&self, grammar: &Grammar, hole: &Hole, row: &[u32]) -> bool {
        let fill = &row[hole.open.clone()];
        let text = self.tokenizer.decode(row);
        fill.iter().all(|&token| self.is_of_text(token))
            && text.is_ok_and(|text| grammar.contains(&text.split_whitespace().collect::<Vec<_>>()))
    }

    fn is_of_text(&self, token: u32) -> bool {
        let tokenizer = self.tokenizer;
        ![tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()].contains(&token)
    }

    /// Returns the share of filled rows that are sentences; `None` without a grammar or rows.
    fn valid<'r>(&self, rows: impl Iterator<Item = (&'r Hole, &'r [u32])>) -> Option<f64> {
        let grammar = self.grammar?;
        share(rows.map(|(hole, row)| self.holds(grammar, hole, row)))
    }
}

/// Returns the share of `true` values; `None` if there are no values.
fn share(found: impl Iterator<Item = bool>) -> Option<f64> {
    let (mut count, mut all) = (0_usize, 0_usize);
    for found in found {
        count += usize::from(found);
        all += 1;
    }
    (all > 0).then(|| count as f64 / all as f64)
}

/// A validation row and its hole.
struct Hole {
    row: Vec<u32>,
    open: Range<usize>,
}

impl Hole {
    fn span(&self) -> &[u32] {
        &self.row[self.open.clone()]
    }

    fn is_filled_by(&self, row: &[u32]) -> bool {
        self.span() == &row[self.open.clone()]
    }

    /// Returns `true` if a row equals this one outside the hole.
    fn agrees(&self, row: &[u32]) -> bool {
        self.row[..self.open.start] == row[..self.open.start]
            && self.row[self.open.end..] == row[self.open.end..]
    }
}

/// Holes of one length, each in a different row.
pub struct Holes {
    /// Number of tokens in a hole.
    pub span: usize,
    holes: Vec<Hole>,
}

impl Holes {
    /// Removes `span` tokens of text at a random position from each of the first `count` validation
    /// rows that are long enough.
    pub fn dig(
        dataset: &Dataset,
        data: &str,
        span: usize,
        (count, seed): (usize, u64),
    ) -> Result<Self> {
        let (split, eos) = (dataset.validation(), dataset.tokenizer().eos_id());
        let mut holes = Vec::new();
        for number in 0..split.rows() {
            let row = split.row(number)?;
            let text = match dataset.meta().layout {
                Layout::Rows => 0..row.iter().position(|&id| id == eos).unwrap_or(row.len()),
                Layout::Packed => 1..row.len() - 1,
            };
            let Some(last) = text.len().checked_sub(span) else {
                continue;
            };
            let mut rng = generator(seed, purpose::HOLE, number as u64, span as u64);
            let first = text.start + rng.random_range(0..=last);
            holes.push(Hole {
                row,
                open: first..first + span,
            });
            if holes.len() == count {
                break;
            }
        }
        if holes.is_empty() {
            return Err(Error::Input(format!(
                "--span {span}: no validation row of {} has that many tokens of text",
                data
            )));
        }
        Ok(Self { span, holes })
    }

    /// Returns the rows with their holes as a conditioning.
    pub fn conditioning(&self) -> Conditioning {
        let known = |hole: &Hole| {
            let mut row: Vec<_> = hole.row.iter().copied().map(Some).collect();
            row[hole.open.clone()].fill(None);
            row
        };
        Conditioning::Tokens(self.holes.iter().map(known).collect())
    }

    /// Computes the metrics of one fill per hole.
    pub fn judge(&self, fills: &[Record], distribution: &Sentences<'_>) -> Fills {
        let rows = || fills.iter().map(|fill| fill.tokens.as_slice());
        let pairs = || self.holes.iter().zip(rows());
        let right = |(hole, row): (&Hole, &[u32])| hole.is_filled_by(row);
        let spans: HashSet<&[u32]> = pairs().map(|(hole, row)| &row[hole.open.clone()]).collect();
        Fills {
            count: fills.len(),
            exact: share(pairs().map(right)).unwrap_or_default(),
            valid: distribution.valid(pairs()),
            distinct: spans.len() as f64 / fills.len() as f64,
        }
    }

    /// Computes the metrics of rejection sampling with the first hundredth, the first tenth and all
    /// of the samples `free`.
    pub fn reject(&self, free: &[Record], distribution: &Sentences<'_>) -> Vec<Rejection> {
        let mut budgets = vec![free.len() / 100, free.len() / 10, free.len()];
        budgets.retain(|&budget| budget > 0);
        budgets.dedup();
        let of = |budget: usize| {
            let accepted: Vec<(&Hole, &[u32])> = (self.holes.iter())
                .flat_map(|hole| {
                    let rows = free[..budget].iter().map(|sample| sample.tokens.as_slice());
                    rows.filter(|row| hole.agrees(row))
                        .map(move |row| (hole, row))
                })
                .collect();
            let answered = self.holes.iter().filter(|hole| {
                let mut rows = free[..budget].iter();
                rows.any(|sample| hole.agrees(&sample.tokens))
            });
            let all = self.holes.len() as f64;
            Rejection {
                samples: budget,
                accepted: accepted.len() as f64 / (all * budget as f64),
                answered: answered.count() as f64 / all,
                valid: distribution.valid(accepted.iter().copied()),
                exact: share(accepted.iter().map(|(hole, row)| hole.is_filled_by(row))),
            }
        };
        budgets.into_iter().map(of).collect()
    }

    /// Computes the metrics of the original rows, and the probability of their words under the
    /// exact distribution.
    pub fn themselves(&self, distribution: &Sentences<'_>) -> Themselves {
        let spans: HashSet<&[u32]> = self.holes.iter().map(Hole::span).collect();
        Themselves {
            span: self.span,
            count: self.holes.len(),
            valid: distribution.valid(self.holes.iter().map(|hole| (hole, hole.row.as_slice()))),
            distinct: spans.len() as f64 / self.holes.len() as f64,
            oracle_exact: distribution.grammar.and_then(|grammar| {
                let rows = grammar.rows(self.holes.first()?.row.len());
                let symbols = Symbols::new(&rows, distribution.tokenizer).ok()?;
                let probabilities = self
                    .holes
                    .iter()
                    .map(|hole| hole.probability(&rows, &symbols));
                let sum: Option<f64> = probabilities.sum();
                Some(sum? / self.holes.len() as f64)
            }),
        }
    }
}

impl Hole {
    /// Returns the probability of the words in the hole given all other words; `None` if the row is
    /// not a sentence.
    fn probability(&self, rows: &GrammarRows<'_>, symbols: &Symbols) -> Option<f64> {
        let row: Vec<Option<usize>> = symbols.of(&self.row)?.into_iter().map(Some).collect();
        let mut known = row.clone();
        known[self.open.clone()].fill(None);
        let mut open = rows.known(&known);
        for place in self.open.clone() {
            // Allow any word, but not the end.
            open[place * rows.symbols()..][rows.end()..rows.symbols()].fill(f64::NEG_INFINITY);
        }
        let log_mass = |weights: &[f64]| Some(rows.given(weights)?.log_mass());
        Some((log_mass(&rows.known(&row))? - log_mass(&open)?).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_or_a_beginning_in_a_hole_makes_no_sentence() {
        let grammar =
            Grammar::parse("start S\nS -> cats sleep | cats sleep well | well cats sleep").unwrap();
        let tokenizer = TextTokenizer::from_words(["cats", "sleep", "well"]).unwrap();
        let distribution = Sentences {
            grammar: Some(&grammar),
            tokenizer: &tokenizer,
        };
        let [pad, bos, eos] = [tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()];
        let [cats, sleep, well] =
            ["cats", "sleep", "well"].map(|word| tokenizer.token_id(word).unwrap());
        let hole = |row: [u32; 5], at: usize| Hole {
            row: row.to_vec(),
            open: at..at + 1,
        };
        let last = hole([cats, sleep, well, eos, pad], 2);
        let first = hole([well, cats, sleep, eos, pad], 0);
        for (hole, fill, expected) in [
            (&last, well, true),
            (&last, cats, false),
            // The words before the end token are a sentence, and so are the words after a
            // begin token.
            (&last, eos, false),
            (&last, pad, false),
            (&first, bos, false),
        ] {
            let mut row = hole.row.clone();
            row[hole.open.start] = fill;
            let valid = distribution.valid([(hole, row.as_slice())].into_iter());
            assert_eq!(valid, Some(f64::from(expected)), "{row:?}");
        }
        let rows = grammar.rows(5);
        let symbols = Symbols::new(&rows, &tokenizer).unwrap();
        // Only the original word fits.
        for hole in [&last, &first] {
            assert_eq!(hole.probability(&rows, &symbols), Some(1.0));
        }
        // Two of the three sentences fit, with equal probability.
        let both = Hole {
            row: last.row.clone(),
            open: 0..3,
        };
        let probability = both.probability(&rows, &symbols).unwrap();
        assert!((probability - 0.5).abs() < 1e-12, "{probability}");
    }
}
