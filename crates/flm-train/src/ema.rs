//! The exponential moving average of the weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};
use std::collections::HashMap;

/// Returns min(decay, (1+n)/(10+n)): young averages forget quickly.
pub(crate) fn warm_decay(decay: f64, updates: u64) -> f64 {
    decay.min((1.0 + updates as f64) / (10.0 + updates as f64))
}

/// Returns decay·average + (1 − decay)·model, parameter by parameter.
pub(crate) fn update<B: Backend, M: Module<B>>(average: M, model: &M, decay: f64) -> M {
    let mut live = Live {
        tensors: HashMap::new(),
    };
    model.visit(&mut live);
    average.map(&mut Blend {
        live: live.tensors,
        decay,
    })
}

struct Live<B: Backend> {
    tensors: HashMap<ParamId, TensorPrimitive<B>>,
}

impl<B: Backend> ModuleVisitor<B> for Live<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.tensors.insert(param.id, param.val().into_primitive());
    }
}

struct Blend<B: Backend> {
    live: HashMap<ParamId, TensorPrimitive<B>>,
    decay: f64,
}

impl<B: Backend> ModuleMapper<B> for Blend<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, average, mapper) = param.consume();
        let average = match self.live.remove(&id) {
            Some(live) => flm_ops::blend(average, Tensor::from_primitive(live), self.decay),
            None => average,
        };
        Param::from_mapped_value(id, average, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Linear;
    use burn_flex::Flex;

    fn constant(id: ParamId, value: f32) -> Linear<Flex> {
        let weight = Tensor::full([3, 2], value, &Default::default());
        Linear {
            weight: Param::initialized(id, weight),
            bias: None,
        }
    }

    #[test]
    fn blends_each_parameter_with_its_own() {
        let id = ParamId::new();
        let average = update(constant(id, 1.0), &constant(id, 3.0), 0.75);
        let values: Vec<f32> = average.weight.val().into_data().to_vec().unwrap();
        assert_eq!(values, [1.5; 6]);
        // Parameters that the model does not have stay unchanged.
        let average = update(constant(id, 1.0), &constant(ParamId::new(), 3.0), 0.75);
        let values: Vec<f32> = average.weight.val().into_data().to_vec().unwrap();
        assert_eq!(values, [1.0; 6]);
    }

    #[test]
    fn the_decay_warms_up() {
        assert_eq!(warm_decay(0.999, 0), 0.1);
        assert_eq!(warm_decay(0.999, 1_000_000), 0.999);
    }
}
