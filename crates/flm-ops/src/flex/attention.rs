//! Rotary self-attention with soft-capped scores, from the fused projection to the mixed values,
//! one head at a time.
//!
//! The scores of a tile of a head's queries live in scratch memory of one task and are computed
//! again in the backward pass, so no memory of size length² is kept.

use super::buffer::{contiguous, dims, rows_per_task, tensor, values};
use super::math::{exp, max_by, sum_by, tanh};
use crate::Attention;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// The fixed parts of an attention: heads, softcap, causality, and the rotary tables
/// `[length, head_width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) heads: usize,
    pub(crate) softcap: f32,
    pub(crate) causal: bool,
    pub(crate) cos: FlexTensor,
    pub(crate) sin: FlexTensor,
}

impl Setting {
    pub(crate) fn new(cos: FlexTensor, sin: FlexTensor, attention: Attention) -> Self {
        Self {
            heads: attention.heads,
            softcap: attention.softcap as f32,
            causal: attention.causal,
            cos: contiguous(cos),
            sin: contiguous(sin),
        }
    }
}

/// Sizes of one sequence: `qkv` rows are 3·heads·head_width wide.
#[derive(Clone, Copy)]
struct Sizes {
    length: usize,
    heads: usize,
    head_width: usize,
    causal: bool,
}

/// Queries whose scores are computed together: few enough to stay in a core's cache.
const TILE: usize = 64;
/// Rows of scores are padded to whole vectors, because a remainder is processed one number at a
/// time.
const VECTOR: usize = 16;

impl Sizes {
    fn of(qkv: &FlexTensor, setting: &Setting) -> Self {
        let [_, length, triple] = dims(qkv);
        Self {
            length,
            heads: setting.heads,
            head_width: triple / 3 / setting.heads,
            causal: setting.causal,
        }
    }

    /// Returns how many positions, from the first on, a query sees.
    #[inline(always)]
    fn seen(self, query: usize) -> usize {
        if self.causal { query + 1 } else { self.length }
    }

    fn width(self) -> usize {
        self.heads * self.head_width
    }

    /// Returns the number of heads per task: small heads share a task.
    fn heads_per_task(self) -> usize {
        rows_per_task(self.length * self.columns())
    }

    /// Returns the length of a padded row of scores.
    fn columns(self) -> usize {
        self.length.next_multiple_of(VECTOR)
    }
}

/// `qkv` `[batch, length, 3·width]` → `[batch, length, width]`.
pub(crate) fn forward(qkv: FlexTensor, setting: &Setting) -> FlexTensor {
    let [batch, length, triple] = dims(&qkv);
    let qkv = contiguous(qkv);
    let sizes = Sizes::of(&qkv, setting);
    let (input, cos, sin) = (values(&qkv), values(&setting.cos), values(&setting.sin));
    let mut heads = vec![0.0; batch * length * sizes.width()];
    heads
        .par_chunks_mut(length * sizes.head_width)
        .with_min_len(sizes.heads_per_task())
        .enumerate()
        .for_each_init(
            || Scratch::new(sizes),
            |scratch, (i, out)| {
                let (sequence, head) = (i / sizes.heads, i % sizes.heads);
                let qkv = &input[sequence * length * triple..][..length * triple];
                load_head(qkv, cos, sin, sizes, head, scratch);
                forward_head(setting.softcap, sizes, scratch, out);
            },
        );
    tensor(interleave(&heads, sizes, 1), [batch, length, sizes.width()])
}

