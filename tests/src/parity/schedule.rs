//! Tables of the time schedule, for any vocabulary.

use super::{Parity, Verdict, worst};
use burn::tensor::backend::AutodiffBackend;
use flm_simplex::Schedule;

/// Tolerance for times: an f32 time embedding cannot distinguish smaller differences.
pub(super) const TIME: f64 = 1e-6;

impl<B: AutodiffBackend> Parity<B> {
    /// Compares a table at 0, 1/n, …, 1.
    pub(super) fn table(&self, name: &str) -> Option<Verdict> {
        let (what, vocabulary) = name.split_once('.')?;
        let schedule = Schedule::new(vocabulary.parse().ok()?).ok()?;
        let expected = match what {
            "tau_of_t" | "t_of_tau" => self.expected.doubles(name),
            _ => return None,
        };
        let last = (expected.len() - 1) as f64;
        let error = expected.iter().enumerate().map(|(i, expected)| {
            let at = i as f64 / last;
            let found = match what {
                "tau_of_t" => schedule.tau_of_t(at),
                _ => schedule.t_of_tau(at),
            };
            (found - expected).abs()
        });
        Some(Verdict::Numbers {
            error: worst(error),
            tolerance: TIME,
        })
    }
}
