//! The steps between the products of an attention: rotary queries and keys, and the softmax of
//! soft-capped scores, with their gradients.

use super::launch::{
    array, contiguous, cubes, cubes_for, dims, empty, empty_like, largest, total, units,
};
use super::product::matmul;
use crate::Attention;
use burn_cubecl::ops::permute;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

/// Converts `[batch, length, 3, heads, 2, half]` to rotated and scaled queries, rotated keys, and
/// values, each `[batch, heads, length, 2, half]`. One unit handles each pair of entries that
/// rotate together.
#[cube(launch)]
fn split_kernel<F: Float>(
    qkv: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    query: &mut Array<F>,
    key: &mut Array<F>,
    value: &mut Array<F>,
    length: usize,
    heads: usize,
    half: usize,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < query.len() / 2 {
        let j = ABSOLUTE_POS % half;
        let head = ABSOLUTE_POS / half % heads;
        let position = ABSOLUTE_POS / (half * heads) % length;
        let batch = ABSOLUTE_POS / (half * heads * length);
        let width = 2 * half * heads;
        let from = (batch * length + position) * 3 * width + head * 2 * half + j;
        let to = ((batch * heads + head) * length + position) * 2 * half + j;
        let c = cos[position * half + j];
        let s = sin[position * half + j];
        let a = f32::cast_from(qkv[from]);
        let b = f32::cast_from(qkv[from + half]);
        query[to] = F::cast_from((a * c - b * s) * scale);
        query[to + half] = F::cast_from((b * c + a * s) * scale);
        let a = f32::cast_from(qkv[from + width]);
        let b = f32::cast_from(qkv[from + width + half]);
        key[to] = F::cast_from(a * c - b * s);
        key[to + half] = F::cast_from(b * c + a * s);
        value[to] = qkv[from + 2 * width];
        value[to + half] = qkv[from + 2 * width + half];
    }
}

/// The gradient of `split_kernel`.
#[cube(launch)]
fn join_kernel<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    qkv: &mut Array<F>,
    length: usize,
    heads: usize,
    half: usize,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < query.len() / 2 {
        let j = ABSOLUTE_POS % half;
        let head = ABSOLUTE_POS / half % heads;
        let position = ABSOLUTE_POS / (half * heads) % length;
        let batch = ABSOLUTE_POS / (half * heads * length);
        let width = 2 * half * heads;
        let to = (batch * length + position) * 3 * width + head * 2 * half + j;
        let from = ((batch * heads + head) * length + position) * 2 * half + j;
        let c = cos[position * half + j];
        let s = sin[position * half + j];
        let a = f32::cast_from(query[from]) * scale;
        let b = f32::cast_from(query[from + half]) * scale;
        qkv[to] = F::cast_from(a * c + b * s);
        qkv[to + half] = F::cast_from(b * c - a * s);
        let a = f32::cast_from(key[from]);
        let b = f32::cast_from(key[from + half]);
        qkv[to + width] = F::cast_from(a * c + b * s);
        qkv[to + width + half] = F::cast_from(b * c - a * s);
        qkv[to + 2 * width] = value[from];
        qkv[to + 2 * width + half] = value[from + half];
    }
}

/// softmax(cap·tanh(x)) of rows `[queries, keys]`, one cube per row. The queries are the last ones
/// among the keys; if `causal`, none sees later keys.
#[cube(launch)]
fn softmax_kernel<F: Float>(
    x: &Array<F>,
    out: &mut Array<F>,
    queries: usize,
    keys: usize,
    cap: f32,
    #[comptime] causal: bool,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row * keys < out.len() {
        let first = row * keys;
        let unit = UNIT_POS as usize;
        let mut seen = keys;
        if comptime!(causal) {
            seen = row % queries + 1 + keys - queries;
        }
        let mut most = f32::new(-1.0);
        let mut i = unit;
        while i < seen {
            most = max(most, f32::cast_from(x[first + i]).tanh());
            i += CUBE_DIM as usize;
        }
        let most = largest(most);
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < seen {
            sum += ((f32::cast_from(x[first + i]).tanh() - most) * cap).exp();
            i += CUBE_DIM as usize;
        }
        let inverse = 1.0 / total(sum);
        let mut i = unit;
        while i < keys {
            let p = ((f32::cast_from(x[first + i]).tanh() - most) * cap).exp() * inverse;
            out[first + i] = F::cast_from(select(i < seen, p, 0.0));
            i += CUBE_DIM as usize;
        }
    }
}

