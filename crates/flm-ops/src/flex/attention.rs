//! Rotary self-attention with soft-capped scores, from the fused projection to the mixed values, one head at a time.
//!
//! A head's scores live in scratch memory of one task and are computed again in the backward pass, so nothing of size
//! length² is kept.

use super::buffer::{contiguous, dims, tensor, values};
use super::math::{exp, max_by, sum_by, tanh};
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// The fixed parts of an attention: heads, softcap, and the rotary tables `[length, head_width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) heads: usize,
    pub(crate) softcap: f32,
    pub(crate) cos: FlexTensor,
    pub(crate) sin: FlexTensor,
}

/// Sizes of one sequence: `qkv` rows are 3·heads·head_width wide.
#[derive(Clone, Copy)]
struct Sizes {
    length: usize,
    heads: usize,
    head_width: usize,
}

impl Sizes {
    fn width(self) -> usize {
        self.heads * self.head_width
    }
}

/// `qkv` `[batch, length, 3·width]` → `[batch, length, width]`.
pub(crate) fn forward(qkv: FlexTensor, setting: &Setting) -> FlexTensor {
    let [batch, length, triple] = dims(&qkv);
    let qkv = contiguous(qkv);
    let sizes = Sizes {
        length,
        heads: setting.heads,
        head_width: triple / 3 / setting.heads,
    };
    let (input, cos, sin) = (values(&qkv), values(&setting.cos), values(&setting.sin));
    let mut out = vec![0.0; batch * length * sizes.width()];
    out.par_chunks_mut(length * sizes.width())
        .zip(input.par_chunks(length * triple))
        .for_each_init(
            || Scratch::new(sizes),
            |scratch, (out, qkv)| {
                forward_sequence(qkv, cos, sin, setting.softcap, sizes, scratch, out)
            },
        );
    tensor(out, [batch, length, sizes.width()])
}

/// The gradient to `qkv`.
pub(crate) fn backward(qkv: &FlexTensor, setting: &Setting, grad: FlexTensor) -> FlexTensor {
    let [batch, length, triple] = dims(qkv);
    let grad = contiguous(grad);
    let sizes = Sizes {
        length,
        heads: setting.heads,
        head_width: triple / 3 / setting.heads,
    };
    let (input, upstream, cos, sin) = (
        values(qkv),
        values(&grad),
        values(&setting.cos),
        values(&setting.sin),
    );
    let mut out = vec![0.0; input.len()];
    out.par_chunks_mut(length * triple)
        .zip(
            input
                .par_chunks(length * triple)
                .zip(upstream.par_chunks(length * sizes.width())),
        )
        .for_each_init(
            || Scratch::new(sizes),
            |scratch, (out, (qkv, grad))| {
                backward_sequence(qkv, grad, cos, sin, setting.softcap, sizes, scratch, out);
            },
        );
    tensor(out, [batch, length, triple])
}

