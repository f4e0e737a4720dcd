//! End-to-end tests: train on texts in memory, save, load and sample.

use flm::backend::{Autodiff, Flex};
use flm::data::{Layout, TextTokenizer};
use flm::denoiser::folder::Existing;
use flm::denoiser::{DitConfig, Family};
use flm::discrete::mdlm::MdlmObjective;
use flm::objective::Objective;
use flm::simplex::stream::generator;
use flm::train::TrainConfig;
use flm::{
    Conditioning, DenoisingStep, Error, LikelihoodOptions, Model, Observer, Rows, SampleOptions,
    Trainer,
};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

type Train = Autodiff<Flex>;

const TEXTS: [&str; 4] = ["a b", "b a", "a a b", "b c"];
const LENGTH: usize = 5;

fn rows() -> Rows {
    let tokenizer = TextTokenizer::from_words(["a", "b", "c"]).unwrap();
    Rows::from_texts(tokenizer, Layout::Rows, LENGTH, &TEXTS).unwrap()
}

fn config(rows: &Rows, family: Family) -> DitConfig {
    DitConfig {
        family,
        ..DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 16, 1, 2)
    }
}

fn settings() -> TrainConfig {
    TrainConfig {
        steps: 4,
        batch: 4,
        micro_batch: 2,
        log_every: 1,
        ..Default::default()
    }
}

fn flow(rows: &Rows) -> Trainer<'_, Train, flm::distill::FlowObjective> {
    let config = config(rows, Family::Flow);
    Trainer::flow(config, rows, settings(), &Default::default()).unwrap()
}

fn masked(
    rows: &Rows,
) -> Trainer<'_, Train, impl Objective<Train, Network = flm::denoiser::Dit<Train>> + use<>> {
    let config = config(rows, Family::Mdlm);
    let network = config
        .init(&mut generator(0, 0, 0, 0), &Default::default())
        .unwrap();
    Trainer::new(network, config, MdlmObjective::default(), rows, settings())
}

fn loaded(model: &Model<Flex>, folder: &Path) -> Model<Flex> {
    model.save(folder, Existing::Refuse).unwrap();
    Model::load(folder, &Default::default()).unwrap()
}

#[test]
fn a_saved_model_samples_as_the_one_in_memory() {
    let (rows, folder) = (rows(), tempfile::tempdir().unwrap());
    let trained = flow(&rows).train().unwrap();
    assert!(trained.finished);
    let training = trained.model.card().training.clone().unwrap();
    // A forward pass, and a backward pass that counts as two, for four rows in four steps.
    assert_eq!((training.steps, training.evaluations), (4, 4 * 4 * 3));
    let model = loaded(&trained.model, &folder.path().join("flow"));
    assert_eq!(model.card().training, Some(training));
    let options = || SampleOptions::steps(3).count(5).seed(2);
    let samples = model.sample(options()).unwrap();
    assert_eq!(samples, trained.model.sample(options()).unwrap());
    assert_eq!(samples, model.sample(options().batch(2)).unwrap());
    for sample in &samples {
        assert_eq!(model.decode(&sample.tokens).unwrap(), sample.text);
    }
    let again = trained
        .model
        .save(folder.path().join("flow"), Existing::Refuse);
    assert!(matches!(again, Err(Error::Folder(_))));
}

#[test]
fn a_folder_that_is_not_this_model_is_named() {
    let (rows, folder) = (rows(), tempfile::tempdir().unwrap());
    let (place, empty) = (folder.path().join("flow"), folder.path().join("empty"));
    let load = |path: &Path| Model::<Flex>::load(path, &Default::default()).unwrap_err();
    assert!(matches!(load(&empty), Error::Missing { .. }));
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(load(&empty), Error::NotAModel { .. }));

    let card = place.join(flm::CARD_FILE);
    flow(&rows)
        .train()
        .unwrap()
        .model
        .save(&place, Existing::Refuse)
        .unwrap();
    let saved = std::fs::read_to_string(&card).unwrap();
    std::fs::write(
        &card,
        saved.replace("\"format_version\": 1", "\"format_version\": 5"),
    )
    .unwrap();
    let message = load(&place).to_string();
    assert!(
        message.ends_with("has format version 5, but only version 1 is supported"),
        "{message}"
    );
    // Another tokenizer with the same number of tokens.
    std::fs::write(&card, saved).unwrap();
    let other = TextTokenizer::from_words(["x", "y", "z"]).unwrap();
    other.save(place.join(flm::data::TOKENIZER_FILE)).unwrap();
    assert!(matches!(load(&place), Error::Tokenizer { .. }));
}

