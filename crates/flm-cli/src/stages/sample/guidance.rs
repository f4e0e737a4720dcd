//! What guides the samples of a flow or a flow map: a weaker network to be led away from, a reward to be led to.

use super::weights;
use crate::device::Place;
use crate::error::{CliError, Result};
use crate::files;
use crate::stages::origin::Origin;
use crate::stages::{inspect, purpose};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_data::TextTokenizer;
use flm_denoiser::{Dit, DitConfig, Family, Prior, Sampling, VocabEmbed, Weakness, folder};
use flm_reward::{Ascent, Classifier, Keywords, Reward};
use flm_simplex::guidance::Steer;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest rate of a dropout: beyond, hardly anything is left to multiply.
const LARGEST_RATE: f64 = 0.99;

/// What guides samples, as their lines say it; nothing of it where nothing does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guidance {
    /// Autoguidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto: Option<Auto>,
    /// Reward guidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward: Option<Rewarded>,
}

/// A weaker network, and how far from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Auto {
    pub(crate) eta: f64,
    pub(crate) weak: Weak,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weak {
    /// The same network, at this rate.
    Dropout(f64),
    /// Another one, with the beginning of its weights' hash.
    Model { path: String, weights: String },
}

/// A reward, and how far along its gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rewarded {
    pub(crate) scale: f64,
    pub(crate) of: Asked,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// That these words occur.
    Keyword(Vec<String>),
    /// That a classifier takes the text for a real one.
    Classifier { path: String, weights: String },
}

/// What the user typed about guidance, but for the numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Typed<'a> {
    pub(crate) weak: Option<&'a str>,
    pub(crate) reward: Option<&'a str>,
}

impl Guidance {
    /// The guidance of `model` by η = `eta` and λ = `scale`; an η of 1 and a λ of 0 guide nothing.
    pub(crate) fn new(model: &Path, typed: Typed<'_>, eta: f64, scale: f64) -> Result<Self> {
        for (option, value) in [("--guidance", eta), ("--reward-scale", scale)] {
            if !value.is_finite() {
                return Err(CliError::input(format!(
                    "{option} must be a finite number, found {value}"
                )));
            }
        }
        let auto = if eta == 1.0 {
            None
        } else {
            let weak = weak(model, typed.weak.unwrap_or("dropout"))?;
            Some(Auto { eta, weak })
        };
        let reward = match typed.reward {
            Some(reward) if scale != 0.0 => Some(Rewarded {
                scale,
                of: asked(reward)?,
            }),
            _ => None,
        };
        Ok(Self { auto, reward })
    }

    /// Whether nothing guides.
    pub(crate) fn is_none(&self) -> bool {
        self.auto.is_none() && self.reward.is_none()
    }

    /// What so many steps cost: of each an evaluation, one of the weaker network, and for a reward one forward and a pass back, which counts two.
    pub(crate) fn evaluations(&self, steps: usize) -> usize {
        let (auto, reward) = (self.auto.is_some(), self.reward.is_some());
        steps * (1 + usize::from(auto) + 3 * usize::from(reward))
    }

    /// Refuses a model that cannot be guided.
    pub(super) fn check(&self, config: &DitConfig, model: &str) -> Result<()> {
        let option = match (&self.auto, &self.reward) {
            (Some(_), _) => "--guidance",
            (_, Some(_)) => "--reward",
            _ => return Ok(()),
        };
        if config.family == Family::Flow && !config.residual {
            return Ok(());
        }
        let kind = inspect::kind(config);
        Err(CliError::input(format!(
            "{model} is of kind {kind}: only a flow or a flow map of one network takes {option}"
        )))
    }
}

/// `dropout`, `dropout:P` or a model.
fn weak(model: &Path, typed: &str) -> Result<Weak> {
    let rate = match typed.split_once(':') {
        Some(("dropout", rate)) => rate.parse().ok().filter(|rate| (0.0..=LARGEST_RATE).contains(rate)).ok_or_else(|| {
            CliError::input(format!(
                "--weak {typed}: the rate of dropout must lie above 0 and up to {LARGEST_RATE}, found {rate}"
            ))
        })?,
        _ if typed == "dropout" => folder::read_config(&files::model_folder(model)?)?.dropout,
        _ => {
            let folder = files::model_folder(Path::new(typed))?;
            return Ok(Weak::Model {
                path: typed.to_owned(),
                weights: weights(&folder)?,
            });
        }
    };
    if rate > 0.0 {
        return Ok(Weak::Dropout(rate));
    }
    Err(CliError::input(format!(
        "--weak {typed} drops nothing: {} was trained without dropout, so name a rate, as in dropout:0.1",
        model.display()
    )))
}

