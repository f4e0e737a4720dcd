//! What models would reach that know the grammar's law.

use super::Study;
use super::figures::FEW;
use crate::pipeline::runs::{read, words};
use crate::pipeline::write;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whose embedding is looked through.
const FLOW: &str = "FLM";

/// Models with nothing left to learn, and how much the flows have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Perfect {
    /// States are seen in full, and time goes as published.
    full: Answer,
    /// Of each seed: states are seen through its flow's embedding.
    through: Vec<Answer>,
}

/// What `flm eval perfect` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    flow_losses: Vec<Loss>,
    samples: Vec<Samples>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Loss {
    of: String,
    nats_per_place: f64,
    quarters: [f64; 4],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Samples {
    family: String,
    steps: usize,
    figures: Quality,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Quality {
    valid: f64,
}

/// An answer, and what it was asked of.
#[derive(Serialize, Deserialize)]
struct Kept {
    command: String,
    weights: Option<String>,
    answer: Answer,
}

/// A line of a table or a picture: a name, and shares of valid samples at numbers of steps, of every seed.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(usize, Vec<f64>)>,
}

impl Perfect {
    /// Shares of valid samples.
    pub(super) fn lines(&self) -> Vec<Line> {
        let line = |name, answers: &[&Answer], family: &str| {
            let of = |answer: &Answer| -> Vec<(usize, f64)> {
                let mine = answer.samples.iter().filter(|s| s.family == family);
                mine.map(|s| (s.steps, 100.0 * s.figures.valid)).collect()
            };
            let first = answers.first().map_or_else(Vec::new, |answer| of(answer));
            let points = first.iter().map(|&(steps, _)| {
                let found = answers.iter().flat_map(|answer| of(answer));
                let at = found.filter(|(other, _)| *other == steps);
                (steps, at.map(|(_, valid)| valid).collect())
            });
            Line {
                name,
                points: points.collect(),
            }
        };
        let through: Vec<&Answer> = self.through.iter().collect();
        vec![
            line("perfect masked diffusion", &[&self.full], "mdlm"),
            line("perfect flow", &[&self.full], "flow"),
            line("perfect flow through FLM's embedding", &through, "flow"),
        ]
    }

    /// The flow's losses beside the least there can be.
    pub(super) fn told(&self) -> String {
        let mut out = "| validation loss, nats a place | all | τ < 1/4 | < 1/2 | < 3/4 | < 1 |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
        for (of, name) in [
            ("network", FLOW),
            (
                "perfect_through",
                "of who knows the law, through its embedding",
            ),
            ("perfect", "of who knows the law"),
        ] {
            let losses = || {
                let all = self.through.iter().flat_map(|answer| &answer.flow_losses);
                all.filter(|loss| loss.of == of)
            };
            let joined = |figure: &dyn Fn(&Loss) -> f64| {
                let all = losses().map(|loss| format!("{:.3}", figure(loss)));
                all.collect::<Vec<_>>().join(" · ")
            };
            let mut cells = vec![name.to_owned(), joined(&|loss| loss.nats_per_place)];
            cells.extend([0, 1, 2, 3].map(|quarter| joined(&|loss| loss.quarters[quarter])));
            out += &format!("| {} |\n", cells.join(" | "));
        }
        out
    }
}

impl Study<'_> {
    /// What perfect models would reach, where the law is known.
    pub(super) fn perfect(&self) -> anyhow::Result<Option<Perfect>> {
        if self.arguments.text.is_some() {
            return Ok(None);
        }
        println!("perfect models");
        let few: Vec<usize> = (self.arguments.steps.iter().copied())
            .filter(|steps| *steps <= FEW)
            .collect();
        let full = self.ask_perfect("perfect", &self.arguments.steps, None)?;
        let through = (self.arguments.seeds.iter())
            .map(|&seed| self.ask_perfect(&format!("perfect-{seed}"), &few, Some(seed)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Some(Perfect { full, through }))
    }

    fn ask_perfect(
        &self,
        name: &str,
        steps: &[usize],
        seed: Option<u64>,
    ) -> anyhow::Result<Answer> {
        let steps: Vec<String> = steps.iter().map(usize::to_string).collect();
        let count = self.arguments.samples.to_string();
        let mut arguments = words(&["eval", "perfect", "--json", "--data", &self.data()]);
        arguments.extend(words(&["--steps", &steps.join(","), "--count", &count]));
        let mut weights = None;
        if let Some(seed) = seed {
            let flow = self.run(FLOW, seed);
            arguments.extend(words(&["--through", &flow, "--seed", &seed.to_string()]));
            weights = Some(self.weights(FLOW, seed)?);
        }
        let command = format!("flm {}", arguments.join(" "));
        let place = PathBuf::from(self.runs.path(&["judged", &format!("{name}.json")]));
        if place.is_file() {
            let kept: Kept = read(&place)?;
            if kept.command == command && kept.weights == weights {
                return Ok(kept.answer);
            }
        }
        let answer = self.runs.flm.ask(&arguments)?;
        let kept = Kept {
            answer: serde_json::from_str(&answer).context("flm eval perfect answers otherwise")?,
            command,
            weights,
        };
        write(&place, &serde_json::to_string_pretty(&kept)?)?;
        Ok(kept.answer)
    }
}
