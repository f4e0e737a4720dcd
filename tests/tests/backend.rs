//! The backend checks on the CPU, with its kernels and with the compositions used without them.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, Part, Soak, soak};
use flm_tests::parity::Source;

fn assert_all_hold<B: AutodiffBackend>() {
    let source = Source::golden();
    let (mut checks, mut half) = (0, 0);
    for part in Part::ALL {
        let lines = part.lines::<B>(&source, &Bounds::SINGLE).unwrap();
        checks += lines.len();
        for line in lines {
            half += usize::from(line.name.starts_with("bf16: "));
            assert!(line.holds(), "{}: {line}", part.name());
        }
    }
    // docs/guides/gpus.md states these numbers.
    assert_eq!((checks, checks - half), (138, 95));
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
    let after = |kept: f64| {
        // The first steps add 50 MiB, as pools are filled.
        let taken = |asked: u64| (15 * asked, 150.0 + 15.0 * asked as f64 * kept);
        Soak {
            samples: std::iter::once((15, 100.0))
                .chain((2..=20).map(taken))
                .collect(),
        }
    };
    assert_eq!(after(0.1).growth(), 15.0);
    assert!(!after(0.1).holds() && after(0.0).holds());
}

#[test]
fn memory_is_asked_for_all_along_a_training() {
    type Train = Autodiff<Flex>;
    let mut asked = 0;
    let mut count = || {
        asked += 1;
        Some(f64::from(asked))
    };
    let found = soak::<Train>(40, &mut count).unwrap();
    assert_eq!(found.samples.len(), 20);
    assert_eq!(
        (found.samples[0], found.samples[19]),
        ((2, 1.0), (40, 20.0))
    );
    // One failed measurement fails the whole run.
    let mut once = Some(1.0);
    let unknown = soak::<Train>(20, || once.take());
    assert!(unknown.unwrap_err().contains("how much memory"));
    let few = soak::<Train>(19, || Some(1.0));
    assert!(few.unwrap_err().contains("at least 20 steps, found 19"));
}
