//! A run that is stopped and resumed gives the same bits as an uninterrupted run.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn_flex::Flex;
use flm_data::Dataset;
use flm_denoiser::{Dit, DitConfig, Family, named_tensors};
use flm_discrete::LogLinear;
use flm_discrete::autoregressive::AutoregressiveObjective;
use flm_discrete::dcd::DcdObjective;
use flm_discrete::duo::DuoObjective;
use flm_discrete::duo::curriculum::{Curriculum, Transform};
use flm_discrete::mdlm::MdlmObjective;
use flm_discrete::sdtt::{Divergence, SdttObjective};
use flm_distill::{
    DistributionConfig, DistributionObjective, FlowMapConfig, FlowMapObjective, FlowObjective,
};
use flm_objective::Objective;
use flm_simplex::{Clock, Schedule, stream};
use flm_tests::sentences;
use flm_train::{Event, OptimizerKind, Outcome, Run, TrainConfig, TrainError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

type Train = Autodiff<Flex>;

const LENGTH: usize = 24;

fn data(folder: &Path) -> Dataset {
    sentences::prepare(folder, 400, LENGTH)
}

fn model(data: &Dataset, two_time: bool) -> Dit<Train> {
    made(sizes(data).with_two_time(two_time))
}

fn sizes(data: &Dataset) -> DitConfig {
    DitConfig {
        cond_dim: 16,
        ..DitConfig::new(data.tokenizer().vocab_size(), LENGTH, 16, 1, 2)
    }
}

fn made(config: DitConfig) -> Dit<Train> {
    config
        .init(&mut stream::generator(0, 4, 0, 0), &Default::default())
        .unwrap()
}

fn config(kind: OptimizerKind) -> TrainConfig {
    let mut config = TrainConfig {
        steps: 6,
        batch: 8,
        micro_batch: 2,
        ema_decay: 0.9,
        validate_every: 2,
        validation_rows: 8,
        log_every: 1,
        checkpoint_every: 0,
        ..Default::default()
    };
    config.optimizer.kind = kind;
    config.optimizer.warmup = 2;
    config
}

/// Trains, stops after `stop_after` steps, and returns the outcome with every reported loss.
fn train<O: Objective<Train, Network = Dit<Train>> + Clone>(
    data: &Dataset,
    objective: &O,
    model: &Dit<Train>,
    config: &TrainConfig,
    checkpoints: &Path,
    (workers, resume, stop_after): (usize, bool, Option<u64>),
) -> Result<(Outcome<Dit<Flex>>, Vec<f64>), TrainError> {
    let stop = AtomicBool::new(false);
    let run = Run {
        model: model.clone(),
        objective: objective.clone(),
        train: data.train(),
        validation: data.validation(),
        data: data.meta().tokenizer_hash.clone(),
        config: config.clone(),
        dropout: 0.1,
        workers,
        checkpoints: Some(checkpoints.to_owned()),
        resume,
        stop: Some(&stop),
        device: Default::default(),
    };
    let mut losses = Vec::new();
    let outcome = run.start()?.train(&mut |event| match event {
        Event::Step(line) => {
            losses.push(line.loss);
            // A stop request during a step's report takes effect after that step.
            stop.store(Some(line.step) == stop_after, Ordering::Relaxed);
        }
        Event::Validation(evaluation) => losses.push(evaluation.loss),
        Event::Checkpoint(_) => (),
    })?;
    Ok((outcome, losses))
}

fn assert_same_weights(a: &Dit<Flex>, b: &Dit<Flex>) {
    for (a, b) in named_tensors(a).iter().zip(&named_tensors(b)) {
        assert!(a.values == b.values, "{} differs", a.name);
    }
}

fn resumes_to_the_bit<O: Objective<Train, Network = Dit<Train>> + Clone>(
    data: &Dataset,
    objective: &O,
    sizes: &DitConfig,
    config: &TrainConfig,
) -> Outcome<Dit<Flex>> {
    let folder = tempfile::tempdir().unwrap();
    let (whole, halves) = (folder.path().join("whole"), folder.path().join("halves"));
    // Creates the network each time, as a new process would, so that parameter ids differ.
    let part = |checkpoints: &Path, how| {
        train(
            data,
            objective,
            &made(sizes.clone()),
            config,
            checkpoints,
            how,
        )
        .unwrap()
    };
    let (uninterrupted, expected) = part(&whole, (1, false, None));
    assert!(uninterrupted.finished);
    let (stopped, mut found) = part(&halves, (1, false, Some(3)));
    assert!(!stopped.finished && stopped.steps == 3);
    let (resumed, rest) = part(&halves, (2, true, None));
    found.extend(rest);
    // Equal bits, although the number of workers differs after the interruption.
    assert_eq!(expected, found);
    assert_same_weights(&uninterrupted.ema, &resumed.ema);
    assert_eq!(uninterrupted.clock, resumed.clock);
    resumed
}

#[test]
fn a_flow_resumes_to_the_bit_with_either_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let objective = FlowObjective::new(Schedule::new(data.tokenizer().vocab_size()).unwrap());
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        resumes_to_the_bit(&data, &objective, &sizes(&data), &config(kind));
    }
}

