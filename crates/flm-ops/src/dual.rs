//! The operations together with their derivative along a direction: forward-mode differentiation.
//!
//! A [`Dual`] is a value and its tangent: the rate at which the value changes when its inputs move
//! in some direction. Parameters do not move and are plain tensors. A tangent costs about as much
//! as the value and needs no graph. On an autodiff backend it can itself be differentiated, in
//! reverse over forward mode.
//!
//! ```
//! use burn::tensor::Tensor;
//! use burn_flex::Flex;
//! use flm_ops::dual::{self, Dual};
//!
//! let at = |x| Tensor::<Flex, 1>::from_floats([x], &Default::default());
//! let y = dual::gelu_tanh(Dual { value: at(2.0), tangent: at(1.0) });
//! let slope: f32 = y.tangent.into_scalar();
//! assert!((slope - 1.0861).abs() < 1e-4);
//! ```

mod reference;

use crate::flex::buffer::contiguous;
use crate::route::{Route, route};
use crate::{Attention, Mask, Rope, check, flex, primitive, wrap};
use burn::tensor::{Tensor, backend::Backend};
use burn_flex::Flex;

/// A tensor and its derivative along a direction, both of the same shape.
#[derive(Clone, Debug)]
pub struct Dual<B: Backend, const D: usize> {
    /// The tensor.
    pub value: Tensor<B, D>,
    /// The derivative of the value.
    pub tangent: Tensor<B, D>,
}

impl<B: Backend, const D: usize> Dual<B, D> {
    /// Creates a constant, with a tangent of zero.
    pub fn still(value: Tensor<B, D>) -> Self {
        Self {
            tangent: value.zeros_like(),
            value,
        }
    }

    /// Applies a linear function without a constant term.
    pub fn map<const E: usize>(self, f: impl Fn(Tensor<B, D>) -> Tensor<B, E>) -> Dual<B, E> {
        Dual {
            value: f(self.value),
            tangent: f(self.tangent),
        }
    }

    #[track_caller]
    fn check(&self, operation: &str, argument: &str) {
        let beside = ("its value", &self.value.dims()[..]);
        let name = format!("the tangent of {argument}");
        check::shape(
            operation,
            &name,
            &self.tangent.dims(),
            &self.value.dims(),
            beside,
        );
    }
}

/// The input of [`norm_modulate`].
#[derive(Clone, Debug)]
pub struct Modulated<B: Backend> {
    /// `[batch, length, width]`.
    pub x: Dual<B, 3>,
    /// The weight of LayerNorm, `[width]`.
    pub weight: Tensor<B, 1>,
    /// `[batch, 1, width]`.
    pub shift: Dual<B, 3>,
    /// `[batch, 1, width]`.
    pub scale: Dual<B, 3>,
    /// The ε of LayerNorm.
    pub epsilon: f64,
}

impl<B: Backend> Modulated<B> {
    fn values(&self) -> crate::Modulated<B> {
        crate::Modulated {
            x: self.x.value.clone(),
            weight: self.weight.clone(),
            shift: self.shift.value.clone(),
            scale: self.scale.value.clone(),
            epsilon: self.epsilon,
        }
    }
}

/// [`gelu_tanh`](crate::gelu_tanh) and its tangent.
///
/// # Panics
///
/// Panics if value and tangent differ in shape.
pub fn gelu_tanh<B: Backend, const D: usize>(x: Dual<B, D>) -> Dual<B, D> {
    x.check("gelu_tanh", "x");
    let tangent = match route::<B>(x.value.dtype()) {
        Route::Flex => {
            let at = contiguous(primitive::<Flex, B, D>(x.value.clone()));
            let tangent = primitive::<Flex, B, D>(x.tangent);
            wrap::<Flex, B, D>(flex::gelu::backward(&at, tangent))
        }
        Route::AutodiffFlex | Route::Composed => reference::gelu_slope(x.value.clone()) * x.tangent,
    };
    Dual {
        value: crate::gelu_tanh(x.value),
        tangent,
    }
}