#[test]
fn an_observer_sees_every_step_and_can_stop() {
    struct Watch {
        steps: Mutex<Vec<(usize, usize)>>,
        stop: bool,
    }
    impl Observer<Flex> for Watch {
        fn step(&self, step: &DenoisingStep<'_, Flex>) {
            let [samples, length] = step.distribution.positions();
            assert_eq!((samples, length), (step.samples.len(), LENGTH));
            let mut steps = self.steps.lock().unwrap();
            steps.extend(step.samples.clone().map(|sample| (sample, step.index)));
        }

        fn is_cancelled(&self) -> bool {
            self.stop
        }
    }
    let rows = rows();
    let model = flow(&rows).train().unwrap().model;
    let watch = |stop| Watch {
        steps: Mutex::default(),
        stop,
    };
    let (seen, options) = (watch(false), SampleOptions::steps(2).count(3).batch(2));
    model.sample_with(&options, &seen).unwrap();
    let mut steps = seen.steps.into_inner().unwrap();
    steps.sort_unstable();
    assert_eq!(steps, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    let stopped = model.sample_with(&options, &watch(true));
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
}

#[test]
fn known_text_stays_in_every_family() {
    let rows = rows();
    for model in [
        flow(&rows).train().unwrap().model,
        masked(&rows).train().unwrap().model,
    ] {
        let options = SampleOptions::steps(2).count(4);
        for sample in model.infill("a ___ b", options.clone()).unwrap() {
            let known = [sample.tokens[0], sample.tokens[2], sample.tokens[3]];
            assert_eq!(known, [3, 4, model.tokenizer().eos_id()]);
        }
        let options = options.conditioning(Conditioning::prompt("b a a a a"));
        let error = model.sample(options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prompt: 5 tokens, but a text of this model has room for 4"
        );
    }
}

#[test]
fn only_models_of_tokens_have_a_likelihood() {
    let rows = rows();
    let texts = [rows.train().row(0).unwrap(), rows.train().row(3).unwrap()];
    let options = LikelihoodOptions::default();
    let found = masked(&rows).train().unwrap().model;
    let found = found.likelihood(&texts, options, &()).unwrap();
    assert!(found.is_bound && found.nats.len() == 2 && found.nats.iter().all(|nats| *nats > 0.0));
    let flow = flow(&rows).train().unwrap().model;
    let error = flow.likelihood(&texts, options, &()).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    let error = masked(&rows).train().unwrap().model;
    let error = error.likelihood(&[vec![3, 4]], options, &()).unwrap_err();
    assert_eq!(error.to_string(), "row 0: 2 tokens, expected 5");
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_never_stopped() {
    let (rows, folder) = (rows(), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(false);
    let stopped = flow(&rows)
        .checkpoints(folder.path())
        .on_event(|event| {
            if let flm::train::Event::Step(line) = event {
                stop.store(line.step == 2, Ordering::Relaxed);
            }
        })
        .stop(&stop)
        .train()
        .unwrap();
    assert!(!stopped.finished);
    let fresh = flow(&rows).checkpoints(folder.path()).train();
    assert!(matches!(fresh, Err(Error::Option(_))), "{fresh:?}");
    let nowhere = flow(&rows).resume().train();
    assert!(matches!(nowhere, Err(Error::Option(_))), "{nowhere:?}");
    let resumed = flow(&rows)
        .checkpoints(folder.path())
        .resume()
        .train()
        .unwrap();
    let whole = flow(&rows).train().unwrap();
    let options = || SampleOptions::steps(2).count(20);
    assert!(resumed.finished);
    assert_eq!(
        resumed.model.sample(options()).unwrap(),
        whole.model.sample(options()).unwrap()
    );
    let card = |model: &Model<Flex>| model.card().training.as_ref().unwrap().evaluations;
    assert_eq!(card(&resumed.model), card(&whole.model));
}

#[test]
fn texts_and_networks_that_do_not_fit_are_named() {
    let tokenizer = || TextTokenizer::from_words(["a", "b", "c"]).unwrap();
    let rows = |texts: &[&str]| Rows::from_texts(tokenizer(), Layout::Rows, LENGTH, texts);
    for (texts, expected) in [
        (
            ["a", "a b c a b"],
            "text 1: 5 tokens, but a row of 5 has room for 4",
        ),
        (["a", "dog"], "`dog` is not in the vocabulary of 6 tokens"),
    ] {
        assert_eq!(rows(&texts).unwrap_err().to_string(), expected);
    }
    let tokens = Rows::from_tokens(tokenizer(), Layout::Rows, 3, &[vec![3, 9, 2]]);
    assert_eq!(
        tokens.unwrap_err().to_string(),
        "row 0: the token 9 is beyond a vocabulary of 6"
    );
    let none = Rows::from_tokens(tokenizer(), Layout::Rows, 0, &[]);
    assert!(none.unwrap_err().to_string().contains("length"));
    let rows = rows(&["a b"]).unwrap();
    for wrong in [
        config(&rows, Family::Mdlm),
        config(&rows, Family::Flow).with_two_time(true),
    ] {
        let run = Trainer::<Train, _>::flow(wrong, &rows, settings(), &Default::default());
        assert!(matches!(run, Err(Error::Option(_))), "{run:?}");
    }
    let longer = DitConfig {
        length: 9,
        ..config(&rows, Family::Flow)
    };
    let run = Trainer::<Train, _>::flow(longer, &rows, settings(), &Default::default());
    let error = run.unwrap().train().err().unwrap();
    assert_eq!(
        error.to_string(),
        "the network is for rows of 9 tokens, but these have 5"
    );
}

/// Cancels after three steps.
#[derive(Default)]
struct Impatient(std::sync::atomic::AtomicUsize);

impl Observer<Flex> for Impatient {
    fn step(&self, _: &DenoisingStep<'_, Flex>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 3
    }
}

#[test]
fn sampling_stops_between_two_steps() {
    let rows = rows();
    let model = flow(&rows).train().unwrap().model;
    let observer = Impatient::default();
    let stopped = model.sample_with(&SampleOptions::steps(50), &observer);
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
    assert_eq!(observer.0.into_inner(), 3);
}

#[test]
fn requests_in_one_call_equal_single_calls() {
    let rows = rows();
    let model = flow(&rows).train().unwrap().model;
    let prompted = |seed, count, text: &str| {
        SampleOptions::steps(4)
            .count(count)
            .seed(seed)
            .batch(3)
            .conditioning(Conditioning::prompt(text))
    };
    let requests = [
        prompted(1, 2, "a"),
        prompted(9, 3, "b a"),
        prompted(1, 1, "b").first(4),
    ];
    let together = model.sample_many(&requests, &()).unwrap();
    for (request, samples) in requests.iter().zip(&together) {
        assert_eq!(&model.sample(request.clone()).unwrap(), samples);
    }
    // The fifth sample alone is the last of five.
    let five = model.sample(prompted(1, 5, "b")).unwrap();
    assert_eq!(together[2][0], five[4]);
    let other = [prompted(1, 1, "a"), SampleOptions::steps(4)];
    assert!(matches!(
        model.sample_many(&other, &()),
        Err(Error::Option(_))
    ));
}
