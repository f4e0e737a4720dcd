//! Loaded networks and rewards for guidance.

use super::{AutoguidanceOptions, Guidance, RewardOptions, RewardSource, WeakNetwork, one_token};
use crate::{Error, ModelFolder, Result, kind, purpose};
use burn::backend::Autodiff;
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use flm_data::TextTokenizer;
use flm_denoiser::{Dit, DitConfig, DropoutGuidance, Prior, SamplingDenoiser, VocabEmbed, folder};
use flm_reward::{Ascent, Classifier, Keywords, Reward as RewardOf};
use flm_simplex::guidance::Steer;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;

/// The loaded parts of a [`Guidance`].
pub(crate) struct Guides<B: Backend> {
    auto: Option<(f64, Weak<B>)>,
    reward: Option<Box<dyn Steer<B> + Send + Sync>>,
}

enum Weak<B: Backend> {
    /// The guided network with dropout at this rate.
    Dropout(f64),
    /// Another network, which sees its own part of the joint states.
    Model(Arc<WeakModel<B>>),
}

/// A loaded weaker network.
pub(crate) struct WeakModel<B: Backend> {
    path: String,
    /// The first digits of the SHA-256 of the weights.
    weights: String,
    model: Dit<B>,
    /// The embeddings of both networks, concatenated: maps tokens to joint states.
    states: VocabEmbed<B>,
    prior: Prior<B>,
}

/// The guided network.
pub(crate) struct Strong<'a, B: Backend> {
    pub(crate) model: &'a Dit<B>,
    pub(crate) config: &'a DitConfig,
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) name: &'a str,
    pub(crate) device: &'a B::Device,
}

impl<B: Backend> Guides<B> {
    /// No guidance.
    pub(crate) fn none() -> Self {
        Self {
            auto: None,
            reward: None,
        }
    }

    /// Loads the networks and rewards of a guidance, and reuses weaker models in `loaded`.
    pub(crate) fn load(
        guidance: &Guidance,
        temperature: f64,
        strong: &Strong<'_, B>,
        loaded: &mut Vec<Arc<WeakModel<B>>>,
    ) -> Result<Self> {
        let auto = match &guidance.auto {
            None => None,
            Some(AutoguidanceOptions { eta, weak }) => {
                Some((*eta, Weak::load(weak, strong, loaded)?))
            }
        };
        let reward = match &guidance.reward {
            None => None,
            Some(RewardOptions { scale, of }) => {
                let states = match &auto {
                    Some((_, Weak::Model(weak))) => &weak.states,
                    _ => strong.model.embed(),
                };
                let reward = reward(of, strong)?;
                let ascent = Ascent::<Autodiff<B>, _>::new(strong.model, states, reward, *scale);
                let ascent = ascent.at_temperature(temperature)?;
                Some(Box::new(ascent) as Box<dyn Steer<B> + Send + Sync>)
            }
        };
        Ok(Self { auto, reward })
    }

    /// Returns the reward step that moves states before they are evaluated.
    pub(crate) fn steer(&self) -> Option<&(dyn Steer<B> + Send + Sync)> {
        self.reward.as_deref()
    }

    /// Returns the embedding that maps tokens to states.
    pub(crate) fn states<'a>(&'a self, strong: &'a Dit<B>) -> &'a VocabEmbed<B> {
        match &self.auto {
            Some((_, Weak::Model(weak))) => &weak.states,
            _ => strong.embed(),
        }
    }

    /// Draws the noise of one sequence in state space.
    pub(crate) fn noise(
        &self,
        strong: &Dit<B>,
        prior: &Prior<B>,
        length: usize,
        rng: &mut ChaCha8Rng,
    ) -> Tensor<B, 3> {
        match &self.auto {
            Some((_, Weak::Model(weak))) => {
                let noise = weak.prior.draw(1, length, rng);
                noise.seen_beside(strong.embed(), weak.model.embed())
            }
            _ => prior.draw(1, length, rng).seen(strong.embed()),
        }
    }

