//! The figures of a set of samples.

use crate::{Error, Features, Figures, Result, Samples, purpose};
use flm::Provenance;
use flm_data::Dataset;
use flm_eval::{GenPpl, Grammar, Mauve};
use flm_simplex::stream::generator;
use rand::seq::SliceRandom;
use serde::Serialize;

/// Minimum number of texts for MAUVE: with fewer, the shares of clusters are meaningless.
const LEAST_TEXTS: usize = 40;

/// The figures of a set of samples.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The set's name.
    pub name: String,
    /// Figures that need no scorer.
    pub figures: Figures,
    /// Mean unigram entropy of a sample's tokens in nats, in the model's own tokens, as published;
    /// `None` if the samples have no tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_entropy: Option<f64>,
    /// Tokens in the longest run that a sample shares with a training row, averaged over samples,
    /// if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied: Option<f64>,
    /// The results of each scorer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<GenPpl>,
    /// MAUVE by each pretrained scorer, if requested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mauve: Vec<MauveScore>,
    /// The settings of the samples, if their file has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Provenance>,
}

/// Similarity of samples and validation rows in the features of a network.
#[derive(Clone, Debug, Serialize)]
pub struct MauveScore {
    /// Identity of the network.
    pub scorer: String,
    /// The similarity.
    #[serde(flatten)]
    pub mauve: Mauve,
}

impl Evaluation {
    /// Evaluates samples by their texts and tokens alone, with a grammar if there is one.
    ///
    /// # Errors
    ///
    /// There are no samples.
    pub fn of(name: String, samples: &Samples, grammar: Option<&Grammar>) -> Result<Self> {
        Ok(Self {
            name,
            figures: Figures::of(grammar, &samples.texts)?,
            token_entropy: samples.token_entropy(),
            copied: None,
            scores: Vec::new(),
            mauve: Vec::new(),
            drawn: samples.drawn.clone(),
        })
    }

    /// Measures how much of the training rows the samples copy.
    ///
    /// # Errors
    ///
    /// The samples have no tokens, or a row cannot be read.
    pub fn measure_copying(&mut self, samples: &Samples, dataset: &Dataset) -> Result<()> {
        let copied = samples.copied(dataset)?.ok_or_else(|| {
            Error::Input(format!(
                "--copying compares tokens, but {} has only texts: pass a .jsonl file of `flm sample`",
                self.name
            ))
        })?;
        self.copied = Some(copied);
        Ok(())
    }
}

/// Computes MAUVE of each set and as many validation rows, by each pretrained scorer. `features`
/// returns the features of lists of texts.
///
/// # Errors
///
/// There are fewer than 40 texts, and the errors of `features`.
pub fn mauve<E: From<Error>>(
    all: &[Samples],
    validation: Samples,
    features: impl FnOnce(&[&[String]]) -> std::result::Result<Vec<Features>, E>,
) -> std::result::Result<Vec<Vec<MauveScore>>, E> {
    let mut text = validation.texts;
    // The rows are in corpus order, so they are shuffled for a random sample.
    text.shuffle(&mut generator(0, purpose::MAUVE, 0, 0));
    let fewest = all.iter().map(|samples| samples.texts.len()).min();
    let count = fewest.unwrap_or(0).min(text.len());
    if count < LEAST_TEXTS {
        return Err(E::from(Error::Input(format!(
            "--mauve needs at least {LEAST_TEXTS} samples and as many validation rows, found {count}"
        ))));
    }
    text.truncate(count);
    let mut lists: Vec<&[String]> = all.iter().map(|samples| &samples.texts[..count]).collect();
    lists.push(&text);
    let mut found = vec![Vec::new(); all.len()];
    for Features { scorer, mut lists } in features(&lists)? {
        let text = lists.pop().expect("the validation rows are last");
        for (found, samples) in found.iter_mut().zip(lists) {
            let mut rng = generator(0, purpose::MAUVE, 1, 0);
            found.push(MauveScore {
                scorer: scorer.clone(),
                mauve: Mauve::of(&samples, &text, &mut rng),
            });
        }
    }
    Ok(found)
}
