//! Losses, rows and configuration errors of distribution matching.

use super::*;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn_flex::Flex;
use flm_denoiser::{DitConfig, NoiseWidth, apply_tensors, named_tensors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type Train = Autodiff<Flex>;

const VOCAB: usize = 9;

fn config() -> DistributionConfig {
    DistributionConfig {
        renoisings: 2,
        ..Default::default()
    }
}

fn objective(config: DistributionConfig, teacher: &Dit<Train>) -> DistributionObjective<Flex> {
    let (schedule, teacher) = (Schedule::new(VOCAB).unwrap(), teacher.valid());
    DistributionObjective::new(schedule, config, teacher.clone(), teacher)
}

/// A network with all parameters drawn at random; the head's bias of a token is raised by `raise`.
fn network(two_time: bool, raise: Option<(usize, f32)>) -> Dit<Train> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let sizes = DitConfig::new(VOCAB, 4, 16, 1, 2).with_two_time(two_time);
    let model = sizes.init::<Train>(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        // The same for both kinds of network, whatever the order of their tensors.
        let mut rng = ChaCha8Rng::seed_from_u64(tensor.name.len() as u64);
        tensor.values.fill_with(|| rng.random_range(-0.2..0.2));
        if let Some((token, by)) = raise
            && tensor.name == "output_layer.linear.bias"
        {
            tensor.values[token] += by;
        }
    }
    apply_tensors(model, Path::new("drawn"), tensors).unwrap()
}

#[test]
fn a_clock_begins_with_noise_alone() {
    let teacher = network(false, None);
    let clock = flm_simplex::Clock::new(vec![0.3, 1.0]).unwrap();
    let schedule = Schedule::new(VOCAB).unwrap().with_clock(clock);
    let s = schedule.t_of_tau(0.3) as f32;
    let student = network(true, None);
    let [of_teacher, of_auxiliary] = [(), ()].map(|()| teacher.valid());
    let objective = DistributionObjective::new(schedule, config(), of_teacher, of_auxiliary);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let rows = objective.rows(2, &mut rng);
    assert!(rows.iter().all(|row| row.level == 0.3));
    let noise = Prior::new(student.valid().embed()).draw(2, 4, &mut rng);
    let spans: Vec<TimeRow> = rows
        .iter()
        .map(|row| TimeRow::span(RowKind::Boundary, row.level, 1.0))
        .collect();
    let device = Default::default();
    let at = RowTimes::<Train>::of(&spans, &objective.schedule, &device);
    let tokens = Tensor::from_ints([[1, 2, 3, 4], [5, 6, 7, 8]], &device);
    let found = objective
        .begun(&student, tokens, &noise, &rows, &at)
        .inner();
    let expected = noise.seen(student.valid().embed()) * (1.0 - s);
    let change: f32 = (found - expected).abs().max().into_scalar();
    assert!(change < 1e-5, "{change}");
}

fn losses(
    objective: &DistributionObjective<Flex>,
    [student, auxiliary]: [&Dit<Train>; 2],
) -> DistributionLosses<Train> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let rows = objective.rows(2, &mut rng);
    let seen = student.valid();
    let teacher = (objective.config.paths > 0.0).then(|| objective.teacher.embed());
    let noise = Prior::of_width(seen.embed(), teacher, NoiseWidth::Vocabulary);
    let noise = noise.draw(2, 4, &mut rng);
    let renoising = objective.renoising([2, 4], &mut rng);
    let tokens = Tensor::from_ints([[1, 2, 3, 4], [5, 6, 7, 8]], &Default::default());
    let off = &mut Dropout::off();
    objective.score(
        [student, auxiliary],
        tokens,
        [&noise, &renoising],
        &rows,
        off,
    )
}

fn values<const D: usize>(x: Tensor<Flex, D>) -> Vec<f32> {
    x.into_data().to_vec().unwrap()
}

