//! What is timed, as closures that do one repetition each: for criterion (`cargo bench`) and, each in a process of its own,
//! for `cargo xtask bench`.
//!
//! They go through the same code as a user's run: a training step is one of `flm_train`'s, with optimizer and average.

mod training;

pub use training::{batches, flow_step, semigroup_step};

use burn::backend::Autodiff;
use burn::tensor::{Distribution, Int, Tensor, backend::Backend};
use burn_flex::Flex;
use flm_denoiser::{Block, Dit, DitConfig, Dropout, Dual, OutputLayer, Prior, Rope, Sampling};
use flm_simplex::{Schedule, sampler, stream::generator};

/// The differentiated CPU backend.
pub type Train = Autodiff<Flex>;

/// One repetition of a piece of work.
pub type Work = Box<dyn FnMut()>;

/// Sizes of a network and a batch.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct Sizes {
    /// Tokens in the vocabulary.
    #[arg(long, default_value_t = 61)]
    pub vocab: usize,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 16)]
    pub length: usize,
    /// Width of the network.
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Transformer blocks.
    #[arg(long, default_value_t = 2)]
    pub blocks: usize,
    /// Attention heads in a block.
    #[arg(long, default_value_t = 4)]
    pub heads: usize,
    /// Width of the time embedding.
    #[arg(long, default_value_t = 128)]
    pub cond: usize,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 4)]
    pub batch: usize,
    /// Chance with which residual branches drop an entry in training.
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
}

impl Sizes {
    /// The sizes as a network's.
    pub fn config(&self) -> DitConfig {
        DitConfig {
            cond_dim: self.cond,
            ..DitConfig::new(self.vocab, self.length, self.width, self.blocks, self.heads)
        }
    }

    fn rope<B: Backend>(&self) -> Rope<B> {
        let head = self.width / self.heads;
        Rope::new(
            self.length,
            head,
            self.config().rope_base,
            &Default::default(),
        )
    }
}

fn normal<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

/// A transformer block, forward alone.
pub fn block_forward(sizes: Sizes) -> Work {
    let mut rng = generator(0, 0, 0, 0);
    let block = Block::<Flex>::new(&sizes.config(), &mut rng, &Default::default());
    let x: Tensor<Flex, 3> = normal([sizes.batch, sizes.length, sizes.width]);
    let cond: Tensor<Flex, 2> = normal([sizes.batch, sizes.cond]);
    let rope = sizes.rope();
    Box::new(move || {
        let out = block.forward(x.clone(), cond.clone(), &rope, &mut Dropout::off());
        std::hint::black_box(out);
    })
}

/// A transformer block, forward and backward.
pub fn block_both(sizes: Sizes) -> Work {
    let mut rng = generator(0, 0, 0, 0);
    let block = Block::<Train>::new(&sizes.config(), &mut rng, &Default::default());
    let x: Tensor<Train, 3> = normal([sizes.batch, sizes.length, sizes.width]);
    let cond: Tensor<Train, 2> = normal([sizes.batch, sizes.cond]);
    let rope = sizes.rope();
    Box::new(move || {
        let x = x.clone().require_grad();
        let out = block.forward(x, cond.clone(), &rope, &mut Dropout::off());
        std::hint::black_box(out.sum().backward());
    })
}

fn tokens<B: Backend>(sizes: Sizes) -> Tensor<B, 2, Int> {
    let range = Distribution::Uniform(0.0, sizes.vocab as f64);
    Tensor::random([sizes.batch, sizes.length], range, &Default::default())
}

/// The vocabulary head and its cross-entropy against tokens, forward alone.
pub fn head_forward(sizes: Sizes) -> Work {
    let head = OutputLayer::<Flex>::new(&sizes.config(), &Default::default());
    let x: Tensor<Flex, 3> = normal([sizes.batch, sizes.length, sizes.width]);
    let cond: Tensor<Flex, 2> = normal([sizes.batch, sizes.cond]);
    let tokens = tokens::<Flex>(sizes);
    Box::new(move || {
        let prediction = head.forward(x.clone(), cond.clone());
        std::hint::black_box(prediction.log_probs(tokens.clone()));
    })
}

