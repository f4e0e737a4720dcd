//! Step reports, and checks that parameters are finite.

use crate::checkpoint::Tensors;
use crate::metrics::{Line, StepReport, Sums};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use flm_objective::{Losses, Network};
use std::time::Instant;

/// Names of the losses in the quarters of τ, which are reported alongside the total of a flow.
const QUARTERS: [&str; 4] = ["tau_1", "tau_2", "tau_3", "tau_4"];

/// Returns the sums and counts of row losses and of diagnostics by name, and (τ, loss) of each row
/// that has a τ.
pub(super) fn by_name<B: AutodiffBackend>(losses: Losses<B>) -> ([Sums; 2], Vec<(f64, f64)>) {
    let rows = losses.per_token.mean_dim(1).into_data();
    let by_tau: Vec<(f64, f64)> = losses.taus.into_iter().zip(rows.iter()).collect();
    let (mut sums, mut diagnostics) = (Sums::new(), Sums::new());
    let add = |sums: &mut Sums, name, sum: f64, count: f64| {
        let entry = sums.entry(name).or_insert((0.0, 0.0));
        entry.0 += sum;
        entry.1 += count;
    };
    for (name, loss) in losses.names.into_iter().zip(rows.iter::<f64>()) {
        add(&mut sums, name, loss, 1.0);
    }
    for (tau, loss) in &by_tau {
        let quarter = ((tau * 4.0) as usize).min(3);
        add(&mut diagnostics, QUARTERS[quarter], *loss, 1.0);
    }
    for measured in losses.diagnostics {
        add(
            &mut diagnostics,
            measured.name,
            measured.sum,
            measured.count,
        );
    }
    ([sums, diagnostics], by_tau)
}

/// Totals since the last line of metrics.
pub(super) struct Progress {
    since: Instant,
    loss: f64,
    steps: u64,
}

impl Progress {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            loss: 0.0,
            steps: 0,
        }
    }

    pub(super) fn add(&mut self, report: &StepReport) {
        self.loss += report.loss;
        self.steps += 1;
    }

    pub(super) fn report(
        &self,
        last: &StepReport,
        step: u64,
        steps: u64,
        seconds: f64,
        tokens: usize,
    ) -> Line {
        let elapsed = self.since.elapsed().as_secs_f64();
        Line {
            step,
            steps,
            loss: self.loss / self.steps as f64,
            last: last.clone(),
            seconds,
            tokens_per_second: (self.steps as usize * tokens) as f64 / elapsed,
        }
    }
}

impl<B: AutodiffBackend, N: Network<B>> Tensors<B, N> {
    /// Returns whether every parameter of every network is finite.
    pub(super) fn are_finite(&self) -> bool {
        let auxiliary = self.auxiliary.as_ref();
        is_finite(&self.model.valid())
            && is_finite(&self.ema)
            && auxiliary.is_none_or(|auxiliary| is_finite(&auxiliary.network.valid()))
    }
}

/// Returns whether every parameter is finite.
fn is_finite<B: Backend, M: Module<B>>(module: &M) -> bool {
    struct Finite(bool);
    impl<B: Backend> ModuleVisitor<B> for Finite {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 = self.0 && param.val().is_finite().all().into_scalar().elem();
        }
    }
    let mut finite = Finite(true);
    module.visit(&mut finite);
    finite.0
}
