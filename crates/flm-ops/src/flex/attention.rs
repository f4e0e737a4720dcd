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

/// Rows of scores are padded to whole vectors: a remainder is worked off one number at a time.
const VECTOR: usize = 16;

impl Sizes {
    fn width(self) -> usize {
        self.heads * self.head_width
    }

    /// Length of a padded row of scores.
    fn columns(self) -> usize {
        self.length.next_multiple_of(VECTOR)
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
    /// Transposes, `[head_width, columns]`, zero in the padding, and results, `[length, head_width]`.
    kt: Vec<f32>,
    vt: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// `[length, columns]`: tanh of the scaled scores, weights (zero in the padding), and the gradient to the weights.
    t: Vec<f32>,
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let rows = || vec![0.0; sizes.length * sizes.head_width];
        let columns = || vec![0.0; sizes.columns() * sizes.head_width];
        let square = || vec![0.0; sizes.length * sizes.columns()];
        Self {
            q: rows(),
            k: rows(),
            v: rows(),
            g: rows(),
            kt: columns(),
            vt: columns(),
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
    let columns = sizes.columns();
    for head in 0..sizes.heads {
        load_head(qkv, cos, sin, sizes, head, scratch);
        weights(softcap, sizes, scratch);
        // The mixed values go where the upstream gradient would be: the forward pass has none.
        scratch.g.fill(0.0);
        product(
            &scratch.p,
            columns,
            &scratch.v,
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
    let (width, columns) = (sizes.width(), sizes.columns());
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
        transposed_product(p, columns, g, length, head_width, dv);
        transpose(v, columns, head_width, vt);
        dp.fill(0.0);
        product(g, head_width, vt, head_width, columns, dp);
        for i in 0..length {
            let row = i * columns..(i + 1) * columns;
            let (p, t, dp) = (&p[row.clone()], &t[row.clone()], &mut dp[row]);
            let mean = sum_by(columns, |j| p[j] * dp[j]);
            for j in 0..columns {
                dp[j] = p[j] * (dp[j] - mean) * (1.0 - t[j] * t[j]) * scale;
            }
        }
        dq.fill(0.0);
        product(dp, columns, k, length, head_width, dq);
        dk.fill(0.0);
        transposed_product(dp, columns, q, length, head_width, dk);
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
    let columns = sizes.columns();
    let Scratch { q, k, kt, t, p, .. } = scratch;
    transpose(k, columns, head_width, kt);
    t.fill(0.0);
    product(q, head_width, kt, head_width, columns, t);
    let inverse = 1.0 / (softcap * (head_width as f32).sqrt());
    for value in t.iter_mut() {
        *value = tanh(*value * inverse);
    }
    for (t, p) in t.chunks_exact(columns).zip(p.chunks_exact_mut(columns)) {
        let max = softcap * max_by(length, |i| t[i]);
        for (p, &t) in p.iter_mut().zip(t) {
            *p = exp(softcap * t - max);
        }
        p[length..].fill(0.0);
        let scale = 1.0 / sum_by(columns, |i| p[i]);
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

/// Rows of `columns` numbers as columns, `stride` apart; what lies between the last and the next row is left alone.
#[inline(always)]
fn transpose(from: &[f32], stride: usize, columns: usize, to: &mut [f32]) {
    for (i, row) in from.chunks_exact(columns).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            to[j * stride + i] = value;
        }
    }
}

/// out += a·b for rows of a `stride` apart, their first `k` numbers, and b `[k, n]`.
#[inline(always)]
fn product(a: &[f32], stride: usize, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    tiles(|i, l| a[i * stride + l], b, k, n, out);
}

/// out += aᵀ·b for `k` rows of a `stride` apart and b `[k, n]`; as many columns of a as out has rows.
#[inline(always)]
fn transposed_product(a: &[f32], stride: usize, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    tiles(|i, l| a[l * stride + i], b, k, n, out);
}

/// out[i] += Σ_l a(i, l)·b[l] for rows of n numbers: a few rows of one vector at a time, so that the sums stay in registers.
#[inline(always)]
fn tiles(a: impl Fn(usize, usize) -> f32, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    const ROWS: usize = 4;
    let m = out.len() / n;
    let (rows, columns) = (m / ROWS * ROWS, n / VECTOR * VECTOR);
    for j in (0..columns).step_by(VECTOR) {
        for i in (0..rows).step_by(ROWS) {
            tile::<ROWS>(&a, b, k, n, out, i, j);
        }
        for i in rows..m {
            tile::<1>(&a, b, k, n, out, i, j);
        }
    }
    if columns < n {
        for (i, out) in out.chunks_exact_mut(n).enumerate() {
            for (l, b) in b.chunks_exact(n).take(k).enumerate() {
                let a = a(i, l);
                for (out, b) in out[columns..].iter_mut().zip(&b[columns..]) {
                    *out += a * b;
                }
            }
        }
    }
}

/// Rows i to i + R, columns j to j + [`VECTOR`].
#[inline(always)]
fn tile<const R: usize>(
    a: impl Fn(usize, usize) -> f32,
    b: &[f32],
    k: usize,
    n: usize,
    out: &mut [f32],
    i: usize,
    j: usize,
) {
    let mut sums = [[0.0_f32; VECTOR]; R];
    for l in 0..k {
        let b = &b[l * n + j..][..VECTOR];
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = a(i + r, l);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (out, sum) in out[(i + r) * n + j..][..VECTOR].iter_mut().zip(sums) {
            *out += sum;
        }
    }
}