#[test]
fn a_flow_with_soft_targets_and_evidence_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let schedule = Schedule::new(data.tokenizer().vocab_size()).unwrap();
    let objective = FlowObjective::new(schedule).with_references(32);
    let sizes = DitConfig {
        evidence: true,
        ..sizes(&data)
    };
    resumes_to_the_bit(&data, &objective, &sizes, &config(OptimizerKind::Muon));
}

#[test]
fn a_flow_with_self_conditioning_and_a_fitted_clock_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let sizes = DitConfig {
        self_conditioning: true,
        ..sizes(&data)
    };
    let objective = FlowObjective::new(sizes.schedule().unwrap()).with_self_conditioning(0.5);
    // The run stops after three steps: the first fit after it uses losses from before the stop.
    let config = TrainConfig {
        clock_every: 2,
        ..config(OptimizerKind::Muon)
    };
    let clock = resumes_to_the_bit(&data, &objective, &sizes, &config).clock;
    let clock = clock.expect("a clock that is fitted");
    assert_ne!(clock, Clock::even());
}

#[test]
fn a_student_and_its_auxiliary_resume_to_the_bit_with_either_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let schedule = Schedule::new(data.tokenizer().vocab_size()).unwrap();
    let settings = DistributionConfig {
        levels: 2,
        renoisings: 2,
        ..Default::default()
    };
    let teacher = model(&data, false).valid();
    let sizes = sizes(&data).with_two_time(true);
    let mut rng = stream::generator(0, 5, 0, 0);
    let auxiliary = (teacher.clone()).into_two_time(sizes.cond_dim, &mut rng, &Default::default());
    let objective = DistributionObjective::new(schedule, settings, teacher, auxiliary);
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        resumes_to_the_bit(&data, &objective, &sizes, &config(kind));
    }
}

#[test]
fn a_distillation_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let schedule = Schedule::new(data.tokenizer().vocab_size()).unwrap();
    let teacher = model(&data, false).valid();
    let objective = FlowMapObjective::new(schedule, FlowMapConfig::default(), Some(teacher));
    let sizes = sizes(&data).with_two_time(true);
    resumes_to_the_bit(&data, &objective, &sizes, &config(OptimizerKind::Adamw));
}

#[test]
fn discrete_diffusion_and_autoregression_resume_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let of = |family| sizes(&data).with_family(family);
    let [mdlm, duo, causal] = [Family::Mdlm, Family::Duo, Family::Autoregressive].map(of);
    let config = config(OptimizerKind::Adamw);
    resumes_to_the_bit(&data, &MdlmObjective::default(), &mdlm, &config);
    resumes_to_the_bit(&data, &AutoregressiveObjective, &causal, &config);
    // The run stops after three steps; the curriculum softens the first two.
    let gamma = Transform::new(duo.vocab_size).covering();
    let curriculum = Curriculum::new(duo.vocab_size, gamma, 0.1, 2);
    let objective = DuoObjective::new(LogLinear::default(), Some(curriculum));
    resumes_to_the_bit(&data, &objective, &duo, &config);

    let teacher = |sizes: &DitConfig| made(sizes.clone()).valid();
    let schedule = LogLinear::default();
    let objective = SdttObjective::new(schedule, teacher(&mdlm), 0.1, Divergence::Forward);
    resumes_to_the_bit(&data, &objective, &mdlm, &config);
    let objective = DcdObjective::new(gamma, teacher(&duo), 0.1);
    resumes_to_the_bit(&data, &objective, &duo, &config);
}

