//! Muon for the matrices of a network.

use crate::workers::Workers;
use burn::module::{ModuleMapper, Param, ParamId};
use burn::optim::momentum::{Momentum, MomentumConfig};
use burn::optim::{GradientsParams, MuonState};
use burn::record::{FileRecorder, RecorderError};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_objective::Network;
use std::collections::HashMap;
use std::path::PathBuf;

/// Newton–Schulz steps per orthogonalization. burn's default is 5; 3 steps need three fifths of the
/// products. The effect on the loss is not settled: after 600 steps of 4 blocks of width 160 it was
/// 0.920 with 3 (learning rate 0.04) and 0.921 with 5 (0.05), one run each.
const NEWTON_SCHULZ_STEPS: usize = 3;

/// Coefficient of the Nesterov momentum.
const MOMENTUM: f64 = 0.95;
/// Largest number of entries that are orthogonalized together. Larger matrices fill a device by
/// themselves, and intermediate results take five times as much memory.
const TOGETHER: usize = 1 << 24;

/// [Muon](https://kellerjordan.github.io/posts/muon/) with its momenta, in the order of
/// [`Network::matrices`].
///
/// burn's Muon takes one matrix at a time, with about nine small products per orthogonalization.
/// On the host, two cores cannot share these products well, so workers take whole matrices
/// instead. On a device the products are too small to be worth a launch, so matrices of one shape
/// are processed together.
pub(super) struct MatrixMuon<B: Backend> {
    momentum: Momentum<B>,
    weight_decay: f64,
    momenta: Vec<Option<MuonState<B, 2>>>,
}

/// A matrix and its gradient.
struct Job<B: Backend> {
    id: ParamId,
    /// Its index among all matrices.
    place: usize,
    matrix: Tensor<B, 2>,
    grad: Tensor<B, 2>,
}

/// An updated matrix and its momentum.
type Moved<B> = (Tensor<B, 2>, MuonState<B, 2>);

impl<B: Backend> MatrixMuon<B> {
    pub(super) fn new(weight_decay: f64) -> Self {
        let momentum = MomentumConfig {
            momentum: MOMENTUM,
            dampening: 0.0,
            nesterov: true,
        };
        Self {
            momentum: Momentum::new(&momentum),
            weight_decay,
            momenta: Vec::new(),
        }
    }

    /// Updates the matrices and removes their gradients from `grads`.
    pub(super) fn step<A: AutodiffBackend<InnerBackend = B>, N: Network<A>>(
        &mut self,
        lr: f64,
        model: N,
        grads: &mut GradientsParams,
        workers: &Workers,
    ) -> N {
        let matrices = model.matrices();
        self.momenta.resize_with(matrices.len(), || None);
        let jobs = matrices
            .into_iter()
            .enumerate()
            .filter_map(|(place, (id, matrix))| {
                Some(Job {
                    id,
                    place,
                    matrix: matrix.inner(),
                    grad: grads.remove::<B, 2>(id)?,
                })
            });
        let groups = if flm_ops::on_host::<B>() {
            jobs.map(|job| vec![job]).collect()
        } else {
            by_shape(jobs)
        };
        let moved = workers.map(groups.len(), |i| self.together(lr, &groups[i]));
        let mut replace = Replace {
            matrices: HashMap::new(),
        };
        let jobs = groups.iter().flatten();
        for (job, (matrix, momentum)) in jobs.zip(moved.into_iter().flatten()) {
            self.momenta[job.place] = Some(momentum);
            replace.matrices.insert(job.id, matrix);
        }
        model.map(&mut replace)
    }

    /// Updates matrices of one shape.
    fn together(&self, lr: f64, jobs: &[Job<B>]) -> Vec<Moved<B>> {
        let (ahead, momenta): (Vec<_>, Vec<_>) = jobs
            .iter()
            .map(|job| {
                let before = self.momenta[job.place].clone();
                let before = before.map(|state| state.momentum);
                self.momentum.transform(job.grad.clone(), before)
            })
            .unzip();
        let ahead = Tensor::stack::<3>(ahead, 0);
        let [_, rows, columns] = ahead.dims();
        let stretch = (rows as f64 / columns as f64).max(1.0).sqrt();
        let steps = flm_ops::orthogonal(ahead, NEWTON_SCHULZ_STEPS).mul_scalar(lr * stretch);
        std::iter::zip(jobs, momenta)
            .enumerate()
            .map(|(i, (job, momentum))| {
                let step = steps.clone().narrow(0, i, 1).squeeze_dim(0);
                let kept = job.matrix.clone().mul_scalar(1.0 - lr * self.weight_decay);
                (kept - step, MuonState::new(momentum))
            })
            .collect()
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

/// Groups jobs by matrix shape, up to [`TOGETHER`] entries per group, in order of first appearance.
fn by_shape<B: Backend>(jobs: impl Iterator<Item = Job<B>>) -> Vec<Vec<Job<B>>> {
    let mut groups: Vec<Vec<Job<B>>> = Vec::new();
    for job in jobs {
        let [rows, columns] = job.matrix.dims();
        match groups.iter_mut().find(|group| {
            group[0].matrix.dims() == [rows, columns]
                && (group.len() + 1) * rows * columns <= TOGETHER
        }) {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    groups
}

/// Replaces matrices by their updated values.
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::optim::decay::WeightDecayConfig;
    use burn::optim::{MuonConfig, SimpleOptimizer};
    use burn_flex::Flex;
    use flm_simplex::noise::gaussian;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn jobs(shapes: &[[usize; 2]], seed: u64) -> Vec<Job<Flex>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn = |shape| gaussian(shape, &mut rng, &Default::default());
        let job = |(place, shape): (usize, &[usize; 2])| Job {
            id: ParamId::new(),
            place,
            matrix: drawn(*shape),
            grad: drawn(*shape),
        };
        shapes.iter().enumerate().map(job).collect()
    }

    #[test]
    fn matrices_of_a_shape_together_move_as_burns_muon_moves_each() {
        let burns = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(0.1)))
            .with_ns_steps(NEWTON_SCHULZ_STEPS)
            .build::<Flex>();
        let shapes = [[5, 9], [9, 5], [5, 9], [9, 5], [5, 5]];
        let mut muon = MatrixMuon::<Flex>::new(0.1);
        muon.momenta.resize_with(shapes.len(), || None);
        let mut states = vec![None; shapes.len()];
        // The second step has the momentum of the first.
        for seed in [1, 2] {
            let groups = by_shape(jobs(&shapes, seed).into_iter());
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
            for group in groups {
                let moved = muon.together(0.02, &group);
                for (job, (found, momentum)) in group.into_iter().zip(moved) {
                    muon.momenta[job.place] = Some(momentum);
                    let state = states[job.place].take();
                    let before = job.matrix.clone();
                    let (expected, state) = burns.step(0.02, job.matrix, job.grad, state);
                    states[job.place] = state;
                    let error: f32 = (found - expected.clone()).abs().max().into_scalar();
                    let moved: f32 = (expected - before).abs().max().into_scalar();
                    assert!(error < 1e-5 * moved, "{error} of {moved}");
                }
            }
        }
    }
}
