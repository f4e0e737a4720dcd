//! The soft-capped distribution of a vocabulary head.

use crate::flex::buffer::{contiguous, values};
use crate::route::{Route, route};
use crate::{check, cube, flex, primitive, reference, wrap};
use burn::tensor::{Int, Tensor, backend::Backend};
use burn_flex::{Flex, FlexTensor};

/// Largest cap of the native loss, which sums e^(logit − cap) without a pass for the maximum.
pub(crate) const LARGEST_CAP: f64 = 40.0;

/// softmax(`cap`·tanh((product + bias)/`cap`)/`temperature`) for each row of `[rows, vocabulary]`.
///
/// `bias` is `[vocabulary]`. No gradient flows through the result; training differentiates a loss
/// instead.
///
/// # Panics
///
/// Panics if the shapes do not fit, or if `product` is empty.
pub fn capped_softmax<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    cap: f64,
    temperature: f64,
) -> Tensor<B, 2> {
    check::logits("capped_softmax", &product.dims(), &bias.dims());
    match route::<B>(product.dtype()) {
        Route::Flex => wrap::<Flex, B, 2>(flex::softmax::softmax(
            primitive::<Flex, B, 2>(product),
            &contiguous(primitive::<Flex, B, 1>(bias)),
            cap as f32,
            temperature as f32,
        )),
        Route::AutodiffFlex | Route::Composed => {
            reference::capped_softmax(product.detach(), bias.detach(), cap, temperature)
        }
    }
}

/// The targets of the rows of a [`capped_loss`].
#[derive(Clone, Debug)]
pub enum Target<B: Backend> {
    /// One token per row, `[rows]`, below the vocabulary size.
    Tokens(Tensor<B, 1, Int>),
    /// One distribution per row, `[rows, vocabulary]`.
    Distributions(Tensor<B, 2>),
    /// One point per row, on the simplex or off it, `[rows, vocabulary]`.
    Points(Tensor<B, 2>),
}

impl<B: Backend> Target<B> {
    #[track_caller]
    fn check(&self, operation: &str, product: [usize; 2]) {
        let beside = ("product", &product[..]);
        match self {
            Self::Tokens(ids) => check::shape(operation, "ids", &ids.dims(), &product[..1], beside),
            Self::Distributions(p) | Self::Points(p) => {
                check::shape(operation, "target", &p.dims(), &product, beside);
            }
        }
    }
}

/// Returns the loss of p = softmax(`cap`·tanh((product + bias)/`cap`)) against a target, `[rows]`:
/// the cross-entropy against tokens or distributions, in nats, or the squared distance Σ (p − q)²
/// to points.
///
/// `product` is `[rows, vocabulary]`, `bias` is `[vocabulary]`. No gradient flows through the
/// result, see [`capped_loss_gradient`]. A row with a NaN entry has a NaN loss.
///
/// # Panics
///
/// Panics if the shapes do not fit, if `product` is empty, or, where there is a kernel, if a token
/// lies outside the vocabulary.
pub fn capped_loss<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    cap: f64,
) -> Tensor<B, 1> {
    check::logits("capped_loss", &product.dims(), &bias.dims());
    target.check("capped_loss", product.dims());
    if cap <= LARGEST_CAP && route::<B>(product.dtype()) == Route::Flex {
        let (loss, _) = native_loss(product, bias, target, cap, None);
        wrap::<Flex, B, 1>(loss)
    } else {
        cube::capped_loss(product.detach(), bias.detach(), target, cap)
    }
}

/// The loss of each row, and the gradient of their weighted sum.
#[derive(Clone, Debug)]
pub struct CappedLoss<B: Backend> {
    /// Nats, or squared distances to points, `[rows]`.
    pub loss: Tensor<B, 1>,
    /// The gradient to the product, `[rows, vocabulary]`.
    pub product: Tensor<B, 2>,
    /// The gradient to the bias, `[vocabulary]`.
    pub bias: Tensor<B, 1>,
}

/// [`capped_loss`] with the gradient of Σ `weights`·loss, with `weights` `[rows]`.
///
/// A kernel makes one pass over the product, in place if the product is not shared.
///
/// # Panics
///
/// As [`capped_loss`], or if the weights do not fit.
pub fn capped_loss_gradient<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    weights: Tensor<B, 1>,
    cap: f64,
) -> CappedLoss<B> {
    let operation = "capped_loss_gradient";
    check::logits(operation, &product.dims(), &bias.dims());
    target.check(operation, product.dims());
    let (dims, beside) = (weights.dims(), ("product", &product.dims()[..]));
    check::shape(operation, "weights", &dims, &product.dims()[..1], beside);
    if cap <= LARGEST_CAP && route::<B>(product.dtype()) == Route::Flex {
        let weights = contiguous(primitive::<Flex, B, 1>(weights));
        let (loss, grad) = native_loss(product, bias, target, cap, Some(weights));
        CappedLoss {
            loss: wrap::<Flex, B, 1>(loss),
            bias: wrap::<Flex, B, 1>(flex::linear::column_sums(&grad)),
            product: wrap::<Flex, B, 2>(grad),
        }
    } else {
        cube::capped_loss_gradient(product.detach(), bias.detach(), target, weights, cap)
    }
}

fn native_loss<B: Backend>(
    product: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    target: Target<B>,
    cap: f64,
    weights: Option<FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let [_, vocab] = product.dims();
    let product = primitive::<Flex, B, 2>(product);
    let bias = contiguous(primitive::<Flex, B, 1>(bias));
    let score = |target: flex::softmax::Target<'_>| {
        flex::softmax::loss(product, &bias, target, cap as f32, weights.as_ref())
    };
    match target {
        Target::Tokens(ids) => {
            let ids: Vec<i32> = ids.into_data().iter::<i32>().collect();
            check::tokens("capped_loss", &ids, vocab);
            score(flex::softmax::Target::Tokens(&ids))
        }
        Target::Distributions(p) => {
            let p = contiguous(primitive::<Flex, B, 2>(p));
            score(flex::softmax::Target::Distributions(values(&p)))
        }
        Target::Points(p) => {
            let p = contiguous(primitive::<Flex, B, 2>(p));
            score(flex::softmax::Target::Points(values(&p)))
        }
    }
}