/// Returns the gradient to `qkv`.
pub(crate) fn backward(qkv: &FlexTensor, setting: &Setting, grad: FlexTensor) -> FlexTensor {
    let [batch, length, triple] = dims(qkv);
    let grad = contiguous(grad);
    let sizes = Sizes::of(qkv, setting);
    let (input, upstream) = (values(qkv), values(&grad));
    let (cos, sin, width) = (values(&setting.cos), values(&setting.sin), sizes.width());
    let mut heads = vec![0.0; input.len()];
    heads
        .par_chunks_mut(3 * length * sizes.head_width)
        .with_min_len(sizes.heads_per_task())
        .enumerate()
        .for_each_init(
            || Scratch::new(sizes),
            |scratch, (i, out)| {
                let (sequence, head) = (i / sizes.heads, i % sizes.heads);
                let qkv = &input[sequence * length * triple..][..length * triple];
                let grad = &upstream[sequence * length * width..][..length * width];
                load_head(qkv, cos, sin, sizes, head, scratch);
                let first = head * sizes.head_width;
                load_rows(grad, sizes.head_width, width, first, &mut scratch.g);
                backward_head(cos, sin, setting.softcap, sizes, scratch, out);
            },
        );
    tensor(interleave(&heads, sizes, 3), [batch, length, triple])
}

/// Returns the mixed values and their tangent when `qkv` moves by `tangent`, each
/// `[batch, length, width]`.
pub(crate) fn tangent(
    qkv: &FlexTensor,
    tangent: &FlexTensor,
    setting: &Setting,
) -> (FlexTensor, FlexTensor) {
    let [batch, length, triple] = dims(qkv);
    let sizes = Sizes::of(qkv, setting);
    let (input, moves) = (values(qkv), values(tangent));
    let (cos, sin, width) = (values(&setting.cos), values(&setting.sin), sizes.width());
    let mut mixed = vec![0.0; batch * length * width];
    let mut mixed_moves = vec![0.0; batch * length * width];
    let head = length * sizes.head_width;
    mixed
        .par_chunks_mut(head)
        .zip(mixed_moves.par_chunks_mut(head))
        .with_min_len(sizes.heads_per_task())
        .enumerate()
        .for_each_init(
            || (Scratch::new(sizes), Scratch::new(sizes)),
            |(at, moving), (i, (out, out_moves))| {
                let (sequence, head) = (i / sizes.heads, i % sizes.heads);
                let of = |rows: &'_ [f32]| sequence * length * triple..rows.len();
                load_head(&input[of(input)], cos, sin, sizes, head, at);
                load_head(&moves[of(moves)], cos, sin, sizes, head, moving);
                tangent_head(setting.softcap, sizes, at, moving, out, out_moves);
            },
        );
    let [value, tangent] = [mixed, mixed_moves]
        .map(|heads| tensor(interleave(&heads, sizes, 1), [batch, length, width]));
    (value, tangent)
}

/// Reorders `[batch, heads, parts, length, head_width]` as
/// `[batch, length, parts, heads, head_width]`.
fn interleave(heads: &[f32], sizes: Sizes, parts: usize) -> Vec<f32> {
    let (head, row) = (sizes.length * sizes.head_width, parts * sizes.width());
    let mut out = vec![0.0; heads.len()];
    out.par_chunks_mut(row)
        .with_min_len(rows_per_task(row))
        .enumerate()
        .for_each(|(i, out)| {
            let (sequence, position) = (i / sizes.length, i % sizes.length);
            let heads = &heads[sequence * sizes.length * row..];
            for (j, out) in out.chunks_exact_mut(sizes.head_width).enumerate() {
                let (part, number) = (j / sizes.heads, j % sizes.heads);
                let from = (number * parts + part) * head + position * sizes.head_width;
                out.copy_from_slice(&heads[from..from + sizes.head_width]);
            }
        });
    out
}

