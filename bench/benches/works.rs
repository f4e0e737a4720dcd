//! All benchmarks, for `cargo bench`.

use burn::backend::Autodiff;
use burn_flex::Flex;
use criterion::{Criterion, criterion_group, criterion_main};
use flm_bench::{Bench, Sizes};
use std::time::Duration;

const BLOCK: Sizes = Sizes {
    vocab: 61,
    length: 128,
    width: 256,
    blocks: 1,
    heads: 4,
    cond: 128,
    batch: 16,
    parts: 1,
    dropout: 0.0,
};

/// A small network whose training step takes milliseconds.
const TINY: Sizes = Sizes {
    vocab: 8_192,
    length: 64,
    width: 128,
    blocks: 4,
    heads: 4,
    cond: 128,
    batch: 8,
    parts: 1,
    dropout: 0.1,
};

fn time(criterion: &mut Criterion, group: &str, works: Vec<(String, flm_bench::Work)>) {
    let mut group = criterion.benchmark_group(group);
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    for (name, mut work) in works {
        group.bench_function(name, |bencher| bencher.iter(&mut work));
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    flm_alloc::keep_memory();
    let bench = Bench::<Autodiff<Flex>>::default();
    let named = |name: &str, work| (name.to_owned(), work);
    time(
        criterion,
        "block",
        vec![
            named("forward", bench.block_forward(BLOCK)),
            named("forward and backward", bench.block_both(BLOCK)),
        ],
    );
    for vocab in [8_192, 30_522, 50_258] {
        let sizes = Sizes {
            vocab,
            width: 768,
            batch: 4,
            ..BLOCK
        };
        time(
            criterion,
            &format!("head of {vocab}"),
            vec![
                named("forward", bench.head_forward(sizes)),
                named("forward and backward", bench.head_both(sizes)),
            ],
        );
    }
    time(
        criterion,
        "training step",
        vec![
            named("flow", bench.flow_step(TINY)),
            named("semigroup", bench.semigroup_step(TINY)),
        ],
    );
    time(
        criterion,
        "sampling",
        vec![
            named("1 step", bench.sample(TINY, 1)),
            named("8 steps", bench.sample(TINY, 8)),
        ],
    );
    time(
        criterion,
        "mean embedding",
        vec![
            named("value", bench.evaluation(TINY)),
            named("value and derivative", bench.jvp(TINY)),
        ],
    );
    time(
        criterion,
        "outside the network",
        vec![
            named("schedule", flm_bench::schedule(50_258)),
            named("loading 512 rows", flm_bench::batches(TINY)),
        ],
    );
}

criterion_group!(benches, all);
criterion_main!(benches);
