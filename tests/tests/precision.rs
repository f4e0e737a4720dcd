//! bf16 products change the results of a trained network little.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::Flex;
use flm_data::Dataset;
use flm_denoiser::{Dit, DitConfig, Dropout, Execution, Precision, Prior, SamplingDenoiser};
use flm_distill::FlowObjective;
use flm_simplex::{sampler, stream};
use flm_tests::sentences;
use flm_train::{Event, Run, TrainConfig};
use rand::SeedableRng;
use std::path::Path;

type Train = Autodiff<Flex>;

const LENGTH: usize = 16;
const BF16: Execution = Execution {
    precision: Precision::Bf16,
    head_numbers: 1 << 24,
};

fn data(folder: &Path) -> Dataset {
    sentences::prepare(folder, 2_000, LENGTH)
}

/// Trains for 300 steps. Returns the averaged network, its last logged loss, and its configuration.
fn trained(data: &Dataset, folder: &Path, execution: Execution) -> (Dit<Flex>, f64, DitConfig) {
    let config = DitConfig {
        cond_dim: 32,
        ..DitConfig::new(data.tokenizer().vocab_size(), LENGTH, 48, 2, 4)
    };
    let model: Dit<Train> = config
        .init(&mut stream::generator(0, 4, 0, 0), &Default::default())
        .unwrap();
    let mut settings = TrainConfig {
        steps: 300,
        batch: 16,
        micro_batch: 16,
        ema_decay: 0.98,
        log_every: 100,
        ..Default::default()
    };
    settings.optimizer.lr = 3e-3;
    settings.optimizer.warmup = 20;
    let objective = FlowObjective::new(config.schedule().unwrap());
    let run = Run {
        model: model.with_execution(execution),
        objective,
        train: data.train(),
        validation: data.validation(),
        data: String::new(),
        config: settings,
        dropout: 0.0,
        workers: 1,
        checkpoints: Some(folder.join(execution.precision.to_string())),
        resume: false,
        stop: None,
        device: Default::default(),
    };
    let mut loss = f64::NAN;
    let outcome = run
        .start()
        .unwrap()
        .train(&mut |event| {
            if let Event::Step(line) = event {
                loss = line.loss;
            }
        })
        .unwrap();
    (outcome.ema, loss, config)
}

/// Returns the loss of tokens at τ = 0.5, and the tokens that one step makes of noise.
fn answers(model: &Dit<Flex>, config: &DitConfig, data: &Dataset) -> (f64, Vec<i64>) {
    let rows: Vec<usize> = (0..64).collect();
    let ids: Vec<i32> = data
        .train()
        .batch(&rows)
        .unwrap()
        .into_iter()
        .map(|id| id as i32)
        .collect();
    let tokens =
        Tensor::<Flex, 2, Int>::from_data(TensorData::new(ids, [64, LENGTH]), &Default::default());
    let noise = Prior::new(model.embed())
        .draw(64, LENGTH, &mut rand_chacha::ChaCha8Rng::seed_from_u64(7))
        .seen(model.embed());
    let schedule = config.schedule().unwrap();
    let t = Tensor::full([64], schedule.t_of_tau(0.5), &Default::default());
    let state = flm_simplex::interpolant::interpolate(
        noise.clone(),
        model.embed().tokens(tokens.clone()),
        t,
    );
    let tau = Tensor::full([64], 0.5, &Default::default());
    let prediction = model.forward(state, tau.clone(), tau, &mut Dropout::off());
    let loss: f32 = prediction.log_probs(tokens).mean().neg().into_scalar();
    let denoised =
        sampler::euler(&SamplingDenoiser::new(model), &schedule, noise, 1, |_| ()).unwrap();
    let sampled = denoised.argmax().into_data().iter::<i64>().collect();
    (f64::from(loss), sampled)
}

#[test]
fn a_trained_network_answers_in_bf16_as_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let (model, in_single, config) = trained(&data, folder.path(), Execution::default());
    let (loss, tokens) = answers(&model, &config, &data);
    let (half_loss, half_tokens) = answers(&model.clone().with_execution(BF16), &config, &data);
    assert!(
        (half_loss / loss - 1.0).abs() < 0.01,
        "{half_loss} for {loss}"
    );
    let differ = std::iter::zip(&tokens, &half_tokens)
        .filter(|(a, b)| a != b)
        .count();
    // Rounding decides where the two best tokens are almost equally likely.
    assert!(
        differ * 50 < tokens.len(),
        "{differ} of {} tokens differ",
        tokens.len()
    );
    assert!(
        loss < 0.8 * (data.tokenizer().vocab_size() as f64).ln(),
        "{loss}: not trained"
    );
    // Runs that round differently diverge, as those of two seeds do.
    let (_, in_half, _) = trained(&data, folder.path(), BF16);
    assert!(
        (in_half / in_single - 1.0).abs() < 0.1,
        "trained to {in_half} in bf16, to {in_single} in f32"
    );
}

#[test]
fn an_execution_stays_with_copies_of_a_network() {
    let config = DitConfig::new(9, 4, 16, 1, 2);
    let model: Dit<Train> = config
        .init(&mut stream::generator(0, 0, 0, 0), &Default::default())
        .unwrap();
    let narrowed = model.with_execution(BF16);
    let copies = [
        narrowed.valid(),
        Dit::<Train>::from_inner(narrowed.valid()).valid(),
        narrowed.clone().valid(),
    ];
    for copy in copies {
        assert_eq!(copy.execution(), BF16);
    }
}
