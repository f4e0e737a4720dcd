//! Checks for any backend.
//!
//! `cargo test` runs them on the CPU, `cargo xtask backend-tests --device D` on other devices.
//!
//! They cover the golden numbers, every operation against the CPU kernels, the flow map's
//! identities, the head in runs of any size, discrete diffusion, autoregression, training steps and
//! checkpoints, in f32 and bf16. [`Bounds`] sets the tolerances.

use crate::fixture::{flat, relative_error};
use crate::parity::{Line, Parity, Source, Verdict};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use flm_denoiser::{
    Dit, DitConfig, Dropout, Execution, Family, NoiseWidth, Precision, Prior, named_tensors,
};
use flm_distill::FlowObjective;
use flm_simplex::flow_map;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod discrete;
mod gradients;
mod operations;
mod training;

pub use training::{Soak, soak};

/// The tolerances of a correct backend, relative to the largest expected value.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The precisions that the backend supports for products.
    pub precisions: &'static [Precision],
    /// The tolerance of one operation in f32.
    pub operation: f64,
    /// The factor on the CPU tolerances of pinned numbers, for a network in f32.
    pub network: f64,
    /// The tolerance of one operation with bf16 products.
    pub half_operation: f64,
    /// The tolerance of a network with bf16 products, and of its gradients.
    pub half_network: f64,
    /// How many of the three texts of a discrete sampler may differ.
    ///
    /// A random draw that falls between two roundings changes a text. Where numbers differ by 1e-3,
    /// that is about 0.2 of the 200 draws, so two texts differ for one of fifty networks.
    pub texts: usize,
}

impl Bounds {
    /// Base values. bf16 rounds by 2⁻⁸; a network of two blocks sums about ten such roundings.
    const HALF: Self = Self {
        precisions: &[Precision::F32, Precision::Bf16],
        operation: 1e-5,
        network: 1.0,
        half_operation: 2e-2,
        half_network: 5e-2,
        texts: 0,
    };

    /// For backends with true f32 arithmetic, where only the order of rounding differs.
    pub const SINGLE: Self = Self::HALF;

    /// For WGPU. Drivers may fuse and approximate within what WGSL allows: some units in the last
    /// place for exp, tanh and sqrt. WGSL has no bf16.
    pub const WGPU: Self = Self {
        precisions: &[Precision::F32],
        operation: 1e-4,
        network: 10.0,
        texts: 1,
        ..Self::HALF
    };

    /// For CUDA, where f32 products may use TF32, which rounds by 2⁻¹¹ as often as bf16 rounds.
    ///
    /// On an H200 the largest error of an operation was 6e-4. That of the network was 8e-3, for a
    /// time derivative, which is a small difference of large terms.
    pub const CUDA: Self = Self {
        operation: 3e-3,
        network: 600.0,
        texts: 1,
        ..Self::HALF
    };
}

/// A group of checks. Groups are independent: each can run in its own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The golden numbers, in f32.
    Golden,
    /// The golden numbers, with bf16 products.
    GoldenHalf,
    /// Operations.
    Operations,
    /// Gradients of operations.
    Gradients,
    /// The flow map's algebra, the head in runs of any size, and noise drawn on the device.
    Head,
    /// Discrete diffusion and autoregression.
    Discrete,
    /// Training steps, checkpoints and model folders.
    Training,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 7] = [
        Self::Golden,
        Self::GoldenHalf,
        Self::Operations,
        Self::Gradients,
        Self::Head,
        Self::Discrete,
        Self::Training,
    ];

    /// Returns the name of the part.
    pub fn name(self) -> &'static str {
        match self {
            Self::Golden => "golden",
            Self::GoldenHalf => "golden-bf16",
            Self::Operations => "operations",
            Self::Gradients => "gradients",
            Self::Head => "head",
            Self::Discrete => "discrete",
            Self::Training => "training",
        }
    }

    /// Returns the part with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Runs the checks on the default device of `B`.
    ///
    /// # Errors
    ///
    /// A message if a file cannot be read or written.
    pub fn lines<B: AutodiffBackend>(
        self,
        source: &Source,
        bounds: &Bounds,
    ) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        match self {
            Self::Golden => golden::<B>(source, bounds, Precision::F32, &mut lines)?,
            Self::GoldenHalf => golden::<B>(source, bounds, Precision::Bf16, &mut lines)?,
            Self::Operations => operations::lines::<B::InnerBackend>(bounds, &mut lines),
            Self::Gradients => gradients::lines::<B>(bounds, &mut lines),
            Self::Head => {
                identities::<B::InnerBackend>(bounds, &mut lines);
                head::<B>(bounds, &mut lines);
                noise::<B::InnerBackend>(&mut lines);
            }
            Self::Discrete => discrete::lines::<B>(bounds, &mut lines),
            Self::Training => training::lines::<B>(bounds, &mut lines)?,
        }
        Ok(lines)
    }
}

