//! Comparison with the pinned numbers of the published implementation.
//!
//! [`Parity`] computes each tensor of `expected.safetensors` and `flow_map.safetensors` and reports
//! the difference in a [`Line`]. The fixtures set the sizes and the seed. The tests and
//! `cargo xtask parity` both use it.

pub mod discrete;
mod flow_map;
mod losses;
mod network;
mod samples;
mod schedule;
mod source;
mod text;

pub use losses::{as_published, rows};
pub use source::{Convert, Models, Source, convert};
pub use text::text;

use crate::fixture::{Fixture, relative_error};
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::{Dit, Execution};
use flm_simplex::Schedule;
use std::fmt;

/// Tolerance for f32 numbers.
///
/// The two implementations add the same few hundred terms in different orders, through a few
/// blocks. Rounding of 6e-8 grows to 1e-6 or 3e-6; a wrong constant or a wrong ε shows at 1e-3.
pub(crate) const ANSWER: f64 = 2e-5;
/// Tolerance for losses, whose targets chain two network evaluations, and for their gradients.
const LOSS: f64 = 1e-4;

/// The result for one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The tensor's name.
    pub name: String,
    /// The outcome of the comparison.
    pub verdict: Verdict,
}

/// The outcome of comparing a tensor with ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Numbers: the largest difference relative to the largest expected value, and its tolerance.
    Numbers {
        /// The difference.
        error: f64,
        /// The tolerance.
        tolerance: f64,
    },
    /// Tokens or texts: the total, the number that differ although one was clearly the most likely,
    /// and the number that differ where two were equally likely.
    Tokens {
        /// The number of tokens.
        count: usize,
        /// The number that differ.
        wrong: usize,
        /// The number that differ where the two best probabilities are within the tolerance.
        ties: usize,
    },
    /// An input of the networks, not a result.
    Input,
    /// Not compared, for this reason.
    Skipped(&'static str),
    /// No check exists for a tensor of this name.
    Unknown,
}

impl Line {
    /// Returns whether the tensor agrees or need not be compared.
    pub fn holds(&self) -> bool {
        match self.verdict {
            // NaN fails this comparison.
            Verdict::Numbers { error, tolerance } => error <= tolerance,
            Verdict::Tokens { wrong, .. } => wrong == 0,
            Verdict::Input | Verdict::Skipped(_) => true,
            Verdict::Unknown => false,
        }
    }
}

/// Compares numbers with the expected ones.
fn numbers(found: &[f32], expected: &[f32], tolerance: f64) -> Verdict {
    Verdict::Numbers {
        error: relative_error(found, expected),
        tolerance,
    }
}

/// Returns the largest error; NaN counts as infinity.
fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    let larger = |worst: f64, error: f64| {
        if error.is_nan() {
            f64::INFINITY
        } else {
            worst.max(error)
        }
    };
    errors.into_iter().fold(0.0, larger)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Input | Verdict::Skipped(_) => "  ",
            _ if self.holds() => "ok",
            _ => "NO",
        };
        write!(f, "{mark} {:44} ", self.name)?;
        match &self.verdict {
            Verdict::Numbers { error, tolerance } => {
                write!(f, "{error:.1e}, at most {tolerance:.0e}")
            }
            Verdict::Tokens { count, wrong, ties } => {
                write!(f, "{wrong} of {count} differ, and {ties} near ties")
            }
            Verdict::Input => f.write_str("input"),
            Verdict::Skipped(reason) => write!(f, "not compared: {reason}"),
            Verdict::Unknown => f.write_str("no check for this tensor"),
        }
    }
}

/// The networks of a residual flow map: the denoiser D, and the trained g.
type TwoNetworks<B> = (Dit<<B as AutodiffBackend>::InnerBackend>, Dit<B>);

/// The fixtures and their networks.
pub struct Parity<B: AutodiffBackend> {
    /// The tensors of `expected.safetensors`.
    pub expected: Fixture,
    /// The tensors of `flow_map.safetensors`.
    pub map_file: Fixture,
    flow: Option<Dit<B>>,
    flow_map: Option<Dit<B>>,
    residual: Option<TwoNetworks<B>>,
    schedule: Schedule,
}

/// Inputs of the networks. Other tensors are computed from them, so they are not compared.
const INPUTS: [&str; 14] = [
    "noise",
    "pair_tau_s",
    "pair_tau_t",
    "residual_boundary_uniform",
    "residual_d",
    "residual_uniform",
    "row_kind",
    "row_tau_s",
    "row_tau_t",
    "tau",
    "tau_s",
    "tau_t",
    "tokens",
    "z0",
];

impl<B: AutodiffBackend> Parity<B> {
    /// Reads fixtures and networks.
    ///
    /// # Errors
    ///
    /// A message if a file or a model is missing or invalid.
    pub fn open(source: &Source) -> Result<Self, String> {
        let (expected, map_file) = source.fixtures()?;
        Ok(Self {
            flow: source.flow()?,
            flow_map: source.flow_map()?,
            residual: source.residual()?,
            schedule: source.schedule()?,
            expected,
            map_file,
        })
    }

    /// Sets how the networks are evaluated.
    pub fn with_execution(self, execution: Execution) -> Self {
        Self {
            flow: self.flow.map(|model| model.with_execution(execution)),
            flow_map: self.flow_map.map(|model| model.with_execution(execution)),
            residual: self.residual.map(|(denoiser, second)| {
                let denoiser = denoiser.with_execution(execution);
                (denoiser, second.with_execution(execution))
            }),
            ..self
        }
    }

    /// Compares every tensor, ordered by file and name.
    pub fn lines(&self) -> Vec<Line> {
        let of_expected = self.expected.0.keys().map(|name| self.of_expected(name));
        let of_map = self.map_file.0.keys().map(|name| self.of_map(name));
        of_expected.chain(of_map).collect()
    }

    /// Compares a tensor of `expected.safetensors`.
    pub fn of_expected(&self, name: &str) -> Line {
        let known = (self.table(name))
            .or_else(|| self.answer(name))
            .or_else(|| self.gradient(name))
            .or_else(|| self.sample(name))
            .or_else(|| self.loss(name));
        line(name, known)
    }

    /// Compares a tensor of `flow_map.safetensors`.
    pub fn of_map(&self, name: &str) -> Line {
        line(name, self.along_the_map(name))
    }
}

fn line(name: &str, known: Option<Verdict>) -> Line {
    let input = INPUTS.contains(&name) || name.starts_with("fresh_noise_");
    line_of(name, known, input)
}

/// Builds the line of a tensor that is compared, an input, or unknown.
fn line_of(name: &str, known: Option<Verdict>, input: bool) -> Line {
    Line {
        name: name.to_owned(),
        verdict: known.unwrap_or(if input {
            Verdict::Input
        } else {
            Verdict::Unknown
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, numbers, worst};

    #[test]
    fn what_is_not_a_number_never_agrees() {
        for pair in [
            [f32::NAN, 1.0],
            [1.0, f32::NAN],
            [f32::INFINITY, 1.0],
            [1.0, f32::INFINITY],
        ] {
            let line = Line {
                name: "x".to_owned(),
                verdict: numbers(&[pair[0], 2.0], &[pair[1], 2.0], 1.0),
            };
            assert!(!line.holds(), "{line}");
        }
        assert_eq!(worst([0.5, f64::NAN, 1e-9]), f64::INFINITY);
        assert_eq!(worst([0.5, 1e-9]), 0.5);
    }
}
