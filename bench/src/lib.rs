//! Benchmark workloads, as closures that each do one repetition.
//!
//! `cargo bench` times them with criterion; `cargo xtask bench` times each in its own process. They
//! use the same code as a user's run: a training step is a step of `flm_train`, with optimizer and
//! weight average.

mod training;

pub use training::batches;

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Distribution, Int, Tensor, backend::Backend};
use flm_denoiser::{
    Block, Dit, DitConfig, Dropout, Dual, Execution, OutputLayer, Prior, Rope, SamplingDenoiser,
};
use flm_simplex::{Schedule, sampler, stream::generator};

/// One repetition of a workload.
pub type Work = Box<dyn FnMut()>;

/// Where and how workloads run. A repetition ends when the device has finished.
#[derive(Clone, Debug, Default)]
pub struct Bench<B: AutodiffBackend> {
    /// The device.
    pub device: B::Device,
    /// The precision and the head size.
    pub execution: Execution,
}

/// Sizes of a network and a batch.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct Sizes {
    /// Number of tokens in the vocabulary.
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
    /// Number of parts of a batch that a step processes one after another.
    #[arg(long, default_value_t = 1)]
    pub parts: usize,
    /// Dropout probability of residual branches.
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
}

impl Sizes {
    /// Returns the network configuration with these sizes.
    pub fn config(&self) -> DitConfig {
        DitConfig {
            cond_dim: self.cond,
            ..DitConfig::new(self.vocab, self.length, self.width, self.blocks, self.heads)
        }
    }

    fn rope<B: Backend>(&self, device: &B::Device) -> Rope<B> {
        let head = self.width / self.heads;
        Rope::new(self.length, head, self.config().rope_base, device)
    }
}

fn normal<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

impl<B: AutodiffBackend> Bench<B> {
    /// Waits for the device after every repetition.
    ///
    /// The result is kept until then: a lazy backend may skip results that nothing holds.
    fn waited<T>(&self, mut work: impl FnMut() -> T + 'static) -> Work {
        let device = self.device.clone();
        Box::new(move || {
            let result = work();
            B::sync(&device).expect("the device synchronizes");
            drop(result)
        })
    }

    fn block<A: Backend<Device = B::Device>>(&self, sizes: Sizes) -> Block<A> {
        let mut rng = generator(0, 0, 0, 0);
        Block::new(&sizes.config(), &mut rng, &self.device).with_precision(self.execution.precision)
    }

    fn head<A: Backend<Device = B::Device>>(&self, sizes: Sizes) -> OutputLayer<A> {
        OutputLayer::new(&sizes.config(), &self.device).with_execution(self.execution)
    }

    /// Returns random inputs of a block or a head: the residual stream and the condition.
    fn inputs<A: Backend<Device = B::Device>>(&self, sizes: Sizes) -> (Tensor<A, 3>, Tensor<A, 2>) {
        (
            normal([sizes.batch, sizes.length, sizes.width], &self.device),
            normal([sizes.batch, sizes.cond], &self.device),
        )
    }

    fn tokens<A: Backend<Device = B::Device>>(&self, sizes: Sizes) -> Tensor<A, 2, Int> {
        let range = Distribution::Uniform(0.0, sizes.vocab as f64);
        Tensor::random([sizes.batch, sizes.length], range, &self.device)
    }

    /// A transformer block, forward alone.
    pub fn block_forward(&self, sizes: Sizes) -> Work {
        let block = self.block::<B::InnerBackend>(sizes);
        let (x, cond) = self.inputs(sizes);
        let rope = sizes.rope(&self.device);
        self.waited(move || block.forward(x.clone(), cond.clone(), &rope, &mut Dropout::off()))
    }

    /// A transformer block, forward and backward.
    pub fn block_both(&self, sizes: Sizes) -> Work {
        let block = self.block::<B>(sizes);
        let (x, cond) = self.inputs::<B>(sizes);
        let rope = sizes.rope(&self.device);
        self.waited(move || {
            let x = x.clone().require_grad();
            let out = block.forward(x, cond.clone(), &rope, &mut Dropout::off());
            out.sum().backward()
        })
    }

    /// The vocabulary head and its cross-entropy against tokens, forward alone.
    pub fn head_forward(&self, sizes: Sizes) -> Work {
        let head = self.head::<B::InnerBackend>(sizes);
        let (x, cond) = self.inputs(sizes);
        let tokens = self.tokens(sizes);
        self.waited(move || {
            let prediction = head.forward(x.clone(), cond.clone());
            prediction.log_probs(tokens.clone())
        })
    }