/// `keyword:WORDS` or `classifier:DIR`.
fn asked(typed: &str) -> Result<Asked> {
    match typed.split_once(':') {
        Some(("keyword", words)) if words.split(',').all(|word| !word.trim().is_empty()) => {
            let words = words.split(',').map(|word| word.trim().to_owned());
            Ok(Asked::Keyword(words.collect()))
        }
        Some(("classifier", path)) => {
            flm_reward::read_config(Path::new(path))?;
            Ok(Asked::Classifier {
                path: path.to_owned(),
                weights: weights(Path::new(path))?,
            })
        }
        _ => Err(CliError::input(format!(
            "--reward {typed}: expected keyword:WORD,WORD or classifier:DIR"
        ))),
    }
}

/// What guides the samples of a request, ready to do so.
pub(super) struct Guides<B: Backend> {
    auto: Option<(f64, WeakNetwork<B>)>,
    reward: Option<Box<dyn Steer<B> + Send + Sync>>,
}

enum WeakNetwork<B: Backend> {
    /// The same, at this rate.
    Dropout(f64),
    /// Another one, which sees a part of its own of common states.
    Beside(Box<Beside<B>>),
}

struct Beside<B: Backend> {
    model: Dit<B>,
    /// Both embeddings side by side: what carries tokens to states.
    states: VocabEmbed<B>,
    prior: Prior<B>,
}

/// The network that is guided.
pub(super) struct Strong<'a, B: Backend> {
    pub(super) model: &'a Dit<B>,
    pub(super) config: &'a DitConfig,
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) name: &'a str,
    pub(super) device: &'a B::Device,
}

impl<B: Backend> Guides<B> {
    /// Nothing guides.
    pub(super) fn none() -> Self {
        Self {
            auto: None,
            reward: None,
        }
    }

    /// Reads what is needed beside the network that is guided.
    pub(super) fn load<A: AutodiffBackend<InnerBackend = B>>(
        guidance: &Guidance,
        temperature: f64,
        strong: &Strong<'_, B>,
        place: &Place<A>,
    ) -> Result<Self> {
        let auto = match &guidance.auto {
            None => None,
            Some(Auto { eta, weak }) => Some((
                *eta,
                match weak {
                    Weak::Dropout(rate) => WeakNetwork::Dropout(*rate),
                    Weak::Model { path, .. } => {
                        WeakNetwork::Beside(Box::new(Beside::load(path, strong)?))
                    }
                },
            )),
        };
        let reward = match &guidance.reward {
            None => None,
            Some(Rewarded { scale, of }) => {
                let states = match &auto {
                    Some((_, WeakNetwork::Beside(beside))) => &beside.states,
                    _ => strong.model.embed(),
                };
                let reward = reward::<A>(of, strong, place)?;
                let ascent = Ascent::<A, _>::new(strong.model, states, reward, *scale);
                let ascent = ascent.at_temperature(temperature)?;
                Some(Box::new(ascent) as Box<dyn Steer<B> + Send + Sync>)
            }
        };
        Ok(Self { auto, reward })
    }

    /// What moves states before they are evaluated.
    pub(super) fn steer(&self) -> Option<&(dyn Steer<B> + Send + Sync)> {
        self.reward.as_deref()
    }

    /// Noise of one sequence, as the states have it.
    pub(super) fn noise(
        &self,
        strong: &Dit<B>,
        prior: &Prior<B>,
        length: usize,
        rng: &mut ChaCha8Rng,
    ) -> Tensor<B, 3> {
        match &self.auto {
            Some((_, WeakNetwork::Beside(beside))) => {
                let noise = beside.prior.draw(1, length, rng);
                noise.seen_beside(strong.embed(), beside.model.embed())
            }
            _ => prior.draw(1, length, rng).seen(strong.embed()),
        }
    }

