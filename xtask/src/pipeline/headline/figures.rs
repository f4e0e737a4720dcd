//! Samples, judged, and what else is asked of a model.

use super::Study;
use super::entrants::{Entrant, JUDGE, JUDGE_SEED};
use crate::pipeline::runs::{Trained, name, read, same, words};
use crate::pipeline::write;
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Up to so many steps models are sampled at all temperatures, to be compared at equal entropy.
pub(super) const FEW: usize = 8;
/// The first is how models were trained; lower ones trade entropy for quality. In one step of a flow they scale its noise instead.
const TEMPERATURES: [f64; 4] = [1.0, 0.85, 0.7, 0.5];

/// A model of one seed, with its samples judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) entrant: String,
    pub(crate) seed: u64,
    pub(crate) trained: Trained,
    /// Nats a token of validation rows: exact, or a bound from above; flows have none.
    pub(crate) likelihood: Option<f64>,
    pub(crate) figures: Vec<Figures>,
}

/// Samples in some number of steps at some temperature, judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) steps: usize,
    pub(crate) temperature: f64,
    pub(crate) samples: usize,
    /// Of the whole command, and of all cores together as far as the system tells.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: Option<f64>,
    /// Share of sentences of the language, where it is known.
    pub(crate) valid: Option<f64>,
    pub(crate) nats_per_token: f64,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
    pub(super) command: String,
    /// Of the model, and of the judge if there is one.
    pub(super) weights: String,
    pub(super) judge: Option<String>,
}

/// The text itself, judged like samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) rows: usize,
    pub(crate) nats_per_token: f64,
    /// Nats a token of rows as likelihoods count them, where the distribution is known.
    pub(crate) likelihood: Option<f64>,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
}

/// What `flm` answered, and to what.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    command: String,
    /// Of the model that was asked about.
    weights: Option<String>,
    answer: T,
}

