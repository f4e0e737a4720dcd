//! The same checks on any backend: `cargo test` runs them on the CPU, `cargo xtask backend-tests --device D` elsewhere.
//!
//! The golden numbers, every operation against the CPU's kernels, the flow map's identities, the head in runs of any size, discrete
//! diffusion and autoregression, steps of training and a checkpoint's way there and back; in f32 and in bf16. How far a backend may be off
//! says [`Bounds`].

use crate::fixture::{flat, relative_error};
use crate::parity::{Line, Parity, Source, Verdict};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::Flex;
use flm_denoiser::{
    Dit, DitConfig, Dropout, Execution, Family, NoiseWidth, Precision, Prior, Rope, named_tensors,
};
use flm_distill::FlowObjective;
use flm_ops::{AdamW, Mask, Modulated, Target};
use flm_simplex::flow_map;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod discrete;
mod gradients;
mod training;

pub use training::{Soak, soak};

/// How far numbers of a backend may be off, relative to the largest, where nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In which numbers products can be made.
    pub precisions: &'static [Precision],
    /// Of one operation in f32.
    pub operation: f64,
    /// Of a network in f32: what pinned numbers are allowed on the CPU is multiplied by this.
    pub network: f64,
    /// Of one operation with products of bf16.
    pub half_operation: f64,
    /// Of a network with products of bf16, and of its gradients.
    pub half_network: f64,
    /// How many of the three texts that a discrete sampler writes may be others: a draw that falls between two roundings makes another text.
    /// Where numbers differ by 1e-3 that is about 0.2 of the 200 draws, so two texts are others in one of fifty networks.
    pub texts: usize,
}

impl Bounds {
    /// bf16 rounds by 2⁻⁸ of a number; a network of two blocks adds up some ten such roundings.
    const HALF: Self = Self {
        precisions: &[Precision::F32, Precision::Bf16],
        operation: 1e-5,
        network: 1.0,
        half_operation: 2e-2,
        half_network: 5e-2,
        texts: 0,
    };

    /// Of backends whose f32 is f32: rounding in another order.
    pub const SINGLE: Self = Self::HALF;

    /// Of WGPU: drivers may fuse and approximate within what WGSL allows, some units of the last place for exp, tanh and sqrt. WGSL has no
    /// bf16.
    pub const WGPU: Self = Self {
        precisions: &[Precision::F32],
        operation: 1e-4,
        network: 10.0,
        texts: 1,
        ..Self::HALF
    };

    /// Of CUDA, where products of f32 may be staged as TF32: rounding by 2⁻¹¹ of a number, as often as in bf16. On an H200 the worst of one
    /// operation was 6e-4, and of the network 8e-3: a derivative along a time, which is a small difference of large terms.
    pub const CUDA: Self = Self {
        operation: 3e-3,
        network: 600.0,
        texts: 1,
        ..Self::HALF
    };
}