/// The vocabulary head and its cross-entropy against tokens, forward and backward.
pub fn head_both(sizes: Sizes) -> Work {
    let head = OutputLayer::<Train>::new(&sizes.config(), &Default::default());
    let x: Tensor<Train, 3> = normal([sizes.batch, sizes.length, sizes.width]);
    let cond: Tensor<Train, 2> = normal([sizes.batch, sizes.cond]);
    let tokens = tokens::<Train>(sizes);
    let weights = Tensor::full([sizes.batch, sizes.length], 1.0, &Default::default());
    Box::new(move || {
        let prediction = head.forward(x.clone().require_grad(), cond.clone());
        let score = prediction.cross_entropy(tokens.clone(), weights.clone());
        std::hint::black_box(score.loss.backward());
    })
}

/// A two-time network, a state and a time.
fn network(sizes: Sizes) -> (Dit<Flex>, Tensor<Flex, 3>, Tensor<Flex, 1>) {
    let model = sizes
        .config()
        .with_two_time(true)
        .init::<Flex>(&mut generator(0, 0, 0, 0), &Default::default())
        .expect("possible sizes");
    let state = normal([sizes.batch, sizes.length, sizes.width]);
    (
        model,
        state,
        Tensor::full([sizes.batch], 0.5, &Default::default()),
    )
}

/// One evaluation of a two-time network, to the mean D·E.
pub fn evaluation(sizes: Sizes) -> Work {
    let (model, state, tau) = network(sizes);
    Box::new(move || {
        let (state, tau) = (state.clone(), tau.clone());
        let prediction = model.forward(state, tau.clone(), tau, &mut Dropout::off());
        std::hint::black_box(prediction.belief().mean(model.embed()));
    })
}

/// The same with its derivative when state and both times move.
pub fn jvp(sizes: Sizes) -> Work {
    let (model, state, tau) = network(sizes);
    let moves = normal([sizes.batch, sizes.length, sizes.width]);
    Box::new(move || {
        let state = Dual {
            value: state.clone(),
            tangent: moves.clone(),
        };
        let tau = Dual {
            value: tau.clone(),
            tangent: tau.ones_like(),
        };
        std::hint::black_box(model.jvp(state, tau.clone(), tau).mean(model.embed()));
    })
}

/// Samples of a flow map in `jumps` evaluations, from noise to tokens.
pub fn sample(sizes: Sizes, jumps: usize) -> Work {
    let config = sizes.config().with_two_time(true);
    let mut rng = generator(0, 0, 0, 0);
    let model = config
        .init::<Flex>(&mut rng, &Default::default())
        .expect("possible sizes");
    let schedule = config.schedule().expect("a vocabulary with a schedule");
    let prior = Prior::new(model.embed());
    Box::new(move || {
        let start = prior
            .draw(sizes.batch, sizes.length, &mut rng)
            .seen(model.embed());
        let denoiser = Sampling::new(&model);
        let none = || unreachable!("no noise is put back");
        let belief = sampler::flow_map(&denoiser, &schedule, start, jumps, 0.0, none, |_| ());
        std::hint::black_box(belief.expect("possible settings").argmax().into_data());
    })
}

/// A product of two square matrices of 1,024: 2.15 GFLOP.
pub fn peak() -> Work {
    let [a, b]: [Tensor<Flex, 2>; 2] = [normal([1024, 1024]), normal([1024, 1024])];
    Box::new(move || {
        std::hint::black_box(a.clone().matmul(b.clone()));
    })
}

/// The time schedule of a vocabulary.
pub fn schedule(vocab: usize) -> Work {
    Box::new(move || {
        std::hint::black_box(Schedule::new(vocab).expect("a vocabulary with a schedule"));
    })
}
