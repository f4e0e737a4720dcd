//! Parameter updates, against burn's optimizer and against the compositions.

use super::{assert_close, flat, leaf};
use crate::{AdamW, reference};
use burn::optim::{AdamWConfig, SimpleOptimizer};
use burn::tensor::Tensor;
use burn_flex::Flex;

/// More values than one task handles, with a remainder.
const COUNT: usize = 40_001;

fn wave(phase: f32) -> Tensor<Flex, 1> {
    let values: Vec<f32> = (0..COUNT)
        .map(|i| (i as f32 * 0.37 + phase).sin())
        .collect();
    leaf(&values)
}

fn rule(time: usize) -> AdamW {
    AdamW {
        lr: 0.05,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.1,
        time,
    }
}

#[test]
fn adamw_is_burns_over_several_steps() {
    let theirs = AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(0.98)
        .with_epsilon(1e-8)
        .with_weight_decay(0.1)
        .build();
    let (mut expected, mut state) = (wave(0.0), None);
    let [mut found, mut first, mut second] = [wave(0.0), wave(0.0) * 0.0, wave(0.0) * 0.0];
    let mut composed = [found.clone(), first.clone(), second.clone()];
    for time in 1..=5 {
        let rule = rule(time);
        let grad = wave(time as f32);
        (expected, state) = theirs.step(0.05, expected, grad.clone(), state);
        [found, first, second] = crate::adamw(&rule, found, grad.clone(), first, second);
        let [param, m, v] = composed;
        composed = reference::adamw(&rule, param, grad, m, v);
    }
    assert_close(&flat(found), &flat(expected.clone()), "kernel");
    assert_close(&flat(composed[0].clone()), &flat(expected), "composition");
    assert_close(&flat(first), &flat(composed[1].clone()), "first moment");
    assert_close(&flat(second), &flat(composed[2].clone()), "second moment");
}

#[test]
fn what_somebody_else_holds_is_not_written_over() {
    let (kept, grad) = (wave(0.0), wave(1.0));
    let before = flat(kept.clone());
    let _ = crate::adamw(&rule(1), kept.clone(), grad, kept.clone(), kept.clone());
    let _ = crate::blend(kept.clone(), wave(2.0), 0.5);
    let _ = crate::scale(kept.clone(), 3.0);
    assert_eq!(flat(kept), before);
}

#[test]
fn blends_scales_and_sums_of_squares_agree() {
    let (a, b) = (wave(0.0), wave(2.0));
    let blend = crate::blend(a.clone(), b.clone(), 0.75);
    assert_close(&flat(blend), &flat(a.clone() * 0.75 + b * 0.25), "blend");
    assert_close(
        &flat(crate::scale(a.clone(), 3.0)),
        &flat(a.clone() * 3.0),
        "scale",
    );
    let exact: f64 = flat(a.clone()).iter().map(|x| f64::from(*x).powi(2)).sum();
    let found = flat(crate::sum_of_squares(a))[0];
    assert!(
        (f64::from(found) - exact).abs() < 1e-6 * exact,
        "{found} for {exact}"
    );
}