/// [`norm_modulate`](crate::norm_modulate) and its tangent.
///
/// # Panics
///
/// Panics if the shapes differ from those of [`Modulated`], or if `x` is empty.
pub fn norm_modulate<B: Backend>(input: Modulated<B>) -> Dual<B, 3> {
    input.x.check("norm_modulate", "x");
    input.shift.check("norm_modulate", "shift");
    input.scale.check("norm_modulate", "scale");
    let value = crate::norm_modulate(input.values());
    let tangent = match route::<B>(value.dtype()) {
        Route::Flex => {
            let three = |x| contiguous(primitive::<Flex, B, 3>(x));
            let saved = flex::norm::Saved {
                x: three(input.x.value),
                weight: contiguous(primitive::<Flex, B, 1>(input.weight)),
                scale: three(input.scale.value),
                epsilon: input.epsilon as f32,
            };
            let [x, shift, scale] =
                [input.x.tangent, input.shift.tangent, input.scale.tangent].map(three);
            wrap::<Flex, B, 3>(flex::norm::tangent(&saved, x, &shift, &scale))
        }
        Route::AutodiffFlex | Route::Composed => reference::norm_modulate(input),
    };
    Dual { value, tangent }
}

/// [`attention`](crate::attention) and its tangent.
///
/// # Panics
///
/// Panics if `qkv` is empty or does not divide into heads of even width, if its tangent has another
/// shape, or if the tables have other sizes.
pub fn attention<B: Backend>(qkv: Dual<B, 3>, rope: &Rope<B>, attention: Attention) -> Dual<B, 3> {
    qkv.check("attention", "qkv");
    match route::<B>(qkv.value.dtype()) {
        Route::Flex => {
            crate::check_attention(&qkv.value, rope, attention.heads);
            let [cos, sin] = [rope.cos.clone(), rope.sin.clone()].map(primitive::<Flex, B, 2>);
            let setting = flex::attention::Setting::new(cos, sin, attention);
            let [value, tangent] =
                [qkv.value, qkv.tangent].map(|x| contiguous(primitive::<Flex, B, 3>(x)));
            let (value, tangent) = flex::attention::tangent(&value, &tangent, &setting);
            Dual {
                value: wrap::<Flex, B, 3>(value),
                tangent: wrap::<Flex, B, 3>(tangent),
            }
        }
        Route::AutodiffFlex | Route::Composed => Dual {
            value: crate::attention(qkv.value.clone(), rope, attention),
            tangent: reference::attention(qkv, rope, attention),
        },
    }
}

/// [`gated_residual`](crate::gated_residual) and its tangent.
///
/// # Panics
///
/// Panics if the shapes do not fit, or if `x` is empty.
pub fn gated_residual<B: Backend>(
    x: Dual<B, 3>,
    branch: Dual<B, 3>,
    gate: Dual<B, 3>,
    mask: Option<Mask>,
) -> Dual<B, 3> {
    // ẋ + ġ·branch + g·(tangent of branch)
    let tangent = crate::gated_residual(x.tangent, branch.value.clone(), gate.tangent, mask);
    Dual {
        tangent: crate::gated_residual(tangent, branch.tangent, gate.value.clone(), mask),
        value: crate::gated_residual(x.value, branch.value, gate.value, mask),
    }
}

/// [`linear`](crate::linear) and its tangent.
///
/// # Panics
///
/// Panics if `weight` or `bias` do not fit `x`.
pub fn linear<B: Backend>(
    x: Dual<B, 3>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Dual<B, 3> {
    x.check("linear", "x");
    Dual {
        tangent: crate::linear(x.tangent, weight.clone(), None),
        value: crate::linear(x.value, weight, bias),
    }
}

/// softmax(`cap`·tanh((product + bias)/`cap`)/`temperature`) for each row of `[rows, vocabulary]`,
/// and its tangent. The tangents of a row sum to zero.
///
/// Unlike [`capped_softmax`](crate::capped_softmax) it can be differentiated if there is a graph.
///
/// # Panics
///
/// Panics if the shapes do not fit, or if `product` is empty.
pub fn capped_softmax<B: Backend>(
    product: Dual<B, 2>,
    bias: Tensor<B, 1>,
    cap: f64,
    temperature: f64,
) -> Dual<B, 2> {
    product.check("capped_softmax", "product");
    check::logits("capped_softmax", &product.value.dims(), &bias.dims());
    match route::<B>(product.value.dtype()) {
        Route::Flex => {
            let [value, tangent] = [product.value, product.tangent].map(primitive::<Flex, B, 2>);
            let bias = contiguous(primitive::<Flex, B, 1>(bias));
            let (value, tangent) =
                flex::softmax::tangent(value, tangent, &bias, cap as f32, temperature as f32);
            Dual {
                value: wrap::<Flex, B, 2>(value),
                tangent: wrap::<Flex, B, 2>(tangent),
            }
        }
        Route::AutodiffFlex | Route::Composed => {
            reference::capped_softmax(product, bias, cap, temperature)
        }
    }
}
