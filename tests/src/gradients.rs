//! Gradients by parameter name.

use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm_denoiser::{Dit, NamedTensor, named_tensors};

/// Returns the gradient of a loss for each parameter, with the names and layouts of the reference.
///
/// Each parameter is replaced by its gradient, so that [`named_tensors`] collects the gradients.
///
/// # Panics
///
/// If the loss does not depend on a parameter.
pub fn named_gradients<B: AutodiffBackend>(model: &Dit<B>, loss: Tensor<B, 1>) -> Vec<NamedTensor> {
    struct Replace(GradientsParams);
    impl<B: Backend> ModuleMapper<B> for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let grad = self
                .0
                .remove::<B, D>(param.id)
                .expect("every parameter has a gradient");
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
