//! The figures of a study, and which model is ahead: at equal steps, and at equal entropy.

use super::runner::{Record, Used};
use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A model of one seed, with its samples evaluated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) model: String,
    pub(crate) seed: u64,
    pub(crate) trained: Trained,
    /// Nats per token of validation rows: exact, or an upper bound; flows have none.
    pub(crate) likelihood: Option<f64>,
    pub(crate) figures: Vec<Figures>,
}

/// The cost of a training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trained {
    /// Optimizer steps, evaluations of the network and seconds of the training alone.
    pub(crate) steps: u64,
    pub(crate) evaluations: u64,
    pub(crate) seconds: f64,
    pub(crate) used: Used,
    pub(crate) command: String,
    /// Commit of the project.
    pub(crate) commit: Option<String>,
    /// Trainings that shared the machine.
    pub(crate) jobs: usize,
}

impl Trained {
    /// The cost that a training's record tells.
    pub(crate) fn of(record: &Record) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Card {
            steps: u64,
            evaluations: u64,
            seconds: f64,
        }
        let card: Card = serde_json::from_value(record.answer.clone())
            .with_context(|| format!("the model card of `{}` has no training", record.command))?;
        Ok(Self {
            steps: card.steps,
            evaluations: card.evaluations,
            seconds: card.seconds,
            used: record.used,
            command: record.command.clone(),
            commit: record.commit.clone(),
            jobs: record.jobs,
        })
    }
}

/// Samples in a number of steps at a temperature, evaluated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) steps: usize,
    pub(crate) temperature: f64,
    pub(crate) samples: usize,
    /// Wall time of the whole command.
    pub(crate) seconds: Option<f64>,
    /// Share of sentences of the language, where it is known.
    pub(crate) valid: Option<f64>,
    pub(crate) nats_per_token: f64,
    pub(crate) entropy: f64,
    pub(crate) distinct: f64,
    pub(crate) command: String,
}

/// Entropies at which two curves are compared.
const PLACES: usize = 9;

/// A measure of quality.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) of: fn(&Figures) -> f64,
    /// 1 where more is better, −1 where less is.
    pub(crate) sign: f64,
    pub(crate) digits: usize,
}

/// Share of sentences of the language.
pub(crate) const VALID: Measure = Measure {
    name: "valid",
    unit: "points",
    of: |figures| 100.0 * figures.valid.unwrap_or(f64::NAN),
    sign: 1.0,
    digits: 1,
};

/// Cross-entropy under the exact distribution of the text, or under its scorer.
pub(crate) const NATS: Measure = Measure {
    name: "nats per token",
    unit: "nats",
    of: |figures| figures.nats_per_token,
    sign: -1.0,
    digits: 2,
};

/// Samples in this number of steps at temperature 1.
pub(crate) fn at(run: &Finished, steps: usize) -> Option<&Figures> {
    run.figures
        .iter()
        .find(|figures| figures.steps == steps && figures.temperature == 1.0)
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The lead of one model over another: the mean over seeds, and the seeds on which it leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lead {
    pub(crate) mean: f64,
    pub(crate) won: usize,
    pub(crate) seeds: usize,
}

impl Lead {
    fn of(leads: &[f64]) -> Option<Self> {
        (!leads.is_empty()).then(|| Self {
            mean: mean(leads),
            won: leads.iter().filter(|lead| **lead > 0.0).count(),
            seeds: leads.len(),
        })
    }
}

/// Runs of the same seed, one of each model.
fn pairs<'a>(runs: &'a [Finished], one: &str, other: &str) -> Vec<(&'a Finished, &'a Finished)> {
    let of =
        |name: &str| -> Vec<&Finished> { runs.iter().filter(|run| run.model == name).collect() };
    let others = of(other);
    let partner = |a: &&'a Finished| others.iter().copied().find(|b| b.seed == a.seed);
    let ones = of(one).into_iter();
    ones.filter_map(|a| Some((a, partner(&a)?))).collect()
}

/// The lead of the first over the second, each in its steps, at temperature 1.
pub(crate) fn lead(
    runs: &[Finished],
    (one, steps): (&str, usize),
    (other, others): (&str, usize),
    measure: Measure,
) -> Option<Lead> {
    let leads: Vec<f64> = pairs(runs, one, other)
        .into_iter()
        .filter_map(|(a, b)| {
            let difference = (measure.of)(at(a, steps)?) - (measure.of)(at(b, others)?);
            Some(measure.sign * difference)
        })
        .collect();
    Lead::of(&leads)
}

/// A lead at equal entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Matched {
    /// Over the `lead.seeds` seeds on which both reach a common entropy.
    pub(crate) lead: Lead,
    /// All seeds.
    pub(crate) of: usize,
    /// The smallest and the largest common entropy.
    pub(crate) range: (f64, f64),
}

