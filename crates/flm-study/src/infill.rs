//! Holes in rows, and what fills them.

use crate::{Error, Result, Symbols, purpose};
use flm::{Conditioning, Record};
use flm_data::{Dataset, Layout, TextTokenizer};
use flm_eval::{Grammar, GrammarRows};
use flm_simplex::stream::generator;
use rand::RngExt;
use serde::Serialize;
use std::collections::HashSet;
use std::ops::Range;

/// The rows that holes are made in.
#[derive(Serialize)]
pub struct Themselves {
    /// Tokens in a hole.
    pub span: usize,
    /// Rows, each with one hole.
    pub count: usize,
    /// Share of sentences among them, where the distribution is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Different spans among all that were taken out.
    pub distinct: f64,
    /// How often one who draws from the distribution, given all other words, finds those that were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle_exact: Option<f64>,
}

/// One fill for each hole.
#[derive(Serialize)]
pub struct Fills {
    /// Holes.
    pub count: usize,
    /// Share of holes that are filled with what was there.
    pub exact: f64,
    /// Share of whole rows that are sentences, where the distribution is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Different fills among all.
    pub distinct: f64,
}

/// Samples that happen to agree with what is known.
#[derive(Serialize)]
pub struct Rejection {
    /// Samples drawn.
    pub samples: usize,
    /// Share that agrees with a row, averaged over rows.
    pub accepted: f64,
    /// Share of rows with which at least one agrees.
    pub answered: f64,
    /// Share of sentences among those that agree; none where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Share of those that agree with the hole as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
}

/// Who says what a sentence is, if anybody does.
pub struct Sentences<'a> {
    /// The grammar of the text, where it has one.
    pub grammar: Option<&'a Grammar>,
    /// The tokenizer of the rows.
    pub tokenizer: &'a TextTokenizer,
}

impl Sentences<'_> {
    /// Whether a row with the hole filled is a sentence, each token of the fill one of its words: an end in the hole would leave another, shorter
    /// text to be judged.
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

    /// The share of filled rows that are sentences, where that is known and there are rows.
    fn valid<'r>(&self, rows: impl Iterator<Item = (&'r Hole, &'r [u32])>) -> Option<f64> {
        let grammar = self.grammar?;
        share(rows.map(|(hole, row)| self.holds(grammar, hole, row)))
    }
}

/// How many of some are so; none of none.
fn share(found: impl Iterator<Item = bool>) -> Option<f64> {
    let (mut count, mut all) = (0_usize, 0_usize);
    for found in found {
        count += usize::from(found);
        all += 1;
    }
    (all > 0).then(|| count as f64 / all as f64)
}

/// A validation row and what of it is taken out.
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

    /// Whether a row is this one but for the hole.
    fn agrees(&self, row: &[u32]) -> bool {
        self.row[..self.open.start] == row[..self.open.start]
            && self.row[self.open.end..] == row[self.open.end..]
    }
}

/// Holes of one length in different rows.
pub struct Holes {
    /// Tokens in a hole.
    pub span: usize,
    holes: Vec<Hole>,
}

impl Holes {
    /// Takes `span` tokens of text out of the first validation rows that have as many, somewhere.
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
                "--span {span}: no validation row of {} has as many tokens of text",
                data
            )));
        }
        Ok(Self { span, holes })
    }

    /// The rows without what is taken out.
    pub fn conditioning(&self) -> Conditioning {
        let known = |hole: &Hole| {
            let mut row: Vec<_> = hole.row.iter().copied().map(Some).collect();
            row[hole.open.clone()].fill(None);
            row
        };
        Conditioning::Tokens(self.holes.iter().map(known).collect())
    }

    /// Of one fill for each hole.
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

    /// What the first samples of some, a hundredth, a tenth and all of them, have for these holes by agreeing with what is known.
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

    /// What the rows themselves would be judged to be, and how often the exact denoiser would find their words.
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
    /// The probability of the words of a hole, given all others, by the distribution; none where the row is no sentence of it.
    fn probability(&self, rows: &GrammarRows<'_>, symbols: &Symbols) -> Option<f64> {
        let row: Vec<Option<usize>> = symbols.of(&self.row)?.into_iter().map(Some).collect();
        let mut known = row.clone();
        known[self.open.clone()].fill(None);
        let mut open = rows.known(&known);
        for place in self.open.clone() {
            // Any word, but no end.
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
            // What is before it is a sentence, and so is what is behind a beginning.
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
        // Of all words only the one that is there fits.
        for hole in [&last, &first] {
            assert_eq!(hole.probability(&rows, &symbols), Some(1.0));
        }
        // Two of the three sentences, equally likely.
        let both = Hole {
            row: last.row.clone(),
            open: 0..3,
        };
        let probability = both.probability(&rows, &symbols).unwrap();
        assert!((probability - 0.5).abs() < 1e-12, "{probability}");
    }
}