/// The gradient to x, from the gradient to its softmax p.
#[cube(launch)]
fn slope_kernel<F: Float>(
    x: &Array<F>,
    p: &Array<F>,
    grad: &Array<F>,
    out: &mut Array<F>,
    keys: usize,
    cap: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row * keys < out.len() {
        let first = row * keys;
        let unit = UNIT_POS as usize;
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < keys {
            sum += f32::cast_from(p[first + i]) * f32::cast_from(grad[first + i]);
            i += CUBE_DIM as usize;
        }
        let mean = total(sum);
        let mut i = unit;
        while i < keys {
            let t = f32::cast_from(x[first + i]).tanh();
            let to_score = f32::cast_from(p[first + i]) * (f32::cast_from(grad[first + i]) - mean);
            out[first + i] = F::cast_from(to_score * cap * (1.0 - t * t));
            i += CUBE_DIM as usize;
        }
    }
}

/// The data that the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Saved<R: CubeRuntime> {
    /// Rotated and scaled queries, rotated keys, values, each `[batch, heads, length, head_width]`.
    parts: [CubeTensor<R>; 3],
    /// Scores before tanh, and their softmax, `[batch, heads, length, length]`.
    scores: CubeTensor<R>,
    weights: CubeTensor<R>,
    tables: [CubeTensor<R>; 2],
    scale: f32,
    cap: f32,
}

/// `qkv` `[batch, length, 3·width]`; the result is `[batch, length, width]`.
pub(super) fn forward<R: CubeRuntime>(
    qkv: CubeTensor<R>,
    tables: [CubeTensor<R>; 2],
    attention: Attention,
) -> (CubeTensor<R>, Saved<R>) {
    let qkv = contiguous(qkv);
    let tables = tables.map(contiguous);
    let ([batch, length, triple], heads) = (dims(&qkv), attention.heads);
    let head_width = triple / 3 / heads;
    let scale = (1.0 / ((head_width as f64).sqrt() * attention.softcap)) as f32;
    let cap = attention.softcap as f32;
    let parts = [(); 3].map(|()| empty(&qkv, [batch, heads, length, head_width], qkv.dtype));
    split_kernel::launch::<R>(
        &qkv.client,
        cubes_for(qkv.meta.num_elements() / 6),
        units(),
        array(&qkv),
        array(&tables[0]),
        array(&tables[1]),
        array(&parts[0]),
        array(&parts[1]),
        array(&parts[2]),
        length,
        heads,
        head_width / 2,
        scale,
        qkv.dtype.into(),
    );
    let [query, key, value] = parts.clone();
    let scores = contiguous(matmul(query, transposed(key)));
    let weights = empty_like(&scores, scores.dtype);
    softmax_kernel::launch::<R>(
        &scores.client,
        cubes(batch * heads * length),
        row_units(length),
        array(&scores),
        array(&weights),
        length,
        length,
        cap,
        attention.causal,
        scores.dtype.into(),
    );
    let mixed = permute(matmul(weights.clone(), value), &[0, 2, 1, 3]);
    let out = burn_cubecl::ops::reshape(mixed, [batch, length, triple / 3].into());
    let saved = Saved {
        parts,
        scores,
        weights,
        tables,
        scale,
        cap,
    };
    (out, saved)
}

/// The gradient to `qkv`.
pub(super) fn backward<R: CubeRuntime>(saved: Saved<R>, grad: CubeTensor<R>) -> CubeTensor<R> {
    let Saved {
        parts: [query, key, value],
        scores,
        weights,
        tables,
        scale,
        cap,
    } = saved;
    let [batch, heads, length, head_width] = dims(&query);
    let shape = [batch, length, heads, head_width];
    let grad = burn_cubecl::ops::reshape(contiguous(grad), shape.into());
    let grad = contiguous(permute(grad, &[0, 2, 1, 3]));
    let to_value = contiguous(matmul(transposed(weights.clone()), grad.clone()));
    let to_weights = contiguous(matmul(grad, transposed(value)));
    let to_scores = empty_like(&scores, scores.dtype);
    slope_kernel::launch::<R>(
        &scores.client,
        cubes(batch * heads * length),
        row_units(length),
        array(&scores),
        array(&weights),
        array(&to_weights),
        array(&to_scores),
        length,
        cap,
        scores.dtype.into(),
    );
    let to_key = contiguous(matmul(transposed(to_scores.clone()), query));
    let to_query = contiguous(matmul(to_scores, key));
    let to_qkv = empty(
        &to_query,
        [batch, length, 3 * heads * head_width],
        to_query.dtype,
    );
    join_kernel::launch::<R>(
        &to_query.client,
        cubes_for(to_query.meta.num_elements() / 2),
        units(),
        array(&to_query),
        array(&to_key),
        array(&to_value),
        array(&tables[0]),
        array(&tables[1]),
        array(&to_qkv),
        length,
        heads,
        head_width / 2,
        scale,
        to_query.dtype.into(),
    );
    to_qkv
}

fn transposed<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    permute(x, &[0, 1, 3, 2])
}

/// Returns the units for a row of `entries`: a power of two, as the sums require, and no more than
/// there is work for.
fn row_units(entries: usize) -> CubeDim {
    CubeDim {
        x: entries.next_power_of_two().clamp(32, super::launch::UNITS) as u32,
        ..units()
    }
}
