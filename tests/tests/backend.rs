//! The checks of any backend, on the CPU: with its kernels, and without, as every other backend computes.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, lines};
use flm_tests::parity::Source;

fn assert_all_hold<B: AutodiffBackend>() {
    let lines = lines::<B>(&Source::golden(), &Bounds::SINGLE).unwrap();
    assert!(lines.len() > 80, "{}", lines.len());
    for line in lines {
        assert!(line.holds(), "{line}");
    }
}

#[test]
fn the_cpu_passes_with_its_kernels() {
    assert_all_hold::<Autodiff<Flex>>();
}

#[test]
fn the_cpu_passes_without_kernels() {
    assert_all_hold::<Autodiff<Flex, BalancedCheckpointing>>();
}