    /// Returns the guided network and, with η, the weaker one, both as denoisers of the states.
    pub(crate) fn networks<'a>(
        &'a self,
        strong: &'a Dit<B>,
        seed: u64,
        first: usize,
    ) -> (
        SamplingDenoiser<'a, B>,
        Option<(f64, SamplingDenoiser<'a, B>)>,
    ) {
        let alone = SamplingDenoiser::new(strong);
        match &self.auto {
            None => (alone, None),
            Some((eta, Weak::Dropout(rate))) => {
                let weakness = DropoutGuidance {
                    rate: *rate,
                    seed,
                    purpose: purpose::WEAK,
                    first,
                };
                let weak = SamplingDenoiser::new(strong).weakened(weakness);
                (alone, Some((*eta, weak)))
            }
            Some((eta, Weak::Model(weak))) => {
                let [_, width] = strong.embed().embedding.dims();
                let network = SamplingDenoiser::new(&weak.model).within_states(width, &weak.states);
                (alone.within_states(0, &weak.states), Some((*eta, network)))
            }
        }
    }
}

impl<B: Backend> Weak<B> {
    fn load(
        weak: &WeakNetwork,
        strong: &Strong<'_, B>,
        loaded: &mut Vec<Arc<WeakModel<B>>>,
    ) -> Result<Self> {
        let (path, weights) = match weak {
            WeakNetwork::Dropout(rate) => return Ok(Self::Dropout(*rate)),
            WeakNetwork::Model { path, weights } => (path, weights),
        };
        let is_this = |weak: &&Arc<WeakModel<B>>| weak.path == *path && weak.weights == *weights;
        if let Some(weak) = loaded.iter().find(is_this) {
            return Ok(Self::Model(weak.clone()));
        }
        let weak = Arc::new(WeakModel::load(path, weights, strong)?);
        loaded.push(weak.clone());
        Ok(Self::Model(weak))
    }
}

impl<B: Backend> WeakModel<B> {
    /// Loads a weaker network, which must have the same kind, tokenizer, length and schedule.
    fn load(path: &str, weights: &str, strong: &Strong<'_, B>) -> Result<Self> {
        let folder = ModelFolder::open(path)?;
        check_weights("weak", path, &folder.weights()?, weights)?;
        let clock = |config: &DitConfig| match config.schedule_vocab {
            0 => config.vocab_size,
            tokens => tokens,
        };
        let of = |config: &DitConfig, hash: &str| {
            [
                ("kind", kind(config).to_owned()),
                ("tokenizer", format!("{hash:.12}")),
                ("length", config.length.to_string()),
                ("schedule_vocab", clock(config).to_string()),
            ]
        };
        let found = of(folder.config(), folder.tokenizer()?.hash());
        let expected = of(strong.config, strong.tokenizer.hash());
        for ((key, found), (_, expected)) in found.iter().zip(&expected) {
            if found != expected {
                return Err(Error::Option(format!(
                    "weak {path} has the {key} {found}, expected {expected} as in {}",
                    strong.name
                )));
            }
        }
        let (model, _) = folder::load::<B>(folder.path(), strong.device)?;
        Ok(Self {
            path: path.to_owned(),
            weights: weights.to_owned(),
            states: strong.model.embed().beside(model.embed()),
            prior: Prior::beside(strong.model.embed(), model.embed()),
            model: model.with_execution(strong.model.execution()),
        })
    }
}

/// Checks that the weights are those that the guidance was created with.
fn check_weights(what: &str, path: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Option(format!(
        "{what} {path} has the weights {found}, expected {expected}"
    )))
}

/// Loads a reward for the tokens of the guided network.
fn reward<B: Backend>(
    reward: &RewardSource,
    strong: &Strong<'_, B>,
) -> Result<Box<dyn RewardOf<Autodiff<B>> + Send + Sync>> {
    let tokenizer = strong.tokenizer;
    match reward {
        RewardSource::Keyword(words) => {
            let tokens = words.iter().map(|word| one_token(word, tokenizer));
            let tokens = tokens.collect::<Result<Vec<_>>>()?;
            let vocab = strong.config.vocab_size;
            Ok(Box::new(Keywords::<B>::new(vocab, &tokens, strong.device)))
        }
        RewardSource::Classifier { path, weights } => {
            let found = crate::folder::weights(Path::new(path))?;
            check_weights("reward", path, &found, weights)?;
            let (classifier, _): (Classifier<Autodiff<B>>, _) =
                flm_reward::load(Path::new(path), strong.device)?;
            Ok(Box::new(classifier.no_grad()))
        }
    }
}
