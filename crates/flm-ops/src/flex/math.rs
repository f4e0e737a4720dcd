//! Branch-free transcendental functions on f32 that the compiler can vectorize after inlining into
//! a loop.

/// e^x to about 2 units in the last place. Arguments are clamped to the range in which the result
/// is a normal number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.0);
    // x = n·ln 2 + r with |r| ≤ ½ ln 2. ln 2 is split in two parts so that r keeps its digits.
    // Adding 1.5·2^23 rounds to the nearest integer.
    let magic = 12_582_912.0_f32;
    let shifted = x * std::f32::consts::LOG2_E + magic;
    let n = shifted - magic;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    // Minimax polynomial of Cephes' expf.
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // 2^n through the exponent bits: the low bits of `shifted` hold n.
    let exponent = (shifted.to_bits().wrapping_sub(magic.to_bits())).wrapping_add(127) << 23;
    y * f32::from_bits(exponent)
}

/// tanh with a relative error of 4e-7 (7 units in the last place, near ±6), by the odd rational
/// function of Eigen's `generic_fast_tanh_float`. It is exactly ±1 from the clamp on.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let x = x.clamp(-7.905_311, 7.905_311);
    let x2 = x * x;
    let p = -2.760_768_4e-16;
    let p = p * x2 + 2.000_188e-13;
    let p = p * x2 - 8.604_672e-11;
    let p = p * x2 + 5.122_297_3e-8;
    let p = p * x2 + 1.485_722_35e-5;
    let p = p * x2 + 6.372_619_5e-4;
    let p = p * x2 + 4.893_524_6e-3;
    let q = 1.198_258_4e-6;
    let q = q * x2 + 1.185_347_1e-4;
    let q = q * x2 + 2.268_434_7e-3;
    let q = q * x2 + 4.893_525e-3;
    x * p / q
}

/// 1/(1 + e^−x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Number of partial sums, which let the compiler add in parallel what it must not reorder.
const LANES: usize = 16;

/// Σ f(i) for i below n, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn sum_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    let mut total: f32 = lanes.iter().sum();
    for i in whole..n {
        total += f(i);
    }
    total
}

/// The largest f(i) for i below n, or −∞ if n is zero.
#[inline(always)]
pub(crate) fn max_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, max) in lanes.iter_mut().enumerate() {
            let value = f(i + lane);
            *max = if value > *max { value } else { *max };
        }
        i += LANES;
    }
    let tail = (whole..n).map(f);
    lanes
        .into_iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 2e-4)
    }

    #[test]
    fn exp_and_tanh_agree_with_double_precision() {
        for x in grid() {
            let e = (x as f64).exp();
            assert!((exp(x) as f64 - e).abs() <= 4e-7 * e, "exp({x})");
            let t = (x as f64).tanh();
            assert!(
                (tanh(x) as f64 - t).abs() <= 4e-7 * t.abs() + 1e-12,
                "tanh({x})"
            );
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for x in [f32::MAX, f32::MIN, 1e4, -1e4] {
            assert!(
                exp(x).is_finite() && tanh(x).abs() <= 1.0 && (0.0..=1.0).contains(&sigmoid(x))
            );
        }
        assert!(exp(-1e4) < 1e-37);
    }
}