impl Study<'_> {
    /// A trained model with its samples judged.
    pub(super) fn finish(&self, entrant: &'static Entrant, seed: u64) -> anyhow::Result<Finished> {
        if let Some(run) = self.known(entrant, seed) {
            return Ok(run.clone());
        }
        let model = self.model(entrant);
        let trained = self.train(model, seed)?;
        println!("{}, seed {seed}: samples", entrant.name);
        let mut figures = Vec::new();
        for temperature in TEMPERATURES {
            if entrant.family == "autoregressive" {
                figures.push(self.sample(entrant, seed, None, temperature)?);
                continue;
            }
            let only = model.only.map(|only| vec![only]);
            for &steps in only.as_ref().unwrap_or(&self.arguments.steps) {
                if temperature == 1.0 || steps <= FEW {
                    figures.push(self.sample(entrant, seed, Some(steps), temperature)?);
                }
            }
        }
        let has_likelihood = model.teacher.is_none() && model.family != "flow";
        let likelihood = match has_likelihood && entrant.model.is_none() {
            true => {
                let bound = self.bound(model, seed)?;
                bound
                    .pointer("/models/0/nats_per_token")
                    .and_then(Value::as_f64)
            }
            false => None,
        };
        Ok(Finished {
            entrant: entrant.name.to_owned(),
            seed,
            likelihood,
            trained,
            figures,
        })
    }

    /// Samples of a model, judged, or what was found of them before.
    fn sample(
        &self,
        entrant: &'static Entrant,
        seed: u64,
        steps: Option<usize>,
        temperature: f64,
    ) -> anyhow::Result<Figures> {
        let model = self.model(entrant);
        let number = steps.map_or_else(|| "all".to_owned(), |steps| steps.to_string());
        let sampled = format!("{}-{number}-{temperature}", name(entrant.name, seed));
        let samples = self.runs.path(&["samples", &format!("{sampled}.jsonl")]);
        let mut arguments = words(&["sample", "--model", &self.run(model.name, seed)]);
        if let Some(steps) = steps {
            arguments.extend(words(&["--steps", &steps.to_string()]));
        }
        for (option, value) in [
            ("--count", self.arguments.samples.to_string()),
            ("--seed", seed.to_string()),
            (entrant.sharpens(steps), temperature.to_string()),
            ("--out", samples.clone()),
        ] {
            arguments.extend(words(&[option, &value]));
        }
        arguments.extend(words(entrant.options));
        arguments.extend(self.place());
        let command = format!("flm {}", arguments.join(" "));
        let weights = self.weights(model.name, seed)?;
        let judge = self.judge_weights()?;
        let place = PathBuf::from(self.runs.path(&["judged", &format!("{sampled}.json")]));
        if place.is_file() {
            let figures: Figures = read(&place)?;
            same(&place, &figures.command, &command)?;
            if figures.weights == weights && figures.judge == judge {
                return Ok(figures);
            }
        }
        fs::create_dir_all(self.runs.path(&["samples"]))?;
        arguments.push("--force".to_owned());
        let begun = Instant::now();
        let used = self.runs.flm.run(&arguments)?;
        let seconds = begun.elapsed().as_secs_f64();
        let judged = self.judge(&samples)?;
        let figures = Figures {
            steps: judged
                .value
                .pointer("/drawn/steps")
                .and_then(Value::as_u64)
                .context("samples do not tell their steps")? as usize,
            temperature,
            samples: self.arguments.samples,
            seconds,
            cpu_seconds: used.cpu_seconds,
            valid: judged
                .value
                .pointer("/figures/valid")
                .and_then(Value::as_f64),
            nats_per_token: judged.figure(self.nats())?,
            entropy: judged.figure(self.entropy())?,
            distinct: judged.figure("/figures/distinct")?,
            command,
            weights,
            judge,
        };
        write(&place, &serde_json::to_string_pretty(&figures)?)?;
        Ok(figures)
    }

    /// The answer of `flm eval bound`.
    fn bound(&self, model: &Entrant, seed: u64) -> anyhow::Result<Value> {
        let run = name(model.name, seed);
        let mut arguments = words(&["eval", "bound", &self.runs.run(&run), "--json"]);
        arguments.extend(words(&["--data", &self.data()]));
        arguments.extend(self.place());
        let weights = self.weights(model.name, seed)?;
        self.ask_once(&format!("{run}-bound"), &arguments, Some(weights))
    }

    /// An answer of `flm`, asked for once and again when the question or the model changes.
    pub(super) fn ask_once<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        arguments: &[String],
        weights: Option<String>,
    ) -> anyhow::Result<T> {
        let command = format!("flm {}", arguments.join(" "));
        let place = PathBuf::from(self.runs.path(&["judged", &format!("{name}.json")]));
        if let Ok(text) = fs::read_to_string(&place)
            && let Ok(kept) = serde_json::from_str::<Kept<T>>(&text)
            && kept.command == command
            && kept.weights == weights
        {
            return Ok(kept.answer);
        }
        let answer = self.runs.flm.ask(arguments)?;
        let kept = Kept {
            answer: serde_json::from_str(&answer)
                .with_context(|| format!("`{command}` answers otherwise"))?,
            command,
            weights,
        };
        write(&place, &serde_json::to_string_pretty(&kept)?)?;
        Ok(kept.answer)
    }

    /// The text itself: its validation rows as if they were samples.
    pub(super) fn text(&self) -> anyhow::Result<Text> {
        if let Some(earlier) = &self.earlier {
            return Ok(earlier.text.clone());
        }
        let judged = self.judge(&self.data())?;
        let some = super::ENTRANTS
            .iter()
            .find(|e| e.family == "autoregressive");
        let bound = self.bound(some.context("AR is compared")?, self.arguments.seeds[0])?;
        Ok(Text {
            rows: judged.figure("/figures/samples")? as usize,
            nats_per_token: judged.figure(self.nats())?,
            likelihood: bound["grammar_nats_per_token"].as_f64(),
            entropy: judged.figure(self.entropy())?,
            distinct: judged.figure("/figures/distinct")?,
        })
    }

    fn judge(&self, samples: &str) -> anyhow::Result<Judged> {
        let mut arguments = words(&[samples, "--data", &self.data()]);
        if self.arguments.text.is_some() {
            let judge = self.run(JUDGE.name, JUDGE_SEED);
            arguments.extend(words(&["--scorer", &judge]));
        }
        let value = self.runs.judge(&arguments)?;
        Ok(Judged { value })
    }

    /// Of the model that judges, where one does.
    fn judge_weights(&self) -> anyhow::Result<Option<String>> {
        match self.arguments.text {
            Some(_) => self.weights(JUDGE.name, JUDGE_SEED).map(Some),
            None => Ok(None),
        }
    }

    /// Where `flm eval` tells of quality.
    fn nats(&self) -> &'static str {
        match self.arguments.text {
            Some(_) => "/scores/0/nats_per_token",
            None => "/figures/oracle_nats_per_token",
        }
    }

    /// And of entropy: of a grammar's words, or of tokens.
    fn entropy(&self) -> &'static str {
        match self.arguments.text {
            Some(_) => "/token_entropy",
            None => "/figures/entropy",
        }
    }
}

/// An answer of `flm eval`.
struct Judged {
    value: Value,
}

impl Judged {
    fn figure(&self, place: &str) -> anyhow::Result<f64> {
        self.value
            .pointer(place)
            .and_then(Value::as_f64)
            .with_context(|| format!("flm eval tells no {place}: {}", self.value))
    }
}