    /// The vocabulary head and its cross-entropy against tokens, forward and backward.
    pub fn head_both(&self, sizes: Sizes) -> Work {
        let head = self.head::<B>(sizes);
        let (x, cond) = self.inputs::<B>(sizes);
        let tokens = self.tokens::<B>(sizes);
        let weights = Tensor::full([sizes.batch, sizes.length], 1.0, &self.device);
        self.waited(move || {
            let prediction = head.forward(x.clone().require_grad(), cond.clone());
            let score = prediction.cross_entropy(tokens.clone(), weights.clone());
            score.loss.backward()
        })
    }

    /// Creates a two-time network.
    fn network(&self, sizes: Sizes) -> Dit<B::InnerBackend> {
        sizes
            .config()
            .with_two_time(true)
            .init(&mut generator(0, 0, 0, 0), &self.device)
            .expect("valid sizes")
            .with_execution(self.execution)
    }

    /// Returns a random state and the time 0.5.
    fn state(&self, sizes: Sizes) -> (Tensor<B::InnerBackend, 3>, Tensor<B::InnerBackend, 1>) {
        let state = normal([sizes.batch, sizes.length, sizes.width], &self.device);
        (state, Tensor::full([sizes.batch], 0.5, &self.device))
    }

    /// One evaluation of a two-time network, up to the mean embedding D·E.
    pub fn evaluation(&self, sizes: Sizes) -> Work {
        let (model, (state, tau)) = (self.network(sizes), self.state(sizes));
        self.waited(move || {
            let (state, tau) = (state.clone(), tau.clone());
            let prediction = model.forward(state, tau.clone(), tau, &mut Dropout::off());
            prediction.distribution().mean(model.embed())
        })
    }

    /// The same evaluation with its derivative along the state and both times.
    pub fn jvp(&self, sizes: Sizes) -> Work {
        let (model, (state, tau)) = (self.network(sizes), self.state(sizes));
        let moves = normal([sizes.batch, sizes.length, sizes.width], &self.device);
        self.waited(move || {
            let state = Dual {
                value: state.clone(),
                tangent: moves.clone(),
            };
            let tau = Dual {
                value: tau.clone(),
                tangent: tau.ones_like(),
            };
            model.jvp(state, tau.clone(), tau).mean(model.embed())
        })
    }

    /// Flow-map sampling in `jumps` evaluations, from noise to tokens.
    pub fn sample(&self, sizes: Sizes, jumps: usize) -> Work {
        let model = self.network(sizes);
        let schedule = schedule_of(sizes.vocab);
        let prior = Prior::new(model.embed());
        let prior = if flm_ops::on_host::<B>() {
            prior
        } else {
            prior.on_device()
        };
        let mut rng = generator(0, 0, 0, 0);
        self.waited(move || {
            let start = prior
                .draw(sizes.batch, sizes.length, &mut rng)
                .seen(model.embed());
            let denoiser = SamplingDenoiser::new(&model);
            let none = || unreachable!("gamma 0 adds no noise");
            let denoised = sampler::flow_map(&denoiser, &schedule, start, jumps, 0.0, none, |_| ());
            denoised.expect("valid settings").argmax().into_data()
        })
    }

    /// A product of two square matrices: 2·`size`³ operations.
    pub fn product(&self, size: usize) -> Work {
        let precision = self.execution.precision;
        let [a, b]: [Tensor<B::InnerBackend, 2>; 2] =
            [0, 1].map(|_| precision.narrow(normal([size, size], &self.device)));
        self.waited(move || flm_ops::matmul(a.clone(), b.clone()))
    }

    /// Adds one to each of `size`² f32 numbers: 8·`size`² bytes read and written.
    pub fn copy(&self, size: usize) -> Work {
        let a: Tensor<B::InnerBackend, 2> = normal([size, size], &self.device);
        self.waited(move || a.clone().add_scalar(1.0))
    }
}

fn schedule_of(vocab: usize) -> Schedule {
    Schedule::new(vocab).expect("a vocabulary with a schedule")
}

/// Construction of the time schedule for a vocabulary.
pub fn schedule(vocab: usize) -> Work {
    Box::new(move || {
        std::hint::black_box(schedule_of(vocab));
    })
}