/// Memory of one task.
struct Scratch {
    /// Queries, keys, values, and the upstream gradient of a head, `[length, head_width]` each.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    /// Transposes and results, `[head_width, length]` or `[length, head_width]`.
    kt: Vec<f32>,
    vt: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// `[length, length]`: tanh of the scaled scores, weights, and the gradient to the weights.
    t: Vec<f32>,
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let rows = || vec![0.0; sizes.length * sizes.head_width];
        let square = || vec![0.0; sizes.length * sizes.length];
        Self {
            q: rows(),
            k: rows(),
            v: rows(),
            g: rows(),
            kt: rows(),
            vt: rows(),
            dq: rows(),
            dk: rows(),
            dv: rows(),
            t: square(),
            p: square(),
            dp: square(),
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_sequence(
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    softcap: f32,
    sizes: Sizes,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Sizes {
        length, head_width, ..
    } = sizes;
    for head in 0..sizes.heads {
        load_head(qkv, cos, sin, sizes, head, scratch);
        weights(softcap, sizes, scratch);
        // The mixed values go where the upstream gradient would be: the forward pass has none.
        scratch.g.fill(0.0);
        product(
            &scratch.p,
            &scratch.v,
            length,
            length,
            head_width,
            &mut scratch.g,
        );
        store_rows(
            &scratch.g,
            head_width,
            sizes.width(),
            head * head_width,
            out,
        );
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
#[allow(clippy::too_many_arguments, reason = "a kernel over plain slices")]
fn backward_sequence(
    qkv: &[f32],
    grad: &[f32],
    cos: &[f32],
    sin: &[f32],
    softcap: f32,
    sizes: Sizes,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Sizes {
        length, head_width, ..
    } = sizes;
    let width = sizes.width();
    let scale = 1.0 / (head_width as f32).sqrt();
    for head in 0..sizes.heads {
        load_head(qkv, cos, sin, sizes, head, scratch);
        weights(softcap, sizes, scratch);
        load_rows(grad, head_width, width, head * head_width, &mut scratch.g);
        let Scratch {
            q,
            k,
            v,
            g,
            vt,
            dq,
            dk,
            dv,
            t,
            p,
            dp,
            ..
        } = &mut *scratch;
        // dv = Pᵀ·g, dP = g·vᵀ
        dv.fill(0.0);
        transposed_product(p, g, length, length, head_width, dv);
        transpose(v, length, head_width, vt);
        dp.fill(0.0);
        product(g, vt, length, head_width, length, dp);
        for i in 0..length {
            let row = i * length..(i + 1) * length;
            let (p, t, dp) = (&p[row.clone()], &t[row.clone()], &mut dp[row]);
            let mean = sum_by(length, |j| p[j] * dp[j]);
            for j in 0..length {
                dp[j] = p[j] * (dp[j] - mean) * (1.0 - t[j] * t[j]) * scale;
            }
        }
        dq.fill(0.0);
        product(dp, k, length, length, head_width, dq);
        dk.fill(0.0);
        transposed_product(dp, q, length, length, head_width, dk);
        turn(dq, cos, sin, head_width, -1.0);
        turn(dk, cos, sin, head_width, -1.0);
        store_rows(dq, head_width, 3 * width, head * head_width, out);
        store_rows(dk, head_width, 3 * width, width + head * head_width, out);
        store_rows(
            dv,
            head_width,
            3 * width,
            2 * width + head * head_width,
            out,
        );
    }
}

/// Queries, keys (both turned) and values of one head.
#[inline(always)]
fn load_head(
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    sizes: Sizes,
    head: usize,
    scratch: &mut Scratch,
) {
    let (width, head_width) = (sizes.width(), sizes.head_width);
    let first = head * head_width;
    load_rows(qkv, head_width, 3 * width, first, &mut scratch.q);
    load_rows(qkv, head_width, 3 * width, width + first, &mut scratch.k);
    load_rows(
        qkv,
        head_width,
        3 * width,
        2 * width + first,
        &mut scratch.v,
    );
    turn(&mut scratch.q, cos, sin, head_width, 1.0);
    turn(&mut scratch.k, cos, sin, head_width, 1.0);
}

/// t = tanh(q·k/(c·√head_width)) and p = softmax(c·t).
#[inline(always)]
fn weights(softcap: f32, sizes: Sizes, scratch: &mut Scratch) {
    let Sizes {
        length, head_width, ..
    } = sizes;
    let Scratch { q, k, kt, t, p, .. } = scratch;
    transpose(k, length, head_width, kt);
    t.fill(0.0);
    product(q, kt, length, head_width, length, t);
    let inverse = 1.0 / (softcap * (head_width as f32).sqrt());
    for value in t.iter_mut() {
        *value = tanh(*value * inverse);
    }
    for (t, p) in t.chunks_exact(length).zip(p.chunks_exact_mut(length)) {
        let max = softcap * max_by(length, |i| t[i]);
        for (p, &t) in p.iter_mut().zip(t) {
            *p = exp(softcap * t - max);
        }
        let scale = 1.0 / sum_by(length, |i| p[i]);
        for p in p.iter_mut() {
            *p *= scale;
        }
    }
}

#[inline(always)]
fn load_rows(from: &[f32], columns: usize, stride: usize, first: usize, to: &mut [f32]) {
    for (to, from) in to.chunks_exact_mut(columns).zip(from.chunks_exact(stride)) {
        to.copy_from_slice(&from[first..first + columns]);
    }
}

#[inline(always)]
fn store_rows(from: &[f32], columns: usize, stride: usize, first: usize, to: &mut [f32]) {
    for (from, to) in from.chunks_exact(columns).zip(to.chunks_exact_mut(stride)) {
        to[first..first + columns].copy_from_slice(from);
    }
}

/// Turns each row by its position's angles, or back with `direction` −1.
#[inline(always)]
fn turn(rows: &mut [f32], cos: &[f32], sin: &[f32], head_width: usize, direction: f32) {
    let half = head_width / 2;
    let tables = cos.chunks_exact(half).zip(sin.chunks_exact(half));
    for (row, (cos, sin)) in rows.chunks_exact_mut(head_width).zip(tables) {
        let (first, second) = row.split_at_mut(half);
        for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let sin = direction * sin;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

#[inline(always)]
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    for (i, row) in from.chunks_exact(columns).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            to[j * rows + i] = value;
        }
    }
}

/// out += a·b for a `[m, k]`, b `[k, n]`: four rows of b at a time, so that out is loaded a quarter as often.
#[inline(always)]
fn product(a: &[f32], b: &[f32], m: usize, k: usize, n: usize, out: &mut [f32]) {
    for i in 0..m {
        let (a, out) = (&a[i * k..(i + 1) * k], &mut out[i * n..(i + 1) * n]);
        accumulate(|l| a[l], b, k, n, out);
    }
}

/// out += aᵀ·b for a `[k, m]`, b `[k, n]`.
#[inline(always)]
fn transposed_product(a: &[f32], b: &[f32], m: usize, k: usize, n: usize, out: &mut [f32]) {
    for i in 0..m {
        accumulate(|l| a[l * m + i], b, k, n, &mut out[i * n..(i + 1) * n]);
    }
}

/// out += Σ_l a(l)·b[l].
#[inline(always)]
fn accumulate(a: impl Fn(usize) -> f32, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    let mut l = 0;
    while l + 4 <= k {
        let (a0, a1, a2, a3) = (a(l), a(l + 1), a(l + 2), a(l + 3));
        let (b0, b1) = (&b[l * n..][..n], &b[(l + 1) * n..][..n]);
        let (b2, b3) = (&b[(l + 2) * n..][..n], &b[(l + 3) * n..][..n]);
        for j in 0..n {
            out[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
        }
        l += 4;
    }
    while l < k {
        let (a, b) = (a(l), &b[l * n..][..n]);
        for j in 0..n {
            out[j] += a * b[j];
        }
        l += 1;
    }
}