/// Scratch memory of one task.
struct Scratch {
    /// Queries, keys, values, and the upstream gradient of a head, `[length, head_width]` each.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    /// Transposes, `[head_width, columns]`, zero in the padding.
    kt: Vec<f32>,
    vt: Vec<f32>,
    /// `[rows of a tile, columns]`: tanh of the scaled scores, weights (zero in the padding), and
    /// the gradient to the weights.
    t: Vec<f32>,
    p: Vec<f32>,
    dp: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let rows = || vec![0.0; sizes.length * sizes.head_width];
        let columns = || vec![0.0; sizes.columns() * sizes.head_width];
        let tile = || vec![0.0; TILE.min(sizes.length) * sizes.columns()];
        Self {
            q: rows(),
            k: rows(),
            v: rows(),
            g: rows(),
            kt: columns(),
            vt: columns(),
            t: tile(),
            p: tile(),
            dp: tile(),
        }
    }
}

/// Computes the mixed values of a loaded head, `[length, head_width]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_head(softcap: f32, sizes: Sizes, scratch: &mut Scratch, out: &mut [f32]) {
    let (length, width, columns) = (sizes.length, sizes.head_width, sizes.columns());
    let Scratch {
        q, k, v, kt, t, p, ..
    } = scratch;
    transpose(k, columns, width, kt);
    let tiles = q.chunks(TILE * width).zip(out.chunks_mut(TILE * width));
    for (first, (q, out)) in (0..length).step_by(TILE).zip(tiles) {
        let rows = q.len() / width;
        let (t, p) = (&mut t[..rows * columns], &mut p[..rows * columns]);
        weights(softcap, sizes, first, q, kt, t, p);
        product(p, columns, v, sizes.seen(first + rows - 1), width, out);
    }
}

/// Computes the mixed values of a loaded head and their tangents, `[length, head_width]` each. Both
/// must start as zeros.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn tangent_head(
    softcap: f32,
    sizes: Sizes,
    at: &mut Scratch,
    moving: &mut Scratch,
    out: &mut [f32],
    out_moves: &mut [f32],
) {
    let (length, width, columns) = (sizes.length, sizes.head_width, sizes.columns());
    let scale = 1.0 / (width as f32).sqrt();
    let Scratch {
        q,
        k,
        v,
        kt,
        t,
        p,
        dp,
        ..
    } = at;
    transpose(k, columns, width, kt);
    transpose(&moving.k, columns, width, &mut moving.kt);
    let tiles = q.chunks(TILE * width).zip(moving.q.chunks(TILE * width));
    let outs = out
        .chunks_mut(TILE * width)
        .zip(out_moves.chunks_mut(TILE * width));
    for (first, ((q, q_moves), (out, out_moves))) in (0..length).step_by(TILE).zip(tiles.zip(outs))
    {
        let scores = q.len() / width * columns;
        let (t, p, dp) = (&mut t[..scores], &mut p[..scores], &mut dp[..scores]);
        weights(softcap, sizes, first, q, kt, t, p);
        dp.fill(0.0);
        product(q_moves, width, kt, width, columns, dp);
        product(q, width, &moving.kt, width, columns, dp);
        let rows = p.chunks_exact(columns).zip(t.chunks_exact(columns));
        for (dp, (p, t)) in dp.chunks_exact_mut(columns).zip(rows) {
            for (dp, t) in dp.iter_mut().zip(t) {
                *dp *= (1.0 - t * t) * scale;
            }
            let mean = sum_by(columns, |j| p[j] * dp[j]);
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - mean);
            }
        }
        product(p, columns, v, length, width, out);
        product(dp, columns, v, length, width, out_moves);
        product(p, columns, &moving.v, length, width, out_moves);
    }
}

