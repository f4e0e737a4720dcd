//! Parameters by the names and in the layouts of the reference's checkpoints.
//!
//! Files and burn differ in two ways. A linear map's weight is `[outputs, inputs]` in a file and
//! `[inputs, outputs]` in burn, and burn calls a LayerNorm's weight `gamma`. This module handles
//! both, for saving and for loading.

mod error;

pub use error::TensorError;

use crate::Dit;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use std::collections::HashMap;
use std::path::Path;

/// A parameter as stored in files: PyTorch's name and layout, with values in row order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The reference's name, such as `blocks.0.attn_qkv.weight`.
    pub name: String,
    /// Dimensions, outermost first. A linear map's weight is `[outputs, inputs]`.
    pub shape: Vec<usize>,
    /// The values, as many as the product of the dimensions.
    pub values: Vec<f32>,
}

/// Returns the parameters of a network, in the order of the reference's `parameters()`.
///
/// ```
/// use burn_flex::Flex;
/// use flm_denoiser::{DitConfig, named_tensors};
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let dit = DitConfig::new(27, 16, 32, 1, 2).init::<Flex>(&mut rng, &Default::default())?;
/// let tensors = named_tensors(&dit);
/// assert_eq!(tensors[0].name, "vocab_embed.embedding");
/// let qkv = tensors.iter().find(|tensor| tensor.name == "blocks.0.attn_qkv.weight").unwrap();
/// assert_eq!(qkv.shape, [96, 32]);
/// # Ok::<(), flm_denoiser::ConfigError>(())
/// ```
pub fn named_tensors<B: Backend>(model: &Dit<B>) -> Vec<NamedTensor> {
    let mut collector = Collector {
        place: Place::default(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    collector.tensors
}

/// Returns the names and shapes of a module's parameters, as in [`named_tensors`], without
/// their values.
pub fn named_shapes<B: Backend>(model: &impl Module<B>) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Shapes {
        place: Place::default(),
        shapes: Vec::new(),
    };
    model.visit(&mut shapes);
    shapes.shapes
}

/// Sets every parameter of `model` to the tensor of its name. Parameters stay trainable or frozen
/// as they were.
///
/// `file` is the origin of the tensors, used only in errors. The order of the tensors does
/// not matter.
///
/// # Errors
///
/// [`TensorError`] if a parameter has no tensor, a tensor has no parameter or another shape, a name
/// occurs twice, or a value is not finite.
pub fn apply_tensors<B: Backend>(
    model: Dit<B>,
    file: &Path,
    tensors: impl IntoIterator<Item = NamedTensor>,
) -> Result<Dit<B>, TensorError> {
    let mut by_name = HashMap::new();
    for tensor in tensors {
        check_values(&tensor, file)?;
        if let Some(first) = by_name.insert(tensor.name.clone(), tensor) {
            return Err(TensorError::Repeated {
                file: file.to_path_buf(),
                name: first.name,
            });
        }
    }
    let mut applier = Applier {
        place: Place::default(),
        file,
        tensors: by_name,
        error: None,
    };
    let model = model.map(&mut applier);
    if let Some(error) = applier.error {
        return Err(error);
    }
    // The first by name, so that the message is deterministic.
    match applier
        .tensors
        .into_values()
        .min_by(|a, b| a.name.cmp(&b.name))
    {
        Some(extra) => Err(TensorError::Extra {
            file: file.to_path_buf(),
            name: extra.name,
            found: extra.shape,
        }),
        None => Ok(model),
    }
}

/// Checks that a tensor is complete and finite.
pub(crate) fn check_values(tensor: &NamedTensor, file: &Path) -> Result<(), TensorError> {
    let (file, name) = (|| file.to_path_buf(), || tensor.name.clone());
    let count = tensor
        .shape
        .iter()
        .try_fold(1_usize, |count, size| count.checked_mul(*size));
    if count != Some(tensor.values.len()) {
        let (shape, found) = (tensor.shape.clone(), tensor.values.len());
        return Err(TensorError::Count {
            file: file(),
            name: name(),
            shape,
            found,
        });
    }
    match tensor.values.iter().position(|value| !value.is_finite()) {
        Some(position) => {
            let found = tensor.values[position];
            Err(TensorError::NotFinite {
                file: file(),
                name: name(),
                position,
                found,
            })
        }
        None => Ok(()),
    }
}

/// The position of a walk over the modules of a network.
#[derive(Default)]
struct Place {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    fn is_in(&self, module: &str) -> bool {
        self.containers
            .last()
            .and_then(|container| container.strip_prefix("Struct:"))
            == Some(module)
    }

    /// The reference's name for the current parameter.
    fn name(&self) -> String {
        let name = self.names.join(".");
        match name.strip_suffix(".gamma") {
            Some(norm) if self.is_in("LayerNorm") => format!("{norm}.weight"),
            _ => name,
        }
    }

    /// The shape of the current parameter in a file.
    fn shape<B: Backend, const D: usize>(&self, param: &Param<Tensor<B, D>>) -> Vec<usize> {
        let mut shape = param.lazy_shape().to_vec();
        if self.is_transposed(D) {
            shape.reverse();
        }
        shape
    }

    /// Whether the current parameter, of `rank` dimensions, is transposed in a file.
    fn is_transposed(&self, rank: usize) -> bool {
        rank == 2 && self.is_in("Linear")
    }
}

struct Collector {
    place: Place,
    tensors: Vec<NamedTensor>,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val().detach();
        let value = if self.place.is_transposed(D) {
            value.swap_dims(0, D - 1)
        } else {
            value
        };
        self.tensors.push(NamedTensor {
            name: self.place.name(),
            shape: value.dims().to_vec(),
            values: value.into_data().iter::<f32>().collect(),
        });
    }
}

