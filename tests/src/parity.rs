//! Every golden check on the numbers of the published implementation.
//!
//! [`Parity`] looks at each tensor of `expected.safetensors` and `flow_map.safetensors`, computes what it should be, and says in a
//! [`Line`] how far the two are apart. Sizes and seed are the fixtures' own. The tests and `cargo xtask parity` call it alike.

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

/// Agreement asked of f32 numbers: two implementations add the same few hundred terms in other orders through a few blocks.
/// Rounding of 6e-8 grows to 1e-6 or 3e-6 on the way; a wrong constant or a wrong ε shows at 1e-3.
pub(crate) const ANSWER: f64 = 2e-5;
/// The same for losses, whose targets are answers about answers of networks, and for their gradients.
const LOSS: f64 = 1e-4;

/// What was found for one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The tensor's name.
    pub name: String,
    /// How it compares.
    pub verdict: Verdict,
}

/// How a tensor compares with ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Numbers: the largest difference relative to the largest expected value, and what is allowed.
    Numbers {
        /// The difference.
        error: f64,
        /// The tolerance.
        tolerance: f64,
    },
    /// Tokens, or texts: how many there are, how many differ although one was clearly the likeliest, and how many where two were as likely.
    Tokens {
        /// All tokens.
        count: usize,
        /// Those that differ.
        wrong: usize,
        /// Those that differ where the two best logits are nearer than the tolerance.
        ties: usize,
    },
    /// It is given to the networks, not made by them.
    Input,
    /// It cannot be compared, and why.
    Skipped(&'static str),
    /// There is no check for a tensor of this name.
    Unknown,
}

impl Line {
    /// Whether the tensor agrees, or need not.
    pub fn holds(&self) -> bool {
        match self.verdict {
            // Not a number is not below any tolerance.
            Verdict::Numbers { error, tolerance } => error <= tolerance,
            Verdict::Tokens { wrong, .. } => wrong == 0,
            Verdict::Input | Verdict::Skipped(_) => true,
            Verdict::Unknown => false,
        }
    }
}

/// Numbers as they compare with the expected ones.
fn numbers(found: &[f32], expected: &[f32], tolerance: f64) -> Verdict {
    Verdict::Numbers {
        error: relative_error(found, expected),
        tolerance,
    }
}

/// The largest of some errors; what is not a number is larger than any.
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
            Verdict::Unknown => f.write_str("no check knows this tensor"),
        }
    }
}

/// The networks of a residual flow map: what answers D, and g, which is trained.
type TwoNetworks<B> = (Dit<<B as AutodiffBackend>::InnerBackend>, Dit<B>);

/// The fixtures, and the networks that they are of.
pub struct Parity<B: AutodiffBackend> {
    /// `expected.safetensors`
    pub expected: Fixture,
    /// `flow_map.safetensors`
    pub map_file: Fixture,
    flow: Option<Dit<B>>,
    flow_map: Option<Dit<B>>,
    residual: Option<TwoNetworks<B>>,
    schedule: Schedule,
}

/// KnownTokens to the networks. Whoever changes one changes what is made of it.
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
    /// A sentence, if a file or a model is not there or not what it should be.
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

    /// The same with networks that are evaluated in this way.
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

    /// Compares every tensor, in the order of the files and names.
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

/// A tensor that is compared, or given, or of which nobody knows.
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