/// A named operation, with a function that applies it to random numbers.
struct Operation<T> {
    name: &'static str,
    make: Make<T>,
}

enum Make<T> {
    Single(fn() -> T),
    Products(fn(Precision) -> T),
}

/// An operation that runs in f32 only.
fn single<T>(name: &'static str, make: fn() -> T) -> Operation<T> {
    let make = Make::Single(make);
    Operation { name, make }
}

/// An operation whose products can run in any precision.
fn products<T>(name: &'static str, make: fn(Precision) -> T) -> Operation<T> {
    let make = Make::Products(make);
    Operation { name, make }
}

impl<T> Operation<T> {
    fn make(&self, precision: Precision) -> T {
        match self.make {
            Make::Single(make) => make(),
            Make::Products(make) => make(precision),
        }
    }

    /// Returns the supported precisions, each with its tolerance.
    fn bounds(&self, bounds: &Bounds) -> Vec<(Precision, f64)> {
        let of = |&precision: &Precision| match (precision, &self.make) {
            (Precision::F32, _) => Some((precision, bounds.operation)),
            (Precision::Bf16, Make::Single(_)) => None,
            (Precision::Bf16, Make::Products(_)) => Some((precision, bounds.half_operation)),
        };
        bounds.precisions.iter().filter_map(of).collect()
    }
}

fn line(lines: &mut Vec<Line>, name: impl Into<String>, error: f64, tolerance: f64) {
    lines.push(Line {
        name: name.into(),
        verdict: Verdict::Numbers { error, tolerance },
    });
}

/// Compares with the published implementation's numbers, if the backend supports this precision.
fn golden<B: AutodiffBackend>(
    source: &Source,
    bounds: &Bounds,
    precision: Precision,
    lines: &mut Vec<Line>,
) -> Result<(), String> {
    if bounds.precisions.contains(&precision) {
        let parity = Parity::<B>::open(source)?.with_execution(Execution {
            precision,
            ..Default::default()
        });
        for mut line in parity.lines() {
            line.verdict = match (line.verdict, precision) {
                (Verdict::Numbers { error, tolerance }, Precision::F32) => Verdict::Numbers {
                    error,
                    tolerance: tolerance * bounds.network,
                },
                (Verdict::Numbers { error, tolerance }, Precision::Bf16) => Verdict::Numbers {
                    error,
                    tolerance: tolerance.max(bounds.half_network),
                },
                // A random network's two best logits are close, so bf16 samples say little.
                (Verdict::Tokens { .. }, Precision::Bf16) => continue,
                (Verdict::Tokens { count, wrong, ties }, _) if bounds.network > 100.0 => {
                    Verdict::Numbers {
                        error: (wrong + ties) as f64 / count as f64,
                        tolerance: 0.1,
                    }
                }
                (Verdict::Input | Verdict::Skipped(_), _) => continue,
                (verdict, _) => verdict,
            };
            line.name = format!("{precision}: golden {}", line.name);
            lines.push(line);
        }
    }
    Ok(())
}

/// Random normal numbers, equal on all backends.
fn drawn<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    flm_simplex::noise::gaussian(
        shape,
        &mut ChaCha8Rng::seed_from_u64(seed),
        &Default::default(),
    )
}

fn ids<B: Backend>(count: usize, below: i32) -> Tensor<B, 1, Int> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let ids: Vec<i32> = (0..count).map(|_| rng.random_range(0..below)).collect();
    Tensor::from_data(TensorData::new(ids, [count]), &Default::default())
}

const WIDTH: usize = 48;
const VOCAB: usize = 500;

/// Checks identities of a flow map that hold for any network output.
fn identities<B: Backend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    let [x, target] = [1, 2].map(|seed| drawn::<B, 3>([3, 5, 7], seed));
    let times = |times: [f32; 3]| Tensor::<B, 1>::from_floats(times, &Default::default());
    let [s, u, t] = [[0.0, 0.2, 0.5], [0.3, 0.4, 0.6], [1.0, 0.9, 0.7]].map(times);
    let carry = |x: &Tensor<B, 3>, s: &Tensor<B, 1>, t: &Tensor<B, 1>| {
        flow_map::transport(x.clone(), target.clone(), s.clone(), t.clone())
    };
    let still = relative_error(&flat(carry(&x, &s, &s)), &flat(x.clone()));
    line(
        lines,
        "a flow map from s to s is the identity",
        still,
        bounds.operation,
    );
    let through = flat(carry(&carry(&x, &s, &u), &u, &t));
    let at_once = flat(carry(&x, &s, &t));
    let error = relative_error(&through, &at_once);
    line(lines, "s to u to t equals s to t", error, bounds.operation);
    let gamma = flat(flow_map::semigroup_weights(s.clone(), u, t));
    let expected = [[0.0, 0.3, 1.0], [0.2, 0.4, 0.9], [0.5, 0.6, 0.7]]
        .map(|[s, u, t]: [f64; 3]| flow_map::semigroup_weight(s, u, t) as f32);
    let error = relative_error(&gamma, &expected);
    line(lines, "semigroup weights", error, bounds.operation);
}