struct Shapes {
    place: Place,
    shapes: Vec<(String, Vec<usize>)>,
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.shapes
            .push((self.place.name(), self.place.shape(param)));
    }
}

struct Applier<'a> {
    place: Place,
    file: &'a Path,
    tensors: HashMap<String, NamedTensor>,
    error: Option<TensorError>,
}

impl Applier<'_> {
    /// Takes the tensor for the current parameter, if its shape matches.
    fn take(&mut self, expected: Vec<usize>) -> Result<TensorData, TensorError> {
        let (file, name) = (self.file.to_path_buf(), self.place.name());
        let Some(tensor) = self.tensors.remove(&name) else {
            return Err(TensorError::Missing {
                file,
                name,
                expected,
            });
        };
        if tensor.shape != expected {
            return Err(TensorError::Shape {
                file,
                name,
                expected,
                found: tensor.shape,
            });
        }
        Ok(TensorData::new(tensor.values, tensor.shape))
    }
}

impl<B: Backend> ModuleMapper<B> for Applier<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.error.is_some() {
            return param;
        }
        let transposed = self.place.is_transposed(D);
        match self.take(self.place.shape(&param)) {
            Ok(data) => {
                let value = Tensor::from_data(data, (&param.lazy_device(), DType::F32));
                let value = if transposed { transpose(value) } else { value };
                let id = param.id;
                param.transform_for_load(value, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// The transpose with its values in row order. Matrix products need this order, and would otherwise
/// copy at every step.
fn transpose<B: Backend, const D: usize>(matrix: Tensor<B, D>) -> Tensor<B, D> {
    let device = matrix.device();
    let data = matrix.swap_dims(0, D - 1).into_data();
    Tensor::from_data(data, (&device, DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DitConfig;
    use burn::backend::Autodiff;
    use burn::module::AutodiffModule;
    use burn_flex::Flex;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn model<B: Backend>(seed: u64) -> Dit<B> {
        let config = DitConfig {
            cond_dim: 6,
            ..DitConfig::new(5, 3, 8, 2, 2).with_two_time(true)
        };
        config
            .init(&mut ChaCha8Rng::seed_from_u64(seed), &Default::default())
            .unwrap()
    }

    fn apply(tensors: Vec<NamedTensor>) -> Result<Dit<Flex>, String> {
        apply_tensors(model(1), Path::new("some.file"), tensors).map_err(|error| error.to_string())
    }

    #[test]
    fn names_shapes_and_order_are_those_of_the_reference() {
        let tensors = named_tensors(&model::<Flex>(1));
        let listed: Vec<(&str, &[usize])> = tensors
            .iter()
            .map(|t| (t.name.as_str(), t.shape.as_slice()))
            .collect();
        let shapes = named_shapes(&model::<Flex>(1));
        let same = |(shape, tensor): (&(String, Vec<usize>), &NamedTensor)| {
            shape.0 == tensor.name && shape.1 == tensor.shape
        };
        assert!(shapes.len() == tensors.len() && shapes.iter().zip(&tensors).all(same));
        // As in `state_dict()` of the released code, with other sizes.
        assert_eq!(
            listed[..6],
            [
                ("vocab_embed.embedding", &[5, 8][..]),
                ("sigma_map.mlp.0.weight", &[6, 256]),
                ("sigma_map.mlp.0.bias", &[6]),
                ("sigma_map.mlp.2.weight", &[6, 6]),
                ("sigma_map.mlp.2.bias", &[6]),
                ("sigma_map_prime.mlp.0.weight", &[6, 256]),
            ]
        );
        assert_eq!(
            listed[9..19],
            [
                ("blocks.0.norm1.weight", &[8][..]),
                ("blocks.0.attn_qkv.weight", &[24, 8]),
                ("blocks.0.attn_out.weight", &[8, 8]),
                ("blocks.0.norm2.weight", &[8]),
                ("blocks.0.mlp.0.weight", &[32, 8]),
                ("blocks.0.mlp.0.bias", &[32]),
                ("blocks.0.mlp.2.weight", &[8, 32]),
                ("blocks.0.mlp.2.bias", &[8]),
                ("blocks.0.adaLN_modulation.weight", &[48, 6]),
                ("blocks.0.adaLN_modulation.bias", &[48]),
            ]
        );
        assert_eq!(
            listed[29..],
            [
                ("output_layer.norm_final.weight", &[8][..]),
                ("output_layer.linear.weight", &[5, 8]),
                ("output_layer.linear.bias", &[5]),
                ("output_layer.adaLN_modulation.weight", &[16, 6]),
                ("output_layer.adaLN_modulation.bias", &[16]),
            ]
        );
    }

    #[test]
    fn a_weight_lies_transposed() {
        let mut tensors = named_tensors(&model::<Flex>(1));
        // A map in which only output 2 depends on input 5.
        let weight = &mut tensors[30];
        assert_eq!(
            (weight.name.as_str(), weight.shape.as_slice()),
            ("output_layer.linear.weight", &[5, 8][..])
        );
        weight.values[2 * 8 + 5] = 1.0;
        tensors[31].values.fill(0.0);
        let model = apply(tensors).unwrap();
        let (state, tau) = (
            Tensor::ones([1, 3, 8], &Default::default()),
            Tensor::zeros([1], &Default::default()),
        );
        // LayerNorm of a constant row is zero, so the state must vary to affect the logits.
        let ramp = Tensor::<Flex, 1, burn::tensor::Int>::arange(0..8, &Default::default()).float();
        let state: Tensor<Flex, 3> = state * ramp.unsqueeze::<3>();
        let logits = model
            .forward(state, tau.clone(), tau, &mut crate::Dropout::off())
            .dense_logits();
        let answered: Vec<bool> = logits
            .narrow(1, 0, 1)
            .into_data()
            .iter::<f32>()
            .map(|logit| logit != 0.0)
            .collect();
        assert_eq!(answered, [false, false, true, false, false]);
    }

    #[test]
    fn applying_what_was_collected_is_the_identity_in_any_order() {
        let mut tensors = named_tensors(&model::<Flex>(2));
        let expected = tensors.clone();
        tensors.reverse();
        let model = apply(tensors).unwrap();
        assert_eq!(named_tensors(&model), expected);
    }

    #[test]
    fn applied_parameters_are_trained() {
        type A = Autodiff<Flex>;
        let tensors = named_tensors(&model::<Flex>(2));
        let model = apply_tensors(model::<A>(1), Path::new("some.file"), tensors).unwrap();
        let loss = model.embed().embedding.val().powi_scalar(2).sum();
        let grads = loss.backward();
        assert!(model.embed().embedding.grad(&grads).is_some());
        struct Trained(usize);
        impl ModuleVisitor<A> for Trained {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                assert!(param.val().is_require_grad());
                self.0 += 1;
            }
        }
        let mut trained = Trained(0);
        model.visit(&mut trained);
        assert_eq!(trained.0, 34);
        assert_eq!(named_tensors(&model.valid()), named_tensors(&model));
    }

    #[test]
    fn every_fault_names_the_tensor() {
        let good = named_tensors(&model::<Flex>(2));
        let changed = |change: fn(&mut Vec<NamedTensor>)| {
            let mut tensors = good.clone();
            change(&mut tensors);
            apply(tensors).unwrap_err()
        };
        assert_eq!(
            changed(|tensors| tensors.truncate(10)),
            "some.file: tensor blocks.0.attn_qkv.weight of shape [24, 8] is missing"
        );
        assert_eq!(
            changed(|tensors| tensors[10].name = "blocks.0.attn.weight".into()),
            "some.file: tensor blocks.0.attn_qkv.weight of shape [24, 8] is missing"
        );
        assert_eq!(
            changed(|tensors| tensors.push(NamedTensor {
                name: "head".into(),
                ..tensors[9].clone()
            })),
            "some.file: tensor head of shape [8] does not match any parameter of this network"
        );
        assert_eq!(
            changed(|tensors| tensors.push(tensors[3].clone())),
            "some.file: tensor sigma_map.mlp.2.weight occurs twice"
        );
        // The right number of values in the wrong order: burn's layout instead of the file's.
        assert_eq!(
            changed(|tensors| tensors[10].shape = vec![8, 24]),
            "some.file: tensor blocks.0.attn_qkv.weight must have shape [24, 8], found [8, 24]"
        );
        assert_eq!(
            changed(|tensors| tensors[2].values.truncate(5)),
            "some.file: tensor sigma_map.mlp.0.bias of shape [6] has 5 values"
        );
        assert_eq!(
            changed(|tensors| tensors[4].values[2] = f32::NAN),
            "some.file: tensor sigma_map.mlp.2.bias holds NaN at position 2; every value must be finite"
        );
        assert_eq!(
            changed(|tensors| tensors[4].values[3] = f32::NEG_INFINITY),
            "some.file: tensor sigma_map.mlp.2.bias holds -inf at position 3; every value must be finite"
        );
    }
}
