//! One definition of the network with two evaluation modes.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::{sigmoid, silu, softmax};
use burn::tensor::{Tensor, backend::Backend};
use flm_ops::dual::{self, Dual};
use flm_ops::{Attention, Mask, Modulated, Precision, Rope, SoftRows};
use flm_simplex::interpolant::broadcast;

/// ε of every LayerNorm.
pub(crate) const EPSILON: f64 = 1e-5;

/// An evaluation mode of the network: [`Values`] only, or [`Duals`] with their derivative along
/// a direction.
///
/// The network is written once in terms of these operations. Parameters have no tangent.
pub(crate) trait Mode<B: Backend> {
    /// The representation of a tensor of D dimensions.
    type Of<const D: usize>: Clone;

    /// The value.
    fn value<const D: usize>(x: &Self::Of<D>) -> &Tensor<B, D>;

    /// Applies a linear function.
    fn map<const D: usize, const E: usize>(
        x: Self::Of<D>,
        f: impl Fn(Tensor<B, D>) -> Tensor<B, E>,
    ) -> Self::Of<E>;

    /// Prepends the constant `first` to x in the second dimension.
    fn behind(first: Tensor<B, 3>, x: Self::Of<3>) -> Self::Of<3>;

    fn add(a: Self::Of<2>, b: Self::Of<2>) -> Self::Of<2>;

    fn sum(a: Self::Of<3>, b: Self::Of<3>) -> Self::Of<3>;

    /// Elementwise product, broadcasting dimensions of size 1.
    fn times(a: Self::Of<3>, b: Self::Of<3>) -> Self::Of<3>;

    /// Concatenation in the last dimension.
    fn join(a: Self::Of<3>, b: Self::Of<3>) -> Self::Of<3>;

    /// An elementwise function of x `[batch]`, given by its values and slopes at x, `[batch,
    /// 1, 1]`.
    fn along(x: Self::Of<1>, value: Tensor<B, 1>, slope: Tensor<B, 1>) -> Self::Of<3>;

    /// softmax(features·weight + bias)·matrix in chunks of rows ([`SoftRows`]). `features` and
    /// `weight` get no gradient.
    fn soft_rows(features: Self::Of<2>, keys: SoftKeys<B>) -> Self::Of<2>;

    /// Cosines of the angles, followed by their sines.
    fn waves(angles: Self::Of<2>) -> Self::Of<2>;

    fn silu(x: Self::Of<2>) -> Self::Of<2>;

    /// x·weight + bias for a small map of times or conditions.
    fn affine(map: &Linear<B>, x: Self::Of<2>) -> Self::Of<2>;

    /// LayerNorm, then x·(1 + scale) + shift, where `by` is shift and scale.
    fn norm(norm: &LayerNorm<B>, x: Self::Of<3>, by: [Self::Of<3>; 2]) -> Self::Of<3>;

    /// A linear map of [`norm`](Self::norm). Up to the [`gated_residual`](Self::gated_residual),
    /// the operations that follow have this precision.
    fn norm_linear(
        norm: &LayerNorm<B>,
        x: Self::Of<3>,
        by: [Self::Of<3>; 2],
        map: &Linear<B>,
        precision: Precision,
    ) -> Self::Of<3>;

    fn linear(map: &Linear<B>, x: Self::Of<3>) -> Self::Of<3>;

    /// A linear map of a GELU.
    fn gelu_linear(map: &Linear<B>, x: Self::Of<3>) -> Self::Of<3>;

    fn attention(qkv: Self::Of<3>, rope: &Rope<B>, attention: Attention) -> Self::Of<3>;

    fn gated_residual(
        x: Self::Of<3>,
        branch: Self::Of<3>,
        gate: Self::Of<3>,
        mask: Option<Mask>,
    ) -> Self::Of<3>;
}

/// The arguments of [`Mode::soft_rows`]: the fields of [`SoftRows`] except the features.
pub(crate) struct SoftKeys<B: Backend> {
    pub(crate) weight: Tensor<B, 2>,
    pub(crate) bias: Tensor<B, 1>,
    pub(crate) matrix: Tensor<B, 2>,
    pub(crate) numbers: usize,
}

impl<B: Backend> SoftKeys<B> {
    fn of(self, features: Tensor<B, 2>) -> SoftRows<B> {
        SoftRows {
            features,
            weight: self.weight,
            bias: self.bias,
            matrix: self.matrix,
            numbers: self.numbers,
        }
    }
}