/// Computes the gradients to queries, keys and values of a loaded head, `[3, length, head_width]`.
/// `out` must start as zeros.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn backward_head(
    cos: &[f32],
    sin: &[f32],
    softcap: f32,
    sizes: Sizes,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (length, width, columns) = (sizes.length, sizes.head_width, sizes.columns());
    let scale = 1.0 / (width as f32).sqrt();
    let Scratch {
        q,
        k,
        v,
        g,
        kt,
        vt,
        t,
        p,
        dp,
    } = scratch;
    transpose(k, columns, width, kt);
    transpose(v, columns, width, vt);
    let (dq, rest) = out.split_at_mut(length * width);
    let (dk, dv) = rest.split_at_mut(length * width);
    let tiles = q.chunks(TILE * width).zip(g.chunks(TILE * width));
    let tiles = tiles.zip(dq.chunks_mut(TILE * width));
    for (first, ((q, g), dq)) in (0..length).step_by(TILE).zip(tiles) {
        let rows = q.len() / width;
        let seen = sizes.seen(first + rows - 1);
        let (t, p, dp) = (
            &mut t[..rows * columns],
            &mut p[..rows * columns],
            &mut dp[..rows * columns],
        );
        weights(softcap, sizes, first, q, kt, t, p);
        // dv = Pᵀ·g, dP = g·vᵀ
        transposed_product(p, columns, g, rows, width, &mut dv[..seen * width]);
        dp.fill(0.0);
        product(g, width, vt, width, columns, dp);
        let scores = p.chunks_exact(columns).zip(t.chunks_exact(columns));
        for (dp, (p, t)) in dp.chunks_exact_mut(columns).zip(scores) {
            let mean = sum_by(columns, |j| p[j] * dp[j]);
            for ((dp, p), t) in dp.iter_mut().zip(p).zip(t) {
                *dp = p * (*dp - mean) * (1.0 - t * t) * scale;
            }
        }
        product(dp, columns, k, seen, width, dq);
        transposed_product(dp, columns, q, rows, width, &mut dk[..seen * width]);
    }
    turn(dq, cos, sin, width, -1.0);
    turn(dk, cos, sin, width, -1.0);
}

/// Loads queries, keys (both rotated) and values of one head.
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

/// Computes t = tanh(q·k/(c·√head_width)) and p = softmax(c·t) for the queries of a tile that
/// starts at position `first`. p is zero at positions that a query does not see.
#[inline(always)]
fn weights(
    softcap: f32,
    sizes: Sizes,
    first: usize,
    q: &[f32],
    kt: &[f32],
    t: &mut [f32],
    p: &mut [f32],
) {
    let (width, columns) = (sizes.head_width, sizes.columns());
    t.fill(0.0);
    product(q, width, kt, width, columns, t);
    let inverse = 1.0 / (softcap * (width as f32).sqrt());
    for value in t.iter_mut() {
        *value = tanh(*value * inverse);
    }
    let rows = t.chunks_exact(columns).zip(p.chunks_exact_mut(columns));
    for (query, (t, p)) in rows.enumerate() {
        let seen = sizes.seen(first + query);
        let max = softcap * max_by(seen, |i| t[i]);
        for (p, &t) in p.iter_mut().zip(t) {
            *p = exp(softcap * t - max);
        }
        p[seen..].fill(0.0);
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

/// Rotates each row by its position's angles, or back with `direction` −1.
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

/// Writes rows of `columns` numbers as columns, `stride` apart. Numbers between the columns stay
/// unchanged.
#[inline(always)]
fn transpose(from: &[f32], stride: usize, columns: usize, to: &mut [f32]) {
    for (i, row) in from.chunks_exact(columns).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            to[j * stride + i] = value;
        }
    }
}

/// out += a·b, for rows of a `stride` apart, of which the first `k` numbers count, and b `[k, n]`.
#[inline(always)]
fn product(a: &[f32], stride: usize, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    tiles(|i, l| a[i * stride + l], b, k, n, out);
}

/// out += aᵀ·b, for `k` rows of a `stride` apart and b `[k, n]`, with as many columns of a as out
/// has rows.
#[inline(always)]
fn transposed_product(a: &[f32], stride: usize, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    tiles(|i, l| a[l * stride + i], b, k, n, out);
}

/// out[i] += Σ_l a(i, l)·b[l] for rows of n numbers: a few rows of one vector at a time, so that
/// the sums stay in registers.
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
