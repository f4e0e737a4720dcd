//! The networks and rewards that guide samples, read and ready.

use super::guidance::{Asked, Auto, Guidance, Rewarded, Weak};
use crate::device::Place;
use crate::error::{CliError, Result};
use crate::files;
use crate::stages::origin::Origin;
use crate::stages::{inspect, purpose};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_data::TextTokenizer;
use flm_denoiser::{Dit, DitConfig, Prior, Sampling, VocabEmbed, Weakness, folder};
use flm_reward::{Ascent, Classifier, Keywords, Reward};
use flm_simplex::guidance::Steer;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;

/// What guides the samples of a request, ready to do so.
pub(super) struct Guides<B: Backend> {
    auto: Option<(f64, WeakNetwork<B>)>,
    reward: Option<Box<dyn Steer<B> + Send + Sync>>,
}

enum WeakNetwork<B: Backend> {
    /// The same, at this rate.
    Dropout(f64),
    /// Another one, which sees a part of its own of common states.
    Beside(Arc<Beside<B>>),
}

/// Another network, which is weaker.
pub(super) struct Beside<B: Backend> {
    model: Dit<B>,
    /// Both embeddings side by side: what carries tokens to states.
    states: VocabEmbed<B>,
    prior: Prior<B>,
}

/// Weaker networks by their paths, so that requests share them.
pub(super) type Read<B> = Vec<(String, Arc<Beside<B>>)>;

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

    /// Reads what is needed beside the network that is guided and is not among what is `read`.
    pub(super) fn load<A: AutodiffBackend<InnerBackend = B>>(
        guidance: &Guidance,
        temperature: f64,
        strong: &Strong<'_, B>,
        place: &Place<A>,
        read: &mut Read<B>,
    ) -> Result<Self> {
        let auto = match &guidance.auto {
            None => None,
            Some(Auto { eta, weak }) => Some((*eta, WeakNetwork::load(weak, strong, read)?)),
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

    /// What carries tokens to the states.
    pub(super) fn states<'a>(&'a self, strong: &'a Dit<B>) -> &'a VocabEmbed<B> {
        match &self.auto {
            Some((_, WeakNetwork::Beside(beside))) => &beside.states,
            _ => strong.embed(),
        }
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

impl<B: Backend> WeakNetwork<B> {
    fn load(weak: &Weak, strong: &Strong<'_, B>, read: &mut Read<B>) -> Result<Self> {
        let path = match weak {
            Weak::Dropout(rate) => return Ok(Self::Dropout(*rate)),
            Weak::Model { path, .. } => path,
        };
        if let Some((_, beside)) = read.iter().find(|(known, _)| known == path) {
            return Ok(Self::Beside(beside.clone()));
        }
        let beside = Arc::new(Beside::load(path, strong)?);
        read.push((path.clone(), beside.clone()));
        Ok(Self::Beside(beside))
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
            let (classifier, _): (Classifier<A>, _) =
                flm_reward::load(Path::new(path), &place.device)?;
            Ok(Box::new(classifier.no_grad()))
        }
    }
}

/// The token of a word, alone or, where words are told apart by the space before them, behind one.
pub(super) fn one_token(word: &str, tokenizer: &TextTokenizer) -> Result<u32> {
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