/// Checks that belong together. Parts are independent: each can run in its own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The golden numbers, in f32.
    Golden,
    /// The golden numbers, with products of bf16.
    GoldenHalf,
    /// Operations.
    Operations,
    /// Gradients of operations.
    Gradients,
    /// The flow map's algebra, the head in runs of any size, and noise that the device draws.
    Head,
    /// Discrete diffusion and autoregression.
    Discrete,
    /// Steps of training, and a checkpoint.
    Training,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Golden,
        Self::GoldenHalf,
        Self::Operations,
        Self::Gradients,
        Self::Head,
        Self::Discrete,
        Self::Training,
    ];

    /// Its name.
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

    /// The part of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Its checks, on the default device of `B`.
    ///
    /// # Errors
    ///
    /// A sentence, if something that they need cannot be read or written.
    pub fn lines<B: AutodiffBackend>(
        self,
        source: &Source,
        bounds: &Bounds,
    ) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        match self {
            Self::Golden => golden::<B>(source, bounds, Precision::F32, &mut lines)?,
            Self::GoldenHalf => golden::<B>(source, bounds, Precision::Bf16, &mut lines)?,
            Self::Operations => operations::<B::InnerBackend>(bounds, &mut lines),
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

fn line(lines: &mut Vec<Line>, name: impl Into<String>, error: f64, tolerance: f64) {
    lines.push(Line {
        name: name.into(),
        verdict: Verdict::Numbers { error, tolerance },
    });
}

/// The pinned numbers of the published implementation; nothing where the backend lacks this precision.
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
                // The best two of a random network's logits are near each other: samples say little in few digits.
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

/// Numbers that a generator draws, the same on two backends.
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

/// What an operation makes of drawn numbers.
type Operation<B> = (&'static str, fn(Precision) -> Tensor<B, 2>);

const ROWS: usize = 24;
const WIDTH: usize = 48;
const VOCAB: usize = 500;

fn flat2<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 2> {
    let last = x.dims()[D - 1];
    let rows = x.shape().num_elements() / last;
    flm_ops::widen(x.reshape([rows, last]))
}

fn modulated<B: Backend>() -> Modulated<B> {
    Modulated {
        x: drawn([2, ROWS, WIDTH], 1),
        weight: drawn([WIDTH], 2),
        shift: drawn([2, 1, WIDTH], 3),
        scale: drawn([2, 1, WIDTH], 4),
        epsilon: 1e-5,
    }
}

fn list<B: Backend>() -> Vec<Operation<B>> {
    vec![
        ("norm_modulate", |_| {
            flat2(flm_ops::norm_modulate(modulated()))
        }),
        ("gelu_tanh", |p| {
            flat2(flm_ops::gelu_tanh(
                p.narrow(drawn::<B, 2>([ROWS, WIDTH], 5)),
            ))
        }),
        ("attention", |p| {
            let rope = Rope::new(ROWS, 12, 1e4, &Default::default());
            let qkv = p.narrow(drawn([2, ROWS, 3 * WIDTH], 6));
            let attention = flm_ops::Attention {
                heads: 4,
                softcap: 50.0,
                causal: false,
            };
            flat2(flm_ops::attention(qkv, &rope, attention))
        }),
        ("attention to what came before", |p| {
            let rope = Rope::new(70, 32, 1e4, &Default::default());
            let qkv = p.narrow(drawn([2, 70, 3 * 128], 6));
            let attention = flm_ops::Attention {
                heads: 4,
                softcap: 50.0,
                causal: true,
            };
            flat2(flm_ops::attention(qkv, &rope, attention))
        }),
        ("linear", |p| {
            let x = p.narrow(drawn([2, ROWS, WIDTH], 7));
            flat2(flm_ops::linear(
                x,
                drawn([WIDTH, 90], 8),
                Some(drawn([90], 9)),
            ))
        }),
        ("norm_linear", |_| {
            flat2(flm_ops::norm_linear(
                modulated(),
                drawn([WIDTH, 90], 8),
                None,
            ))
        }),
        ("gelu_linear", |p| {
            let x = p.narrow(drawn([2, ROWS, WIDTH], 7));
            flat2(flm_ops::gelu_linear(
                x,
                drawn([WIDTH, 90], 8),
                drawn([90], 9),
            ))
        }),
        ("gated_residual, with a mask", |p| {
            let branch = p.narrow(drawn([2, ROWS, WIDTH], 10));
            let mask = Some(Mask::new(0.3, 0x1234_5678_9abc_def0));
            let (x, gate) = (drawn([2, ROWS, WIDTH], 11), drawn([2, 1, WIDTH], 12));
            flat2(flm_ops::gated_residual(x, branch, gate, mask))
        }),
        ("product", |p| {
            flm_ops::product(
                p.narrow(drawn([ROWS, WIDTH], 13)),
                drawn([WIDTH, VOCAB], 14),
            )
        }),
        // Large enough for tiles, with rows that start anywhere, in every layout.
        ("product of tiles", |p| {
            flm_ops::product(p.narrow(drawn([200, 150], 27)), drawn([150, VOCAB], 28))
        }),
        ("product of tiles, the first transposed", |p| {
            let a = p.narrow(drawn([150, 200], 27)).transpose();
            flm_ops::product(a, drawn([150, VOCAB], 28))
        }),
        ("product of tiles, the second transposed", |p| {
            let b = drawn([VOCAB, 150], 28).transpose();
            flm_ops::product(p.narrow(drawn([200, 150], 27)), b)
        }),
        ("product of tiles, one for each head", |p| {
            let [a, b] = [29, 30].map(|seed| p.narrow(drawn::<B, 4>([2, 3, 70, 40], seed)));
            flat2(flm_ops::matmul(a, b.swap_dims(2, 3)))
        }),
        ("add_product", |p| {
            let sum = drawn([ROWS, VOCAB], 15);
            let a = p.narrow(drawn([ROWS, WIDTH], 13));
            flm_ops::add_product(sum, a, drawn([WIDTH, VOCAB], 14))
        }),
        ("capped_softmax", |_| {
            flm_ops::capped_softmax(drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17), 30.0, 0.8)
        }),
        ("capped_loss of tokens", |_| {
            let target = Target::Tokens(ids(ROWS, VOCAB as i32));
            let product = drawn([ROWS, VOCAB], 16);
            flm_ops::capped_loss(product, drawn([VOCAB], 17), target, 30.0).unsqueeze()
        }),
        ("capped_loss_gradient of tokens", |_| {
            let target = Target::Tokens(ids(ROWS, VOCAB as i32));
            let (product, bias) = (drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17));
            flm_ops::capped_loss_gradient(product, bias, target, drawn([ROWS], 18), 30.0).product
        }),
        ("capped_loss_gradient of distributions", |_| {
            let p = burn::tensor::activation::softmax(drawn([ROWS, VOCAB], 19), 1);
            let (product, bias) = (drawn([ROWS, VOCAB], 16), drawn([VOCAB], 17));
            let target = Target::Distributions(p);
            flm_ops::capped_loss_gradient(product, bias, target, drawn([ROWS], 18), 30.0).product
        }),
        ("capped_loss_gradient of tokens, to the bias", |_| {
            let target = Target::Tokens(ids(300, VOCAB as i32));
            let (product, bias) = (drawn([300, VOCAB], 16), drawn([VOCAB], 17));
            flm_ops::capped_loss_gradient(product, bias, target, drawn([300], 18), 30.0)
                .bias
                .unsqueeze()
        }),
        ("blend", |_| {
            let [average, live] = [20, 21].map(|seed| drawn::<B, 2>([ROWS, WIDTH], seed));
            flm_ops::blend(average, live, 0.9)
        }),
        ("adamw", |_| {
            let rule = AdamW {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                time: 3,
            };
            let [param, grad, first] = [20, 21, 22].map(|seed| drawn([ROWS, WIDTH], seed));
            let second = drawn([ROWS, WIDTH], 23).abs();
            Tensor::cat(
                flm_ops::adamw(&rule, param, grad, first, second).to_vec(),
                0,
            )
        }),
        ("sum_of_squares", |_| {
            flm_ops::sum_of_squares(drawn::<B, 2>([700, 900], 24)).unsqueeze()
        }),
        ("argmax and gather", |_| {
            let x = drawn::<B, 2>([ROWS, VOCAB], 25);
            let best = x.clone().argmax(1);
            Tensor::cat(vec![x.gather(1, best.clone()), best.float()], 1)
        }),
        ("sort of a row", |_| {
            drawn::<B, 2>([ROWS, VOCAB], 26).sort_descending(1)
        }),
    ]
}

