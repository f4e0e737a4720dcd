//! Networks that can be trained.

use burn::module::{AutodiffModule, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use flm_denoiser::Dit;

/// The network without gradients: of averaged weights, teachers and validation.
pub type Inner<B, N> = <N as AutodiffModule<B>>::InnerModule;

/// A network that can be trained.
pub trait Network<B: AutodiffBackend>: AutodiffModule<B, InnerModule: Sync> + Sync {
    /// The matrices that Muon moves, always in the same order; AdamW moves every other parameter.
    fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        Vec::new()
    }
}

impl<B: AutodiffBackend> Network<B> for Dit<B> {
    fn matrices(&self) -> Vec<(ParamId, Tensor<B, 2>)> {
        Dit::matrices(self)
    }
}

/// A network whose parameters take gradients, from one without.
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
