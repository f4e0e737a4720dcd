//! From gradients to weight updates: averaging, clipping, AdamW and Muon.

mod adamw;
mod muon;

use crate::config::{OptimizerConfig, OptimizerKind};
use crate::workers::Workers;
use adamw::FusedAdamW;
use burn::module::{ModuleVisitor, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, Optimizer};
use burn::record::{FileRecorder, Recorder, RecorderError};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use flm_objective::Network;
use muon::MatrixMuon;
use std::marker::PhantomData;
use std::path::Path;

/// ε of AdamW, PyTorch's default.
const EPSILON: f64 = 1e-8;

/// AdamW for every parameter, or Muon for the matrices and AdamW for the rest.
pub(crate) struct Optimizers<B: AutodiffBackend, N: Network<B>> {
    adamw: OptimizerAdaptor<FusedAdamW, N, B>,
    muon: Option<MatrixMuon<B::InnerBackend>>,
    config: OptimizerConfig,
}

impl<B: AutodiffBackend, N: Network<B>> Optimizers<B, N> {
    pub(crate) fn new(config: &OptimizerConfig) -> Self {
        let adamw = FusedAdamW {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: EPSILON,
            weight_decay: config.weight_decay,
        }
        .into();
        let muon =
            (config.kind == OptimizerKind::Muon).then(|| MatrixMuon::new(config.weight_decay));
        Self {
            adamw,
            muon,
            config: config.clone(),
        }
    }

    /// Creates the optimizers of an auxiliary network, with the learning rates multiplied
    /// by `rate`.
    pub(crate) fn beside(config: &OptimizerConfig, rate: f64) -> Self {
        Self::new(&OptimizerConfig {
            lr: config.lr * rate,
            muon_lr: config.muon_lr * rate,
            ..config.clone()
        })
    }

    /// Updates the model from gradients that are already averaged and clipped; learning rates are
    /// multiplied by `factor`.
    pub(crate) fn step(
        &mut self,
        mut model: N,
        mut grads: GradientsParams,
        factor: f64,
        workers: &Workers,
    ) -> N {
        if let Some(muon) = &mut self.muon {
            model = muon.step(self.config.muon_lr * factor, model, &mut grads, workers);
        }
        self.adamw.step(self.config.lr * factor, model, grads)
    }

    pub(crate) fn save<R: FileRecorder<B> + FileRecorder<B::InnerBackend>>(
        &self,
        folder: &Path,
        prefix: &str,
        recorder: &R,
    ) -> Result<(), RecorderError> {
        let file = |name: &str| folder.join(format!("{prefix}{name}"));
        Recorder::<B>::record(recorder, self.adamw.to_record(), file("adamw"))?;
        if let Some(muon) = &self.muon {
            muon.save(file("muon"), recorder)?;
        }
        Ok(())
    }

    pub(crate) fn load<R: FileRecorder<B> + FileRecorder<B::InnerBackend>>(
        mut self,
        folder: &Path,
        prefix: &str,
        recorder: &R,
        device: &B::Device,
    ) -> Result<Self, RecorderError> {
        let file = |name: &str| folder.join(format!("{prefix}{name}"));
        self.adamw = self
            .adamw
            .load_record(Recorder::<B>::load(recorder, file("adamw"), device)?);
        if let Some(muon) = &mut self.muon {
            muon.load(file("muon"), recorder, device)?;
        }
        Ok(self)
    }
}

/// Sums the gradients of a step's parts in their order and scales the sum so that its norm is at
/// most `clip`. Also returns the norm before clipping.
pub(crate) fn combine<B: AutodiffBackend, N: Network<B>>(
    model: &N,
    parts: Vec<GradientsParams>,
    clip: f64,
) -> (GradientsParams, f64) {
    let mut sum = Sum {
        parts,
        total: GradientsParams::new(),
        squares: Vec::new(),
        backend: PhantomData::<B>,
    };
    model.visit(&mut sum);
    let norm = sum.norm();
    if norm <= clip || !norm.is_finite() {
        return (sum.total, norm);
    }
    let mut scale = Scale {
        from: sum.total,
        to: GradientsParams::new(),
        by: clip / norm,
        backend: PhantomData::<B>,
    };
    model.visit(&mut scale);
    (scale.to, norm)
}

struct Sum<B: AutodiffBackend> {
    parts: Vec<GradientsParams>,
    total: GradientsParams,
    squares: Vec<Tensor<B::InnerBackend, 1>>,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> Sum<B> {
    /// Returns the norm of all gradients together. It is read once: a GPU would synchronize at
    /// every parameter.
    fn norm(&mut self) -> f64 {
        let squares = std::mem::take(&mut self.squares);
        if squares.is_empty() {
            return 0.0;
        }
        let squares = Tensor::cat(squares, 0).into_data();
        squares.iter::<f64>().sum::<f64>().sqrt()
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Sum<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let grads = self
            .parts
            .iter_mut()
            .filter_map(|part| part.remove::<B::InnerBackend, D>(param.id));
        if let Some(total) = grads.reduce(|a, b| a + b) {
            self.squares.push(flm_ops::sum_of_squares(total.clone()));
            self.total.register(param.id, total);
        }
    }
}

struct Scale<B> {
    from: GradientsParams,
    to: GradientsParams,
    by: f64,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.from.remove::<B::InnerBackend, D>(param.id) {
            self.to.register(param.id, flm_ops::scale(grad, self.by));
        }
    }
}