/// Each operation, against the CPU's kernels in f32.
fn operations<B: Backend>(bounds: &Bounds, lines: &mut Vec<Line>) {
    for ((name, here), (_, on_cpu)) in list::<B>().into_iter().zip(list::<Flex>()) {
        let expected = flat(on_cpu(Precision::F32));
        for &precision in bounds.precisions {
            let bound = match precision {
                Precision::F32 => bounds.operation,
                Precision::Bf16 => bounds.half_operation,
            };
            let error = relative_error(&flat(here(precision)), &expected);
            line(lines, format!("{precision}: {name}"), error, bound);
        }
    }
}

/// What must hold of a flow map's algebra whatever the network says.
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
        "a flow map from s to s moves nothing",
        still,
        bounds.operation,
    );
    let through = flat(carry(&carry(&x, &s, &u), &u, &t));
    let at_once = flat(carry(&x, &s, &t));
    let error = relative_error(&through, &at_once);
    line(lines, "to u and on to t is to t", error, bounds.operation);
    let gamma = flat(flow_map::semigroup_weights(s.clone(), u, t));
    let expected = [[0.0, 0.3, 1.0], [0.2, 0.4, 0.9], [0.5, 0.6, 0.7]]
        .map(|[s, u, t]: [f64; 3]| flow_map::semigroup_weight(s, u, t) as f32);
    let error = relative_error(&gamma, &expected);
    line(lines, "weights of the semigroup", error, bounds.operation);
}

/// A network whose every part takes part.
fn network<B: Backend>() -> Dit<B> {
    network_of(Family::default())
}

/// [`network`], of any family.
fn network_of<B: Backend>(family: Family) -> Dit<B> {
    let config = DitConfig {
        cond_dim: 32,
        ..DitConfig::new(VOCAB, 16, WIDTH, 2, 4).with_family(family)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(30);
    let model = config.init::<B>(&mut rng, &Default::default());
    let model = model.expect("possible sizes");
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.3..0.3));
    }
    flm_denoiser::apply_tensors(model, std::path::Path::new("drawn"), tensors)
        .expect("tensors of the network")
}

/// The head answers alike in runs of any size.
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
        let mean = prediction.inner().belief().mean(model.valid().embed());
        // The head's own gradient is the largest of all.
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

/// Noise that the device draws: its moments, and that a seed repeats it.
fn noise<B: Backend>(lines: &mut Vec<Line>) {
    let model = network::<B>();
    let prior = Prior::of_width(model.embed(), None, NoiseWidth::Vocabulary).on_device();
    let draw = |seed| {
        let noise = prior.draw(40, 10, &mut ChaCha8Rng::seed_from_u64(seed));
        flat(noise.seen(model.embed()))
    };
    let first = draw(1);
    let repeated = relative_error(&draw(1), &first);
    line(
        lines,
        "noise of the device, the same of a seed",
        repeated,
        1e-3,
    );
    let other = draw(2);
    let product: f64 = std::iter::zip(&first, &other)
        .map(|(a, b)| f64::from(a * b))
        .sum();
    let square: f64 = first.iter().map(|a| f64::from(a * a)).sum();
    line(
        lines,
        "and another of another",
        (product / square).abs(),
        0.1,
    );
    let embedding = flat(model.embed().embedding.val());
    let expected: f64 = embedding.iter().map(|e| f64::from(e * e)).sum();
    let found = square / 400.0;
    line(
        lines,
        "of the variance it should have",
        (found / expected - 1.0).abs(),
        0.1,
    );
}

/// A flow's objective for the vocabulary of [`network`].
fn objective() -> FlowObjective {
    FlowObjective::new(flm_simplex::Schedule::new(VOCAB).expect("a vocabulary with a schedule"))
}
