//! The benchmarks: their sizes and counted costs.

/// Sizes of a network and a batch.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) vocab: usize,
    pub(super) length: usize,
    pub(super) width: usize,
    pub(super) blocks: usize,
    pub(super) heads: usize,
    pub(super) batch: usize,
    /// Parts of the batch that a step trains on in sequence.
    pub(super) parts: usize,
}

const COND: usize = 128;

const BLOCK: Sizes = Sizes {
    vocab: 61,
    length: 128,
    width: 256,
    blocks: 1,
    heads: 4,
    batch: 16,
    parts: 1,
};
pub(super) const SMALL: Sizes = Sizes {
    vocab: 30_522,
    length: 128,
    width: 768,
    blocks: 12,
    heads: 12,
    batch: 4,
    parts: 1,
};
pub(super) const LONG: Sizes = Sizes {
    vocab: 50_258,
    length: 1024,
    batch: 1,
    ..SMALL
};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Block { backward: bool },
    Head { backward: bool },
    Flow,
    Semigroup,
    Sample { jumps: usize },
}

pub(super) struct Work {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) sizes: Sizes,
    /// Goal: the speed-up over PyTorch as released.
    pub(super) goal: Option<f64>,
}

pub(super) fn works() -> Vec<Work> {
    let work = |name: &str, kind, sizes, goal| Work {
        name: name.to_owned(),
        kind,
        sizes,
        goal,
    };
    let mut works = vec![
        work(
            "block, forward",
            Kind::Block { backward: false },
            BLOCK,
            Some(1.0),
        ),
        work(
            "block, forward and backward",
            Kind::Block { backward: true },
            BLOCK,
            Some(1.0),
        ),
    ];
    for vocab in [8_192, 30_522, 50_258] {
        let sizes = Sizes { vocab, ..SMALL };
        let name = format!("head of {vocab}, forward and backward");
        works.push(work(&name, Kind::Head { backward: true }, sizes, None));
    }
    let one = Kind::Sample { jumps: 1 };
    works.extend([
        work(
            "flow step, V 30,522, L 128, batch 4",
            Kind::Flow,
            SMALL,
            Some(1.25),
        ),
        work(
            "flow step, V 50,258, L 1,024, batch 1",
            Kind::Flow,
            LONG,
            Some(1.25),
        ),
        work(
            "semigroup step, V 30,522, L 128, batch 4",
            Kind::Semigroup,
            SMALL,
            Some(1.3),
        ),
        work(
            "sample in 1 step, batch 1",
            one,
            Sizes { batch: 1, ..SMALL },
            Some(1.4),
        ),
        work(
            "sample in 1 step, batch 8",
            one,
            Sizes { batch: 8, ..SMALL },
            Some(1.4),
        ),
        work(
            "sample in 8 steps, batch 1",
            Kind::Sample { jumps: 8 },
            Sizes { batch: 1, ..SMALL },
            None,
        ),
    ]);
    for vocab in [1_000, 3_000, 10_000, 30_000, 100_000] {
        let sizes = Sizes {
            vocab,
            width: 256,
            blocks: 4,
            heads: 4,
            ..SMALL
        };
        let name = format!("sweep: flow step, width 256, V {vocab}");
        works.push(work(&name, Kind::Flow, sizes, None));
        let name = format!("sweep: head alone, width 256, V {vocab}");
        works.push(work(&name, Kind::Head { backward: true }, sizes, None));
    }
    works
}

impl Work {
    fn is_training(&self) -> bool {
        matches!(self.kind, Kind::Flow | Kind::Semigroup)
    }

    /// The command, its options, warm-ups and repetitions.
    pub(super) fn arguments(&self, repeat: usize) -> Vec<String> {
        let (name, extra): (_, Vec<String>) = match self.kind {
            Kind::Block { backward } => ("block", flag(backward)),
            Kind::Head { backward } => ("head", flag(backward)),
            Kind::Flow => ("flow", Vec::new()),
            Kind::Semigroup => ("semigroup", Vec::new()),
            Kind::Sample { jumps } => ("sample", vec!["--jumps".to_owned(), jumps.to_string()]),
        };
        let sizes = &self.sizes;
        let repeat = if matches!(self.kind, Kind::Block { .. }) {
            20
        } else {
            repeat
        };
        let dropout = if self.is_training() { 0.1 } else { 0.0 };
        let mut arguments = vec![name.to_owned()];
        for (option, value) in [
            ("--vocab", sizes.vocab),
            ("--length", sizes.length),
            ("--width", sizes.width),
            ("--blocks", sizes.blocks),
            ("--heads", sizes.heads),
            ("--cond", COND),
            ("--batch", sizes.batch),
            ("--parts", sizes.parts),
            // Two: the second step still touches new memory.
            ("--warmup", 2),
            ("--repeat", repeat),
        ] {
            arguments.extend([option.to_owned(), value.to_string()]);
        }
        arguments.extend(["--dropout".to_owned(), dropout.to_string()]);
        arguments.extend(extra);
        arguments
    }

    /// Floating-point operations of the necessary matrix products: blocks, head and D·E.
    pub(super) fn operations(&self) -> f64 {
        let Sizes {
            vocab,
            length,
            width,
            blocks,
            batch,
            ..
        } = self.sizes;
        let [v, l, d, n] = [vocab, length, width, batch * length].map(|x| x as f64);
        let network = blocks as f64 * n * (24.0 * d * d + 4.0 * l * d);
        let head = 2.0 * n * d * v;
        match self.kind {
            Kind::Block { backward } => network * if backward { 3.0 } else { 1.0 },
            Kind::Head { backward } => head * if backward { 3.0 } else { 1.0 },
            Kind::Flow => 3.0 * (network + head),
            // Half of the rows are on the diagonal, with one evaluation of the teacher; the others
            // have two of the student.
            Kind::Semigroup => 4.5 * (network + head) + 0.5 * head,
            Kind::Sample { jumps } => jumps as f64 * (network + head) + (jumps - 1) as f64 * head,
        }
    }

    /// MiB of weights, averages, gradients, moments and a teacher.
    pub(super) fn state(&self) -> f64 {
        let Sizes {
            vocab,
            width,
            blocks,
            ..
        } = self.sizes;
        let block = blocks * (12 * width * width + 7 * width + 6 * width * (COND + 1));
        let head = width * vocab + vocab;
        let network = block + head + vocab * width;
        let numbers = match self.kind {
            Kind::Block { backward } => block * if backward { 2 } else { 1 },
            Kind::Head { backward } => head * if backward { 2 } else { 1 },
            Kind::Flow => 5 * network,
            Kind::Semigroup => 6 * network,
            Kind::Sample { .. } => network,
        };
        (numbers * 4) as f64 / f64::from(1 << 20)
    }
}

fn flag(backward: bool) -> Vec<String> {
    backward
        .then(|| "--backward".to_owned())
        .into_iter()
        .collect()
}
