//! Trainable networks.

use burn::module::{AutodiffModule, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::Dit;

/// A network without gradients, for averaged weights, teachers and validation.
pub type Inner<B, N> = <N as AutodiffModule<B>>::InnerModule;

/// A trainable network.
pub trait Network<B: AutodiffBackend>: AutodiffModule<B, InnerModule: Sync> + Sync {
    /// Returns the matrices that Muon updates, always in the same order; AdamW updates every
    /// other parameter.
    fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        Vec::new()
    }
}

impl<B: AutodiffBackend> Network<B> for Dit<B> {
    fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        Dit::matrices(self)
    }
}

/// Makes a network whose parameters require gradients from one without.
pub fn trainable<B: AutodiffBackend, N: Network<B>>(network: Inner<B, N>) -> N {
    N::from_inner(network).map(&mut RequireGrad)
}

struct RequireGrad;

impl<B: AutodiffBackend> ModuleMapper<B> for RequireGrad {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.require_grad(), mapper)
    }
}