/// A network with random values for all parameters.
fn network<B: Backend>() -> Dit<B> {
    network_of(Family::default())
}

/// [`network`] for any family.
fn network_of<B: Backend>(family: Family) -> Dit<B> {
    let config = DitConfig {
        cond_dim: 32,
        ..DitConfig::new(VOCAB, 16, WIDTH, 2, 4).with_family(family)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(30);
    let model = config.init::<B>(&mut rng, &Default::default());
    let model = model.expect("valid sizes");
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.3..0.3));
    }
    flm_denoiser::apply_tensors(model, std::path::Path::new("drawn"), tensors)
        .expect("tensors of the network")
}

/// Checks that the head gives equal results in runs of any size.
fn head<B: AutodiffBackend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    let tokens = || ids::<B>(3 * 16, VOCAB as i32).reshape([3, 16]);
    let answer = |head_numbers| {
        let execution = Execution {
            head_numbers,
            ..Default::default()
        };
        let model = network::<B>().with_execution(execution);
        let state = drawn::<B, 3>([3, 16, WIDTH], 31);
        let tau = Tensor::full([3], 0.4, &Default::default());
        let prediction = model.forward(state, tau.clone(), tau, &mut Dropout::off());
        let weights = Tensor::full([3, 16], 1.0 / 48.0, &Default::default());
        let score = prediction.cross_entropy(tokens(), weights);
        let grads = score.loss.backward();
        let mean = prediction
            .inner()
            .distribution()
            .mean(model.valid().embed());
        // The last matrix is the head's, whose gradient is the largest.
        let gradient = model
            .matrices()
            .last()
            .and_then(|(_, weight)| weight.grad(&grads))
            .map(flat)
            .unwrap_or_default();
        [flat(score.per_token), flat(mean), gradient]
    };
    let whole = answer(1 << 24);
    for runs in [1, 5 * VOCAB] {
        for ((what, found), expected) in ["losses", "means", "gradients"]
            .into_iter()
            .zip(answer(runs))
            .zip(&whole)
        {
            let error = relative_error(&found, expected);
            let name = format!("{what} of the head in runs of {}", (runs / VOCAB).max(1));
            line(lines, name, error, bounds.operation);
        }
    }
}

/// Checks noise drawn on the device, of vocabulary and of network width: its variance, the
/// correlation between seeds, and that a seed repeats it.
fn noise<B: Backend>(lines: &mut Vec<Line>) {
    let model = network::<B>();
    let embedding = flat(model.embed().embedding.val());
    let expected: f64 = embedding.iter().map(|e| f64::from(e * e)).sum();
    for (width, drawn) in [
        (NoiseWidth::Vocabulary, VOCAB),
        (NoiseWidth::Network, WIDTH),
    ] {
        let prior = Prior::of_width(model.embed(), Some(model.embed()), width).on_device();
        let draw = |seed| {
            let noise = prior.draw(40, 10, &mut ChaCha8Rng::seed_from_u64(seed));
            let by_teacher = flat(noise.seen_by_teacher(model.embed()));
            (flat(noise.seen(model.embed())), by_teacher)
        };
        let mut check = |what: &str, error, tolerance| {
            let name = format!("device noise of width {drawn}: {what}");
            line(lines, name, error, tolerance);
        };
        let (first, by_teacher) = draw(1);
        let error = relative_error(&draw(1).0, &first);
        check("a seed repeats its draws", error, 1e-3);
        let (other, _) = draw(2);
        let product: f64 = std::iter::zip(&first, &other)
            .map(|(a, b)| f64::from(a * b))
            .sum();
        let square: f64 = first.iter().map(|a| f64::from(a * a)).sum();
        check("seeds are uncorrelated", (product / square).abs(), 0.1);
        let variance = (square / 400.0 / expected - 1.0).abs();
        check("expected variance", variance, 0.1);
        if width == NoiseWidth::Network {
            let error = relative_error(&by_teacher, &first);
            check("an equal teacher sees the same", error, 2e-2);
        }
    }
}

/// The flow objective for the vocabulary of [`network`].
fn objective() -> FlowObjective {
    FlowObjective::new(flm_simplex::Schedule::new(VOCAB).expect("a vocabulary with a schedule"))
}