#[test]
fn what_cannot_be_resumed_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let objective = FlowObjective::new(Schedule::new(data.tokenizer().vocab_size()).unwrap());
    let checkpoints = folder.path().join("checkpoints");
    let first = model(&data, false);
    let settings = config(OptimizerKind::Adamw);
    let error = |model: &Dit<Train>, settings: &TrainConfig| {
        train(
            &data,
            &objective,
            model,
            settings,
            &checkpoints,
            (1, true, None),
        )
        .err()
        .unwrap()
        .to_string()
    };
    assert!(
        error(&first, &settings).starts_with("no checkpoint in "),
        "{}",
        error(&first, &settings)
    );
    train(
        &data,
        &objective,
        &first,
        &settings,
        &checkpoints,
        (1, false, Some(2)),
    )
    .unwrap();

    let other = TrainConfig {
        seed: 1,
        ..settings.clone()
    };
    assert!(
        error(&first, &other).contains("settings differ"),
        "{}",
        error(&first, &other)
    );

    let wider = DitConfig {
        cond_dim: 16,
        ..DitConfig::new(data.tokenizer().vocab_size(), LENGTH, 32, 1, 2)
    };
    let wider = wider
        .init(&mut stream::generator(0, 4, 0, 0), &Default::default())
        .unwrap();
    let message = error(&wider, &settings);
    assert!(
        message
            .ends_with("its tensor blocks.0.adaLN_modulation.bias has shape [96], expected [192]"),
        "{message}"
    );
}

#[test]
fn a_checkpoint_whose_files_are_not_its_own_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let objective = FlowObjective::new(Schedule::new(data.tokenizer().vocab_size()).unwrap());
    let first = model(&data, false);
    let mut settings = config(OptimizerKind::Muon);
    let run = |settings: &TrainConfig, place: &Path, resume, stop| {
        train(
            &data,
            &objective,
            &first,
            settings,
            place,
            (1, resume, stop),
        )
    };
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    run(&settings, &ours, false, Some(2)).unwrap();
    settings.seed = 1;
    run(&settings, &theirs, false, Some(2)).unwrap();
    settings.seed = 0;
    let newest = |place: &Path| flm_train::latest_checkpoint(place).unwrap().unwrap().1;
    for name in ["model.mpk", "ema.mpk", "adamw.mpk", "muon.mpk"] {
        let path = newest(&ours).join(name);
        let whole = std::fs::read(&path).unwrap();
        // Another run's file has the right shapes.
        let other = std::fs::read(newest(&theirs).join(name)).unwrap();
        for content in [&whole[..whole.len() - 1], &other] {
            std::fs::write(&path, content).unwrap();
            let message = run(&settings, &ours, true, None).err().unwrap().to_string();
            let expected =
                format!("{name} does not match its SHA-256, it may be truncated or replaced");
            assert!(
                message.ends_with(&format!("{expected}: start again")),
                "{message}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        let message = run(&settings, &ours, true, None).err().unwrap().to_string();
        assert!(
            message.ends_with(&format!("{name} is missing: start again")),
            "{message}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    assert!(run(&settings, &ours, true, None).is_ok());
}

#[test]
fn a_run_whose_numbers_overflow_stops_and_keeps_good_checkpoints_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let objective = FlowObjective::new(Schedule::new(data.tokenizer().vocab_size()).unwrap());
    let mut settings = config(OptimizerKind::Adamw);
    settings.optimizer.warmup = 0;
    settings.checkpoint_every = 1;
    let diverged = |lr, checkpoints: &Path| {
        let mut settings = settings.clone();
        settings.optimizer.lr = lr;
        let run = (1, false, None);
        let first = model(&data, false);
        match train(&data, &objective, &first, &settings, checkpoints, run) {
            Err(error @ TrainError::Diverged { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("trained at a learning rate of {lr}"),
        }
    };
    // The first step overflows f32 and is detected before a checkpoint is written.
    let message = diverged(1e300, &folder.path().join("at-once"));
    assert!(
        message.starts_with("weights became infinite or NaN at step 1 (losses: diagonal ")
            && message.ends_with("; there is no checkpoint yet"),
        "{message}"
    );
    // Here the weights after the first steps just fit into f32.
    let checkpoints = folder.path().join("later");
    let message = diverged(2e38, &checkpoints);
    let (step, last) = flm_train::latest_checkpoint(&checkpoints).unwrap().unwrap();
    let begins = format!("weights became infinite or NaN at step {} ", step + 1);
    let ends = format!(
        "; the last checkpoint with finite weights is {}",
        last.display()
    );
    assert!(
        step > 0 && message.starts_with(&begins) && message.ends_with(&ends),
        "{message}"
    );
}