#[test]
fn levels_are_shared_evenly_and_times_are_spread() {
    let config = DistributionConfig {
        levels: 4,
        renoisings: 3,
        earliest: 0.1,
        latest: 0.7,
        ..Default::default()
    };
    let objective = objective(config, &network(false, None));
    let rows = objective.rows(8, &mut ChaCha8Rng::seed_from_u64(1));
    for level in [0.0, 0.25, 0.5, 0.75] {
        assert_eq!(rows.iter().filter(|row| row.level == level).count(), 2);
    }
    let mut times: Vec<f64> = rows.into_iter().flat_map(|row| row.renoised).collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(times.len(), 24);
    for (i, time) in times.into_iter().enumerate() {
        let stratum = ((time - 0.1) / 0.6 * 24.0) as usize;
        assert_eq!(stratum, i, "{time}");
    }
}

#[test]
fn where_the_auxiliary_is_the_teacher_the_student_stays() {
    let (teacher, student) = (network(false, None), network(true, None));
    let found = losses(&objective(config(), &teacher), [&student, &teacher]);
    assert!(values(found.contrast).iter().all(|x| x.abs() < 1e-6));
    let grads = found.student.backward();
    let gradient = student.embed().embedding.val().grad(&grads).unwrap();
    // Contrasts from rounding are divided by the least size that counts.
    assert!(gradient.abs().max().into_scalar() < 1e-3);
}

#[test]
fn the_student_gives_up_what_the_auxiliary_finds_too_often() {
    let (teacher, student) = (network(false, None), network(true, None));
    let auxiliary = network(false, Some((2, 1.0)));
    let found = losses(&objective(config(), &teacher), [&student, &auxiliary]);
    // Descend along the head's own matrix and see which tokens the student makes likelier.
    let grads = found.student.backward();
    let (_, head) = student.matrices().pop().unwrap();
    let gradient = head.grad(&grads).unwrap();
    let mut tensors = named_tensors(&student);
    for tensor in &mut tensors {
        if tensor.name == "output_layer.linear.weight" {
            // Files store the transposed matrix.
            let gradient = values(gradient.clone().transpose());
            let steps = tensor.values.iter_mut().zip(gradient);
            steps.for_each(|(weight, slope)| *weight -= 5.0 * slope);
        }
    }
    let moved = apply_tensors(student.clone(), Path::new("moved"), tensors).unwrap();
    let likely = |model: &Dit<Train>| {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let state = Prior::new(model.valid().embed()).draw(2, 4, &mut rng);
        let state = state.seen(model.valid().embed());
        let tau = Tensor::zeros([2], &Default::default());
        let end = Tensor::ones([2], &Default::default());
        let plain = model.valid();
        let prediction = plain.forward(state, tau, end, &mut Dropout::off());
        let p: Vec<f32> = values(prediction.distribution().dense());
        p.chunks_exact(VOCAB).map(|p| p[2]).sum::<f32>() / 8.0
    };
    let (before, after) = (likely(&student), likely(&moved));
    assert!(after < 0.95 * before, "{before} {after}");
}

#[test]
fn a_flat_student_finds_no_contrast() {
    // With equal probabilities Σ p·(A − T) = (1 − 1)/V.
    let (teacher, student) = (network(false, None), network(true, None));
    let auxiliary = network(false, Some((2, 1.0)));
    let largest = |student_temperature: f64| {
        let config = DistributionConfig {
            student_temperature,
            ..config()
        };
        let found = losses(&objective(config, &teacher), [&student, &auxiliary]);
        values(found.contrast)
            .into_iter()
            .map(f32::abs)
            .fold(0.0, f32::max)
    };
    assert!(largest(1.0) > 1e-3, "{}", largest(1.0));
    assert!(largest(1e6) < 1e-6, "{}", largest(1e6));
}

