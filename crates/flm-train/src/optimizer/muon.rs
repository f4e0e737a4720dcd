//! Muon for the matrices of a network.

use crate::workers::Workers;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdjustLrFn, GradientsParams, Muon, MuonConfig, MuonState, SimpleOptimizer};
use burn::record::{FileRecorder, RecorderError};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::Dit;
use std::collections::HashMap;
use std::path::PathBuf;

/// Newton–Schulz steps of an orthogonalization: burn's default is 5, and 3 take three fifths of the products. What that costs is not settled: after
/// 600 steps of 4 blocks of width 160 the loss was 0.920 with 3 (learning rate 0.04) and 0.921 with 5 (0.05), one run each.
const NEWTON_SCHULZ_STEPS: usize = 3;

/// Muon with its momenta, in the order of [`Dit::matrices`].
///
/// Each matrix is orthogonalized by some nine small products, which two cores cannot share well: the workers take whole
/// matrices instead.
pub(super) struct MatrixMuon<B: Backend> {
    muon: Muon<B>,
    momenta: Vec<Option<MuonState<B, 2>>>,
}

impl<B: Backend> MatrixMuon<B> {
    pub(super) fn new(weight_decay: f32) -> Self {
        let muon = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(weight_decay)))
            .with_adjust_lr_fn(AdjustLrFn::Original)
            .with_ns_steps(NEWTON_SCHULZ_STEPS)
            .build();
        Self {
            muon,
            momenta: Vec::new(),
        }
    }

    /// Moves the matrices and takes their gradients out of `grads`.
    pub(super) fn step<A: AutodiffBackend<InnerBackend = B>>(
        &mut self,
        lr: f64,
        model: Dit<A>,
        grads: &mut GradientsParams,
        workers: &Workers,
    ) -> Dit<A> {
        let matrices = model.matrices();
        self.momenta.resize_with(matrices.len(), || None);
        let jobs: Vec<_> = matrices
            .into_iter()
            .map(|(id, matrix)| (id, matrix.inner(), grads.remove::<B, 2>(id)))
            .collect();
        let moved = workers.map(jobs.len(), |i| {
            let (_, matrix, grad) = &jobs[i];
            let grad = grad.clone()?;
            Some(
                self.muon
                    .step(lr, matrix.clone(), grad, self.momenta[i].clone()),
            )
        });
        let mut replace = Replace {
            matrices: HashMap::new(),
        };
        for (i, moved) in moved.into_iter().enumerate() {
            if let Some((matrix, momentum)) = moved {
                self.momenta[i] = momentum;
                replace.matrices.insert(jobs[i].0, matrix);
            }
        }
        model.map(&mut replace)
    }

    pub(super) fn save<R: FileRecorder<B>>(
        &self,
        path: PathBuf,
        recorder: &R,
    ) -> Result<(), RecorderError> {
        recorder.record(self.momenta.clone(), path)
    }

    pub(super) fn load<R: FileRecorder<B>>(
        &mut self,
        path: PathBuf,
        recorder: &R,
        device: &B::Device,
    ) -> Result<(), RecorderError> {
        self.momenta = recorder.load(path, device)?;
        Ok(())
    }
}

/// Puts moved matrices in the place of those they were made from.
struct Replace<B: Backend> {
    matrices: HashMap<ParamId, Tensor<B, 2>>,
}

impl<A: AutodiffBackend> ModuleMapper<A> for Replace<A::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let Some(moved) = self.matrices.remove(&param.id) else {
            return param;
        };
        let (id, old, mapper) = param.consume();
        let moved = Tensor::from_inner(Tensor::from_primitive(moved.into_primitive()));
        Param::from_mapped_value(id, moved.set_require_grad(old.is_require_grad()), mapper)
    }
}
