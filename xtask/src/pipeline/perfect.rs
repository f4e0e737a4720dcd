//! Exact denoisers of the grammar, sampled like networks: the price of few steps, and the gap of a trained network.

use super::report::cell;
use super::runner::{Kind, Runner, Task};
use super::study::{FEW, Study};
use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Exact denoisers, and the gap between them and the flows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Perfect {
    /// States are seen in full, on the time schedule of the flows.
    full: Answer,
    /// States are seen through the flow's embedding, one answer per seed.
    through: Vec<Answer>,
}

/// The output of `flm eval perfect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    schedule_vocab: usize,
    flow_losses: Vec<Loss>,
    bounds: Vec<Bound>,
    samples: Vec<Samples>,
}

/// The likelihood bound of a discrete diffusion with the exact denoiser.
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

/// A row of a table and a line of a picture: shares of valid samples of every seed at each number of steps.
pub(super) struct Ceiling {
    pub(super) name: &'static str,
    pub(super) points: Vec<(usize, Vec<f64>)>,
}

impl Perfect {
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
            line("exact masked diffusion", &[&self.full], "mdlm"),
            line("exact uniform-state diffusion", &[&self.full], "duo"),
            line("exact flow", &[&self.full], "flow"),
            line("exact flow through FLM's embedding", &through, "flow"),
        ]
    }

    /// Losses of the flow and of the exact denoiser, and exact bounds of the diffusions, by quarters of time.
    pub(super) fn render(&self) -> String {
        let mut out = "| validation loss, nats per position | all | τ < 1/4 | < 1/2 | < 3/4 | < 1 |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
        for (of, name) in [
            ("network", "network"),
            (
                "perfect_through",
                "exact denoiser, through the network's embedding",
            ),
            ("perfect", "exact denoiser"),
        ] {
            let losses = || {
                let all = self.through.iter().flat_map(|answer| &answer.flow_losses);
                all.filter(|loss| loss.of == of)
            };
            let joined =
                |figure: &dyn Fn(&Loss) -> f64| cell(&losses().map(figure).collect::<Vec<_>>(), 3);
            let mut cells = vec![name.to_owned(), joined(&|loss| loss.nats_per_place)];
            cells.extend([0, 1, 2, 3].map(|quarter| joined(&|loss| loss.quarters[quarter])));
            out += &format!("| {} |\n", cells.join(" | "));
        }
        out += "\n| bound of the exact denoiser, nats per position | all | t < 1/4 | < 1/2 | < 3/4 | < 1 |\n| --- | --- | --- | --- | --- | --- |\n";
        for bound in &self.full.bounds {
            let name = if bound.family == "duo" { "Duo" } else { "MDLM" };
            let figures = std::iter::once(&bound.nats_per_place).chain(&bound.quarters);
            let cells: Vec<String> = figures.map(|nats| format!("{nats:.3}")).collect();
            out += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        out
    }
}

/// Samples exact denoisers on the grammar, and through the embedding of a trained flow.
pub(crate) fn measure(study: &Study, runner: &Runner, flow: &str) -> anyhow::Result<Perfect> {
    let task = |name: &str, most: usize| {
        let steps = study.steps.iter().filter(|steps| **steps <= most);
        let steps = steps.map(usize::to_string).collect::<Vec<_>>().join(",");
        Task::new(name, Kind::Answer, "eval perfect --json")
            .with(["--data", &study.folder(runner), "--steps", &steps])
            .with(["--count", &study.samples.to_string()])
    };
    let answer = |task: &Task| -> anyhow::Result<Answer> {
        let record = runner.run(task)?;
        serde_json::from_value(record.answer)
            .with_context(|| format!("cannot parse the output of `{}`", record.command))
    };
    let through = study.seeds.iter().map(|seed| {
        let run = format!("{flow}-{seed}");
        let task = task(&format!("perfect-{seed}"), FEW)
            .with(["--embedding-from", &runner.folder(&run)])
            .with(["--seed", &seed.to_string()]);
        answer(&task.reads(&run))
    });
    let through: Vec<Answer> = through.collect::<anyhow::Result<_>>()?;
    let schedule = through[0].schedule_vocab.to_string();
    let full = answer(&task("perfect", usize::MAX).with(["--schedule-vocab", &schedule]))?;
    Ok(Perfect { full, through })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of two seeds, sampled in 1 and 8 steps in full and in 1 through the flow.
    pub(crate) fn made_up() -> Perfect {
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
    fn losses_are_means_over_seeds() {
        let page = made_up().render();
        let network = "| network | 0.500 ±0.000 | 0.800 ±0.000 | 0.600 ±0.000 | 0.400 ±0.000 | 0.200 ±0.000 |";
        assert!(page.contains(network), "{page}");
        let bound = "| Duo | 0.500 | 0.200 | 0.400 | 0.600 | 0.800 |";
        assert!(page.contains(bound), "{page}");
        assert!(page.contains("| exact denoiser | 0.300 ±0.000 |"), "{page}");
    }
}
