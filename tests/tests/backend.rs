//! The checks of any backend, on the CPU: with its kernels, and without, as every other backend computes.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, Soak, lines, soak};
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

#[test]
fn what_grows_in_a_long_training_is_told() {
    // As if every step kept 0.1 MiB, and as if only the first had.
    for (kept, holds) in [(0.1, false), (0.0, true)] {
        let mut taken = 100.0;
        let mut steps = 0;
        let found = soak::<Autodiff<Flex>>(100, &mut || {
            steps += 1;
            taken += 5.0 * kept + if steps == 1 { 50.0 } else { 0.0 };
            Some(taken)
        });
        let found = found.unwrap();
        assert_eq!(found.samples.len(), 20);
        assert_eq!(found.samples[19].0, 100);
        assert_eq!(found.holds(), holds, "{}", found.growth());
    }
    assert!(!Soak::default().holds());
    let unknown = soak::<Autodiff<Flex>>(2, &mut || None);
    assert!(unknown.unwrap_err().contains("how much memory"));
}