#[test]
fn the_auxiliary_learns_what_the_student_writes_and_keeps_its_embedding() {
    let (teacher, student) = (network(false, None), network(true, None));
    let auxiliary = network(false, None);
    let found = losses(&objective(config(), &teacher), [&student, &auxiliary]);
    let loss = values(found.auxiliary.clone().inner())[0];
    assert!(loss > 0.0 && loss < 2.0 * (VOCAB as f32).ln(), "{loss}");
    let grads = found.auxiliary.backward();
    assert!(auxiliary.embed().embedding.val().grad(&grads).is_none());
    let of_network = auxiliary.matrices().into_iter().skip(1);
    assert!(of_network.map(|(_, x)| x.grad(&grads)).all(|x| x.is_some()));
    // No gradient of it reaches the student.
    let none = |(_, x): (_, Tensor<Train, 2>)| x.grad(&grads).is_none();
    assert!(student.matrices().into_iter().all(none));
}

#[test]
fn rows_with_a_path_learn_where_it_leads() {
    let (teacher, student) = (network(false, None), network(true, Some((1, 0.5))));
    let of = |paths: f64, path_weight: f64| {
        let config = DistributionConfig {
            paths,
            path_steps: 3,
            path_weight,
            ..config()
        };
        let objective = objective(config, &teacher);
        (losses(&objective, [&student, &teacher]), objective)
    };
    let ((without, _), (with, objective)) = (of(0.0, 1.0), of(0.5, 2.0));
    // The first row of two, from the noise that both networks see.
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let rows = objective.rows(2, &mut rng);
    assert_eq!([rows[0].path, rows[1].path], [true, false]);
    let (plain, embed) = (student.valid(), objective.teacher.embed());
    let noise = Prior::of_width(plain.embed(), Some(embed), NoiseWidth::Vocabulary);
    let noise = noise.draw(2, 4, &mut rng).narrow(0, 1);
    let span = [TimeRow::span(RowKind::Boundary, 0.0, 1.0)];
    let start = noise.seen_by_teacher(embed);
    let schedule = Schedule::new(VOCAB).unwrap();
    let target = follow(&teacher.valid(), start, &span, 3, &schedule, 1.0);
    let answer = student.forward(
        Tensor::from_inner(noise.seen(plain.embed())),
        Tensor::zeros([1], &Default::default()),
        Tensor::ones([1], &Default::default()),
        &mut Dropout::off(),
    );
    let mean = Tensor::full([1, 4], 1.0 / 4.0, &Default::default());
    let expected = answer.soft_cross_entropy(&target, mean).loss;
    let value = |x: Tensor<Train, 1>| values(x.inner())[0];
    // Half of the rows, with twice the weight.
    let found = value(with.student) - value(without.student);
    assert!((found - value(expected)).abs() < 1e-5, "{found}");
    assert_eq!(
        Objective::<Train>::evaluations(&objective, 2),
        2.0 * 3.0 + 4.0 * 4.0 + 3.0
    );
}

#[test]
fn impossible_settings_are_named() {
    let message = |config: DistributionConfig| config.validate().unwrap_err().to_string();
    let default = DistributionConfig::default;
    assert_eq!(default().validate(), Ok(()));
    let zero = DistributionConfig {
        levels: 0,
        ..default()
    };
    assert_eq!(
        message(zero),
        "distribution levels must be at least 1, found 0"
    );
    let times = DistributionConfig {
        earliest: 0.9,
        latest: 0.2,
        ..default()
    };
    let paths = DistributionConfig {
        paths: 2.0,
        ..default()
    };
    let soft = DistributionConfig {
        student_temperature: 0.0,
        ..default()
    };
    assert_eq!(
        message(soft),
        "distribution student_temperature must be positive and finite, found 0"
    );
    assert_eq!(
        message(paths),
        "distribution paths must be a share between 0 and 1, found 2"
    );
    assert_eq!(
        message(times),
        "distribution earliest and latest must satisfy 0 <= earliest < latest <= 1, found 0.9 and 0.2"
    );
}
