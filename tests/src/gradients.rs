//! Gradients by name.

use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, NamedTensor, named_tensors};

/// The gradients of a loss by the names of the parameters, in the layouts of the reference: a network whose parameters are
/// the gradients is collected like any other.
///
/// # Panics
///
/// If a parameter takes no part in the loss.
pub fn named_gradients<B: AutodiffBackend>(model: &Dit<B>, loss: Tensor<B, 1>) -> Vec<NamedTensor> {
    struct Replace(GradientsParams);
    impl<B: Backend> ModuleMapper<B> for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let grad = self
                .0
                .remove::<B, D>(param.id)
                .expect("every parameter takes part");
            Param::initialized(param.id, grad)
        }
    }
    let mut grads = loss.backward();
    let mut replace = Replace(GradientsParams::from_module(&mut grads, model));
    named_tensors_of_inner::<B>(model.valid().map(&mut replace))
}

fn named_tensors_of_inner<B: AutodiffBackend>(model: Dit<B::InnerBackend>) -> Vec<NamedTensor> {
    named_tensors(&model)
}