/// The lead at equal entropy: the mean over all entropies that both reach at some temperature, or none.
pub(crate) fn matched(
    runs: &[Finished],
    (one, steps): (&str, usize),
    (other, others): (&str, usize),
    measure: Measure,
) -> Option<Matched> {
    let found: Vec<Option<Apart>> = pairs(runs, one, other)
        .into_iter()
        .map(|(a, b)| apart(&curve(a, steps, measure), &curve(b, others, measure)))
        .collect();
    let there = || found.iter().flatten();
    let leads: Vec<f64> = there().map(|apart| measure.sign * apart.by).collect();
    Some(Matched {
        lead: Lead::of(&leads)?,
        of: found.len(),
        range: (
            there().map(|apart| apart.low).fold(f64::INFINITY, f64::min),
            there()
                .map(|apart| apart.high)
                .fold(f64::NEG_INFINITY, f64::max),
        ),
    })
}

/// Entropy and quality at each temperature, by entropy.
fn curve(run: &Finished, steps: usize, measure: Measure) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = run
        .figures
        .iter()
        .filter(|figures| figures.steps == steps)
        .map(|figures| (figures.entropy, (measure.of)(figures)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The distance of two curves, and the entropies between which it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Apart {
    by: f64,
    low: f64,
    high: f64,
}

/// The mean difference of two curves over the entropies that both reach.
fn apart(one: &[(f64, f64)], other: &[(f64, f64)]) -> Option<Apart> {
    let ends = |curve: &[(f64, f64)]| Some((curve.first()?.0, curve.last()?.0));
    let ((a, b), (c, d)) = (ends(one)?, ends(other)?);
    let (low, high) = (a.max(c), b.min(d));
    if low > high {
        return None;
    }
    let places = (0..PLACES).map(|i| low + (high - low) * i as f64 / (PLACES - 1) as f64);
    let differences = places.map(|entropy| Some(read(one, entropy)? - read(other, entropy)?));
    let by = mean(&differences.collect::<Option<Vec<_>>>()?);
    Some(Apart { by, low, high })
}

/// A curve at an entropy, linear between its points.
fn read(curve: &[(f64, f64)], entropy: f64) -> Option<f64> {
    if let [(_, quality)] = curve {
        return Some(*quality);
    }
    curve.windows(2).find_map(|pair| {
        let [(low, first), (high, last)] = [pair[0], pair[1]];
        // Rounding may have moved the end of the range past the last point.
        let within = entropy >= low - 1e-12 && entropy <= high + 1e-12;
        let share = if high > low {
            (entropy - low) / (high - low)
        } else {
            0.0
        };
        within.then_some(first + share * (last - first))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn curves_are_compared_where_both_are() {
        let one = [(1.0, 10.0), (2.0, 20.0)];
        // Along the line of the first, five above it, and only from 1.5 on.
        let other = [(1.5, 20.0), (2.5, 30.0)];
        let found = apart(&one, &other).unwrap();
        assert!((found.by + 5.0).abs() < 1e-9);
        assert_eq!((found.low, found.high), (1.5, 2.0));
        assert_eq!(apart(&one, &[(2.1, 1.0), (3.0, 1.0)]), None);
        assert_eq!(apart(&one, &[]), None);
        // A model of one point is compared there.
        assert!((apart(&[(1.5, 18.0)], &one).unwrap().by - 3.0).abs() < 1e-9);
    }

    #[test]
    fn leads_are_of_the_same_seed() {
        let run = |model, seed, valid, entropy| made_up(model, seed, &[(1, valid, entropy)]);
        let runs = [
            run("a", 0, 0.30, 2.0),
            run("b", 0, 0.20, 2.0),
            run("a", 1, 0.10, 2.0),
            run("b", 1, 0.14, 1.0),
            run("a", 2, 0.10, 2.0),
        ];
        let found = lead(&runs, ("a", 1), ("b", 1), VALID).unwrap();
        assert!((found.mean - 3.0).abs() < 1e-9, "{found:?}");
        assert_eq!((found.won, found.seeds), (1, 2));
        // The second seed's curves have no entropy in common.
        let found = matched(&runs, ("a", 1), ("b", 1), VALID).unwrap();
        assert!((found.lead.mean - 10.0).abs() < 1e-9, "{found:?}");
        assert_eq!((found.lead.won, found.lead.seeds, found.of), (1, 1, 2));
        assert_eq!(found.range, (1.9, 2.0));
        assert_eq!(lead(&runs, ("a", 1), ("b", 8), VALID), None);
    }

    /// A run with a share of valid samples and an entropy at each number of steps. Half the
    /// temperature has five points more and 0.1 nats less entropy.
    pub(crate) fn made_up(model: &str, seed: u64, at: &[(usize, f64, f64)]) -> Finished {
        let figures = |&(steps, valid, entropy): &(usize, f64, f64)| {
            [1.0, 0.5].map(|temperature: f64| Figures {
                steps,
                temperature,
                samples: 1,
                seconds: Some(1.0),
                valid: Some(valid + 0.1 * (1.0 - temperature)),
                nats_per_token: 5.0 - valid - 0.1 * (1.0 - temperature),
                entropy: entropy - 0.2 * (1.0 - temperature),
                distinct: 1.0,
                command: String::new(),
            })
        };
        Finished {
            model: model.to_owned(),
            seed,
            trained: Trained {
                steps: 1,
                evaluations: 1,
                seconds: 1.0,
                used: Used::default(),
                command: String::new(),
                commit: None,
                jobs: 1,
            },
            likelihood: None,
            figures: at.iter().flat_map(figures).collect(),
        }
    }
}
