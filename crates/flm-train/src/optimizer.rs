//! From gradients to steps: averaging, clipping, AdamW and Muon.

use crate::config::{OptimizerConfig, OptimizerKind};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdamW, AdamWConfig, AdjustLrFn, GradientsParams, Muon, MuonConfig, Optimizer};
use burn::record::{FileRecorder, RecorderError};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use flm_denoiser::Dit;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::path::Path;

/// ε of AdamW, PyTorch's default.
const EPSILON: f32 = 1e-8;

/// AdamW for every parameter, or Muon for the matrices of the blocks and AdamW for the rest.
pub(crate) struct Optimizers<B: AutodiffBackend> {
    adamw: OptimizerAdaptor<AdamW, Dit<B>, B>,
    muon: Option<OptimizerAdaptor<Muon<B::InnerBackend>, Dit<B>, B>>,
    config: OptimizerConfig,
}

impl<B: AutodiffBackend> Optimizers<B> {
    pub(crate) fn new(config: &OptimizerConfig) -> Self {
        let adamw = AdamWConfig::new()
            .with_beta_1(config.beta1 as f32)
            .with_beta_2(config.beta2 as f32)
            .with_epsilon(EPSILON)
            .with_weight_decay(config.weight_decay as f32)
            .init();
        let muon = (config.kind == OptimizerKind::Muon).then(|| {
            MuonConfig::new()
                .with_weight_decay(Some(WeightDecayConfig::new(config.weight_decay as f32)))
                .with_adjust_lr_fn(AdjustLrFn::Original)
                .init()
        });
        Self {
            adamw,
            muon,
            config: config.clone(),
        }
    }

    /// Moves the model along gradients that are already averaged and clipped; learning rates are multiplied by `factor`.
    pub(crate) fn step(
        &mut self,
        mut model: Dit<B>,
        mut grads: GradientsParams,
        factor: f64,
    ) -> Dit<B> {
        if let Some(muon) = &mut self.muon {
            // Asked anew: a model loaded from a checkpoint brings the identities it was saved with.
            let matrices: HashSet<ParamId> = model.block_matrices().into_iter().collect();
            let mut split = Split {
                ids: &matrices,
                from: &mut grads,
                to: GradientsParams::new(),
                backend: PhantomData::<B>,
            };
            model.visit(&mut split);
            let matrices = split.to;
            model = muon.step(self.config.muon_lr * factor, model, matrices);
        }
        self.adamw.step(self.config.lr * factor, model, grads)
    }

    pub(crate) fn save<R: FileRecorder<B>>(
        &self,
        folder: &Path,
        recorder: &R,
    ) -> Result<(), RecorderError> {
        recorder.record(self.adamw.to_record(), folder.join("adamw"))?;
        if let Some(muon) = &self.muon {
            recorder.record(muon.to_record(), folder.join("muon"))?;
        }
        Ok(())
    }

    pub(crate) fn load<R: FileRecorder<B>>(
        mut self,
        folder: &Path,
        recorder: &R,
        device: &B::Device,
    ) -> Result<Self, RecorderError> {
        self.adamw = self
            .adamw
            .load_record(recorder.load(folder.join("adamw"), device)?);
        if let Some(muon) = self.muon.take() {
            self.muon = Some(muon.load_record(recorder.load(folder.join("muon"), device)?));
        }
        Ok(self)
    }
}

/// Adds up the gradients of a step's parts in their order, scales the sum so that its norm is at most `clip`, and returns it
/// with the norm before clipping.
pub(crate) fn combine<B: AutodiffBackend>(
    model: &Dit<B>,
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
    let norm = sum.squares.iter().sum::<f64>().sqrt();
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

struct Sum<B> {
    parts: Vec<GradientsParams>,
    total: GradientsParams,
    squares: Vec<f64>,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Sum<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let grads = self
            .parts
            .iter_mut()
            .filter_map(|part| part.remove::<B::InnerBackend, D>(param.id));
        if let Some(total) = grads.reduce(|a, b| a + b) {
            self.squares.push(square(&total));
            self.total.register(param.id, total);
        }
    }
}

/// ‖x‖², added up on the device and read once.
fn square<B: Backend, const D: usize>(x: &Tensor<B, D>) -> f64 {
    (x.clone() * x.clone()).sum().into_scalar().elem()
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
            self.to.register(param.id, grad.mul_scalar(self.by));
        }
    }
}

struct Split<'a, B> {
    ids: &'a HashSet<ParamId>,
    from: &'a mut GradientsParams,
    to: GradientsParams,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Split<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.ids.contains(&param.id)
            && let Some(grad) = self.from.remove::<B::InnerBackend, D>(param.id)
        {
            self.to.register(param.id, grad);
        }
    }
}