/// Written as products, which are twice differentiable, unlike burn's linear map.
fn affine<B: Backend>(map: &Linear<B>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    let product = flm_ops::matmul(x, map.weight.val());
    match bias_of(map) {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

fn bias_of<B: Backend>(map: &Linear<B>) -> Option<Tensor<B, 1>> {
    map.bias.as_ref().map(|bias| bias.val())
}

/// The mode that computes values only.
pub(crate) enum Values {}

fn modulated<B: Backend>(
    norm: &LayerNorm<B>,
    x: Tensor<B, 3>,
    [shift, scale]: [Tensor<B, 3>; 2],
) -> Modulated<B> {
    Modulated {
        x,
        weight: norm.gamma.val(),
        shift,
        scale,
        epsilon: EPSILON,
    }
}

impl<B: Backend> Mode<B> for Values {
    type Of<const D: usize> = Tensor<B, D>;

    fn value<const D: usize>(x: &Tensor<B, D>) -> &Tensor<B, D> {
        x
    }

    fn map<const D: usize, const E: usize>(
        x: Tensor<B, D>,
        f: impl Fn(Tensor<B, D>) -> Tensor<B, E>,
    ) -> Tensor<B, E> {
        f(x)
    }

    fn behind(first: Tensor<B, 3>, x: Tensor<B, 3>) -> Tensor<B, 3> {
        Tensor::cat(vec![first, x], 1)
    }

    fn add(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
        a + b
    }

    fn sum(a: Tensor<B, 3>, b: Tensor<B, 3>) -> Tensor<B, 3> {
        a + b
    }

    fn times(a: Tensor<B, 3>, b: Tensor<B, 3>) -> Tensor<B, 3> {
        a * b
    }

    fn join(a: Tensor<B, 3>, b: Tensor<B, 3>) -> Tensor<B, 3> {
        Tensor::cat(vec![a, b], 2)
    }

    fn along(_: Tensor<B, 1>, value: Tensor<B, 1>, _: Tensor<B, 1>) -> Tensor<B, 3> {
        broadcast(value)
    }

    fn soft_rows(features: Tensor<B, 2>, keys: SoftKeys<B>) -> Tensor<B, 2> {
        flm_ops::soft_rows(keys.of(features))
    }

    fn waves(angles: Tensor<B, 2>) -> Tensor<B, 2> {
        Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1)
    }

    fn silu(x: Tensor<B, 2>) -> Tensor<B, 2> {
        silu(x)
    }

    fn affine(map: &Linear<B>, x: Tensor<B, 2>) -> Tensor<B, 2> {
        affine(map, x)
    }

    fn norm(norm: &LayerNorm<B>, x: Tensor<B, 3>, by: [Tensor<B, 3>; 2]) -> Tensor<B, 3> {
        flm_ops::norm_modulate(modulated(norm, x, by))
    }

    fn norm_linear(
        norm: &LayerNorm<B>,
        x: Tensor<B, 3>,
        by: [Tensor<B, 3>; 2],
        map: &Linear<B>,
        precision: Precision,
    ) -> Tensor<B, 3> {
        match precision {
            Precision::F32 => {
                flm_ops::norm_linear(modulated(norm, x, by), map.weight.val(), bias_of(map))
            }
            Precision::Bf16 => Self::linear(map, precision.narrow(Self::norm(norm, x, by))),
        }
    }

    fn linear(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
        flm_ops::linear(x, map.weight.val(), bias_of(map))
    }

    fn gelu_linear(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
        flm_ops::gelu_linear(x, map.weight.val(), bias(map))
    }

    fn attention(qkv: Tensor<B, 3>, rope: &Rope<B>, attention: Attention) -> Tensor<B, 3> {
        flm_ops::attention(qkv, rope, attention)
    }

    fn gated_residual(
        x: Tensor<B, 3>,
        branch: Tensor<B, 3>,
        gate: Tensor<B, 3>,
        mask: Option<Mask>,
    ) -> Tensor<B, 3> {
        flm_ops::gated_residual(x, branch, gate, mask)
    }
}

/// The mode that computes values and their derivatives along a direction.
pub(crate) enum Duals {}

impl<B: Backend> Mode<B> for Duals {
    type Of<const D: usize> = Dual<B, D>;

    fn value<const D: usize>(x: &Dual<B, D>) -> &Tensor<B, D> {
        &x.value
    }

    fn map<const D: usize, const E: usize>(
        x: Dual<B, D>,
        f: impl Fn(Tensor<B, D>) -> Tensor<B, E>,
    ) -> Dual<B, E> {
        x.map(f)
    }

    fn behind(first: Tensor<B, 3>, x: Dual<B, 3>) -> Dual<B, 3> {
        let first = Dual::still(first);
        Dual {
            value: Tensor::cat(vec![first.value, x.value], 1),
            tangent: Tensor::cat(vec![first.tangent, x.tangent], 1),
        }
    }

    fn add(a: Dual<B, 2>, b: Dual<B, 2>) -> Dual<B, 2> {
        Dual {
            value: a.value + b.value,
            tangent: a.tangent + b.tangent,
        }
    }

    fn sum(a: Dual<B, 3>, b: Dual<B, 3>) -> Dual<B, 3> {
        Dual {
            value: a.value + b.value,
            tangent: a.tangent + b.tangent,
        }
    }

    fn times(a: Dual<B, 3>, b: Dual<B, 3>) -> Dual<B, 3> {
        Dual {
            tangent: a.tangent * b.value.clone() + a.value.clone() * b.tangent,
            value: a.value * b.value,
        }
    }

    fn join(a: Dual<B, 3>, b: Dual<B, 3>) -> Dual<B, 3> {
        Dual {
            value: Tensor::cat(vec![a.value, b.value], 2),
            tangent: Tensor::cat(vec![a.tangent, b.tangent], 2),
        }
    }

    fn along(x: Dual<B, 1>, value: Tensor<B, 1>, slope: Tensor<B, 1>) -> Dual<B, 3> {
        Dual {
            value: broadcast(value),
            tangent: broadcast(x.tangent * slope),
        }
    }

    /// In a graph, this keeps the softmax of all rows.
    fn soft_rows(features: Dual<B, 2>, keys: SoftKeys<B>) -> Dual<B, 2> {
        let ([rows, _], [tall]) = (features.value.dims(), keys.bias.dims());
        let step = (keys.numbers / tall).max(1);
        let runs = (0..rows).step_by(step).map(|first| {
            let part = |x: &Tensor<B, 2>| {
                let x = x.clone().narrow(0, first, step.min(rows - first));
                flm_ops::matmul(x, keys.weight.clone())
            };
            let shares = softmax(part(&features.value) + keys.bias.clone().unsqueeze(), 1);
            let moves = part(&features.tangent);
            let mean = (shares.clone() * moves.clone()).sum_dim(1);
            let moves = shares.clone() * (moves - mean);
            let mixed = |shares| flm_ops::matmul(shares, keys.matrix.clone());
            (mixed(shares), mixed(moves))
        });
        let (values, tangents) = runs.unzip();
        Dual {
            value: Tensor::cat(values, 0),
            tangent: Tensor::cat(tangents, 0),
        }
    }

    fn waves(angles: Dual<B, 2>) -> Dual<B, 2> {
        let (cos, sin) = (angles.value.clone().cos(), angles.value.sin());
        let moves = angles.tangent;
        Dual {
            tangent: Tensor::cat(
                vec![(sin.clone() * moves.clone()).neg(), cos.clone() * moves],
                1,
            ),
            value: Tensor::cat(vec![cos, sin], 1),
        }
    }

    fn silu(x: Dual<B, 2>) -> Dual<B, 2> {
        let s = sigmoid(x.value.clone());
        let slope = s.clone() + x.value.clone() * s.clone() * s.neg().add_scalar(1.0);
        Dual {
            value: silu(x.value),
            tangent: x.tangent * slope,
        }
    }

    fn affine(map: &Linear<B>, x: Dual<B, 2>) -> Dual<B, 2> {
        Dual {
            value: affine(map, x.value),
            tangent: flm_ops::matmul(x.tangent, map.weight.val()),
        }
    }

    fn norm(norm: &LayerNorm<B>, x: Dual<B, 3>, [shift, scale]: [Dual<B, 3>; 2]) -> Dual<B, 3> {
        dual::norm_modulate(dual::Modulated {
            x,
            weight: norm.gamma.val(),
            shift,
            scale,
            epsilon: EPSILON,
        })
    }

    fn norm_linear(
        norm: &LayerNorm<B>,
        x: Dual<B, 3>,
        by: [Dual<B, 3>; 2],
        map: &Linear<B>,
        _: Precision,
    ) -> Dual<B, 3> {
        <Self as Mode<B>>::linear(map, Self::norm(norm, x, by))
    }

    fn linear(map: &Linear<B>, x: Dual<B, 3>) -> Dual<B, 3> {
        dual::linear(x, map.weight.val(), bias_of(map))
    }

    fn gelu_linear(map: &Linear<B>, x: Dual<B, 3>) -> Dual<B, 3> {
        <Self as Mode<B>>::linear(map, dual::gelu_tanh(x))
    }

    fn attention(qkv: Dual<B, 3>, rope: &Rope<B>, attention: Attention) -> Dual<B, 3> {
        dual::attention(qkv, rope, attention)
    }

    fn gated_residual(
        x: Dual<B, 3>,
        branch: Dual<B, 3>,
        gate: Dual<B, 3>,
        mask: Option<Mask>,
    ) -> Dual<B, 3> {
        dual::gated_residual(x, branch, gate, mask)
    }
}

/// Returns the bias of a map that has one.
pub(crate) fn bias<B: Backend>(map: &Linear<B>) -> Tensor<B, 1> {
    map.bias.as_ref().expect("the map has a bias").val()
}