    /// The guided network as it sees the states, and beside η the weaker one, if there is one.
    pub(super) fn networks<'a>(
        &'a self,
        strong: &'a Dit<B>,
        seed: u64,
        first: usize,
    ) -> (Sampling<'a, B>, Option<(f64, Sampling<'a, B>)>) {
        let alone = Sampling::new(strong);
        match &self.auto {
            None => (alone, None),
            Some((eta, WeakNetwork::Dropout(rate))) => {
                let weakness = Weakness {
                    rate: *rate,
                    seed,
                    purpose: purpose::WEAK,
                    first,
                };
                (
                    alone,
                    Some((*eta, Sampling::new(strong).weakened(weakness))),
                )
            }
            Some((eta, WeakNetwork::Beside(beside))) => {
                let [_, width] = strong.embed().embedding.dims();
                let weak = Sampling::new(&beside.model).within_states(width, &beside.states);
                (alone.within_states(0, &beside.states), Some((*eta, weak)))
            }
        }
    }
}

impl<B: Backend> Beside<B> {
    /// A weaker network, which must be of the same kind, on the same tokens.
    fn load(path: &str, strong: &Strong<'_, B>) -> Result<Self> {
        let folder = files::model_folder(Path::new(path))?;
        let tokenizer = Origin::read(&folder)?.tokenizer(&folder)?;
        let config = folder::read_config(&folder)?;
        let clock = |config: &DitConfig| match config.schedule_vocab {
            0 => config.vocab_size,
            tokens => tokens,
        };
        let of = |config: &DitConfig, hash: &str| {
            [
                ("kind", inspect::kind(config).to_owned()),
                ("tokenizer", format!("{hash:.12}")),
                ("length", config.length.to_string()),
                ("schedule_vocab", clock(config).to_string()),
            ]
        };
        let expected = of(strong.config, strong.tokenizer.hash());
        for ((key, found), (_, expected)) in of(&config, tokenizer.hash()).iter().zip(&expected) {
            if found != expected {
                return Err(CliError::input(format!(
                    "--weak {path} has the {key} {found}, expected that of {}, {expected}",
                    strong.name
                )));
            }
        }
        let (model, _) = folder::load::<B>(&folder, strong.device)?;
        Ok(Self {
            states: strong.model.embed().beside(model.embed()),
            prior: Prior::beside(strong.model.embed(), model.embed()),
            model: model.with_execution(strong.model.execution()),
        })
    }
}

/// The reward that is asked for, of the network's tokens.
fn reward<A: AutodiffBackend>(
    asked: &Asked,
    strong: &Strong<'_, A::InnerBackend>,
    place: &Place<A>,
) -> Result<Box<dyn Reward<A> + Send + Sync>> {
    let tokenizer = strong.tokenizer;
    match asked {
        Asked::Keyword(words) => {
            let tokens = words.iter().map(|word| one_token(word, tokenizer));
            let tokens = tokens.collect::<Result<Vec<_>>>()?;
            let vocab = strong.config.vocab_size;
            let keywords = Keywords::<A::InnerBackend>::new(vocab, &tokens, &place.device);
            Ok(Box::new(keywords))
        }
        Asked::Classifier { path, .. } => {
            let (classifier, file): (Classifier<A>, _) =
                flm_reward::load(Path::new(path), &place.device)?;
            if file.tokenizer_hash != tokenizer.hash() {
                return Err(CliError::input(format!(
                    "the reward {path} was trained on the tokenizer {:.12}, but that of {} is {:.12}",
                    file.tokenizer_hash,
                    strong.name,
                    tokenizer.hash()
                )));
            }
            Ok(Box::new(classifier.no_grad()))
        }
    }
}

/// The token of a word, alone or, where words are told apart by the space before them, behind one.
fn one_token(word: &str, tokenizer: &TextTokenizer) -> Result<u32> {
    let spaced = format!(" {word}");
    let mut found = [spaced.as_str(), word]
        .into_iter()
        .map(|text| tokenizer.encode(text))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    found.sort_by_key(Vec::len);
    match found[0][..] {
        [token] => Ok(token),
        _ => Err(CliError::input(format!(
            "--reward keyword:{word}: the tokenizer makes {} tokens of the word, expected one",
            found[0].len()
        ))),
    }
}
