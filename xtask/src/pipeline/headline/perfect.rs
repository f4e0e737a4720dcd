//! What models would reach that know the grammar's distribution.

use super::Study;
use super::figures::FEW;
use crate::pipeline::runs::words;
use serde::{Deserialize, Serialize};

/// Whose embedding is looked through.
const FLOW: &str = "FLM";

/// Models with nothing left to learn, and how much the flows have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Perfect {
    /// States are seen in full; time goes as it does for the flows.
    full: Answer,
    /// Of each seed: states are seen through its flow's embedding.
    through: Vec<Answer>,
}

/// What `flm eval perfect` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    schedule_vocab: usize,
    flow_losses: Vec<Loss>,
    bounds: Vec<Bound>,
    samples: Vec<Samples>,
}

/// Of a discrete diffusion that knows the distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bound {
    family: String,
    nats_per_place: f64,
    quarters: [f64; 4],
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

/// A row of a table, and a line of a picture: a name, and shares of valid samples at numbers of steps, of every seed.
pub(super) struct Ceiling {
    pub(super) name: &'static str,
    pub(super) points: Vec<(usize, Vec<f64>)>,
}

impl Perfect {
    /// Shares of valid samples.
    pub(super) fn ceilings(&self) -> Vec<Ceiling> {
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
            Ceiling {
                name,
                points: points.collect(),
            }
        };
        let through: Vec<&Answer> = self.through.iter().collect();
        vec![
            line("perfect masked diffusion", &[&self.full], "mdlm"),
            line("perfect uniform-state diffusion", &[&self.full], "duo"),
            line("perfect flow", &[&self.full], "flow"),
            line("perfect flow through FLM's embedding", &through, "flow"),
        ]
    }

    /// The flow's losses beside the least there can be, and where in time the bounds of diffusions would come from.
    pub(super) fn render(&self) -> String {
        let mut out = "| validation loss, nats a place | all | τ < 1/4 | < 1/2 | < 3/4 | < 1 |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
        for (of, name) in [
            ("network", FLOW),
            ("perfect_through", "exact denoiser, through its embedding"),
            ("perfect", "exact denoiser"),
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
        out += "\n| bound of the exact denoiser, nats a place | all | t < 1/4 | < 1/2 | < 3/4 | < 1 |\n| --- | --- | --- | --- | --- | --- |\n";
        for bound in &self.full.bounds {
            let name = if bound.family == "duo" { "Duo" } else { "MDLM" };
            let figures = std::iter::once(&bound.nats_per_place).chain(&bound.quarters);
            let cells: Vec<String> = figures.map(|nats| format!("{nats:.3}")).collect();
            out += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        out
    }
}

impl Study<'_> {
    /// What perfect models would reach, where the distribution is known.
    pub(super) fn perfect(&self) -> anyhow::Result<Option<Perfect>> {
        if self.arguments.text.is_some() {
            return Ok(None);
        }
        if let Some(earlier) = &self.earlier {
            return Ok(earlier.perfect.clone());
        }
        println!("perfect models");
        let steps = |most: usize| {
            let all = self.arguments.steps.iter().filter(|steps| **steps <= most);
            all.map(usize::to_string).collect::<Vec<_>>().join(",")
        };
        let count = self.arguments.samples.to_string();
        let ask = |name: &str, steps: String, more: &str, weights: Option<String>| {
            let mut arguments = words(&["eval", "perfect", "--json", "--data", &self.data()]);
            arguments.extend(words(&["--steps", &steps, "--count", &count]));
            arguments.extend(more.split_whitespace().map(str::to_owned));
            self.ask_once::<Answer>(name, &arguments, weights)
        };
        let through = |&seed: &u64| {
            let more = format!("--embedding-from {} --seed {seed}", self.run(FLOW, seed));
            let weights = Some(self.weights(FLOW, seed)?);
            ask(&format!("perfect-{seed}"), steps(FEW), &more, weights)
        };
        let through: Vec<Answer> = (self.arguments.seeds.iter())
            .map(through)
            .collect::<anyhow::Result<_>>()?;
        let clock = format!("--schedule-vocab {}", through[0].schedule_vocab);
        let full = ask("perfect", steps(usize::MAX), &clock, None)?;
        Ok(Some(Perfect { full, through }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of two seeds, sampled in 1 and 8 steps in full and in 1 through the flow.
    pub(in super::super) fn made_up() -> Perfect {
        let answer = |steps: &[usize], whose: &[(&str, f64)]| Answer {
            schedule_vocab: 24,
            flow_losses: whose
                .iter()
                .map(|&(of, nats)| Loss {
                    of: of.to_owned(),
                    nats_per_place: nats,
                    quarters: [nats + 0.3, nats + 0.1, nats - 0.1, nats - 0.3],
                })
                .collect(),
            bounds: vec![Bound {
                family: "duo".to_owned(),
                nats_per_place: 0.5,
                quarters: [0.2, 0.4, 0.6, 0.8],
            }],
            samples: steps
                .iter()
                .flat_map(|&steps| {
                    let all = [("mdlm", 0.125), ("duo", 0.25), ("flow", 0.75)];
                    all.map(|(family, valid)| Samples {
                        family: family.to_owned(),
                        steps,
                        figures: Quality { valid },
                    })
                })
                .collect(),
        };
        let whose = [("perfect", 0.3), ("perfect_through", 0.4), ("network", 0.5)];
        Perfect {
            full: answer(&[1, 8], &whose[..1]),
            through: vec![answer(&[1], &whose), answer(&[1], &whose)],
        }
    }

    #[test]
    fn losses_stand_seed_by_seed() {
        let told = made_up().render();
        let network = "| FLM | 0.500 · 0.500 | 0.800 · 0.800 | 0.600 · 0.600 | 0.400 · 0.400 | 0.200 · 0.200 |";
        assert!(told.contains(network), "{told}");
        let bound = "| Duo | 0.500 | 0.200 | 0.400 | 0.600 | 0.800 |";
        assert!(told.contains(bound), "{told}");
        assert!(
            told.contains("| exact denoiser | 0.300 · 0.300 |"),
            "{told}"
        );
    }
}
