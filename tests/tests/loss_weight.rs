//! The learned loss weight, in every flow-map objective.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::Flex;
use flm_denoiser::{Dit, DitConfig, Dropout, NamedTensor, Noise, apply_tensors, named_tensors};
use flm_distill::{FlowMapConfig, FlowMapObjective, ObjectiveKind, RowKind, TimeRow};
use flm_objective::Losses;
use flm_simplex::Schedule;
use flm_tests::fixture::{self, Fixture, flat, relative_error};
use flm_tests::{golden, gradients::named_gradients};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

type Train = Autodiff<Flex>;

const OBJECTIVES: [ObjectiveKind; 5] = [
    ObjectiveKind::Semigroup,
    ObjectiveKind::Lagrangian,
    ObjectiveKind::Eulerian,
    ObjectiveKind::Ecld,
    ObjectiveKind::Consistency,
];

/// The name of the bias, which is the initial w.
const BIAS: &str = "learnable_loss_weighting.mlp.2.bias";

/// Returns the golden network with a loss weight that is `w` at every time.
fn weighted(file: &Fixture, w: f32) -> Dit<Train> {
    let config = DitConfig {
        loss_weight: true,
        ..fixture::config(true)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let fresh: Dit<Train> = config.init(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&golden::model::<Flex>(file));
    let own = named_tensors(&fresh).into_iter();
    tensors.extend(own.filter(|tensor| tensor.name.starts_with("learnable_loss_weighting")));
    for tensor in &mut tensors {
        if tensor.name == BIAS {
            tensor.values = vec![w];
        }
    }
    apply_tensors(fresh, Path::new("golden"), tensors).unwrap()
}

/// The weight of off-diagonal rows.
const OFF_DIAGONAL: f32 = 2.0;

/// Returns the losses of two rows on the diagonal and two off it.
fn losses(file: &Fixture, student: &Dit<Train>, objective: ObjectiveKind) -> Losses<Train> {
    let config = FlowMapConfig {
        objective,
        off_diagonal_weight: f64::from(OFF_DIAGONAL),
        ..FlowMapConfig::default()
    };
    let jump = |tau_s, tau_t| TimeRow::span(RowKind::OffDiagonal, tau_s, tau_t);
    let rows = [
        TimeRow::diagonal(0.3),
        TimeRow::diagonal(0.7),
        jump(0.2, 0.8),
        jump(0.5, 0.9),
    ];
    FlowMapObjective::new(Schedule::new(61).unwrap(), config, None).score(
        student,
        None,
        file.int("expected.tokens"),
        &Noise::<Flex>::pinned(file.float("expected.noise")),
        &rows,
        &mut Dropout::off(),
    )
}

fn named<'a>(gradients: &'a [NamedTensor], name: &str) -> &'a NamedTensor {
    gradients.iter().find(|tensor| tensor.name == name).unwrap()
}

/// Returns the weight of each loss in the mean.
fn weights(count: usize) -> impl Iterator<Item = f32> {
    (0..count).map(move |i| {
        let on = i < count / 2;
        (if on { 1.0 } else { OFF_DIAGONAL }) / count as f32
    })
}

#[test]
fn a_weight_that_has_learned_nothing_changes_nothing() {
    let file = golden::open();
    let plain_student: Dit<Train> = golden::model(&file);
    let student = weighted(&file, 0.0);
    for objective in OBJECTIVES {
        let plain = losses(&file, &plain_student, objective);
        let answer = losses(&file, &student, objective);
        let per_token = flat(plain.per_token);
        assert_eq!(flat(answer.per_token), per_token);
        assert_eq!(flat(answer.mean.clone()), flat(plain.mean.clone()));
        let ours = named_gradients(&student, answer.mean);
        for expected in named_gradients(&plain_student, plain.mean) {
            let error = relative_error(&named(&ours, &expected.name).values, &expected.values);
            // Both run the same operations.
            assert!(error < 1e-6, "{objective:?} {}: {error:.1e}", expected.name);
        }
        // ∂/∂w (e^(−w)·ℓ + w) = 1 − ℓ.
        let terms = per_token.iter().zip(weights(per_token.len()));
        let expected: f32 = terms.map(|(loss, weight)| weight * (1.0 - loss)).sum();
        let error = relative_error(&named(&ours, BIAS).values, &[expected]);
        assert!(error < 1e-5, "{objective:?}: {error:.1e}");
    }
}

#[test]
fn a_learned_weight_damps_the_loss_and_its_gradient() {
    let file = golden::open();
    let plain_student: Dit<Train> = golden::model(&file);
    let w = 0.7_f32;
    let student = weighted(&file, w);
    let tau = Tensor::<Train, 1>::from_floats([0.1, 0.9], &Default::default());
    let answered = flat(student.loss_weight(tau.clone()).unwrap());
    assert!(relative_error(&answered, &[w, w]) < 1e-6);
    assert!(plain_student.loss_weight(tau).is_none());
    for objective in OBJECTIVES {
        let plain = losses(&file, &plain_student, objective);
        let answer = losses(&file, &student, objective);
        let total: f32 = weights(flat(plain.per_token.clone()).len()).sum();
        let damped = flat(plain.mean.clone())[0] * (-w).exp() + w * total;
        let error = relative_error(&flat(answer.mean.clone()), &[damped]);
        assert!(error < 1e-6, "{objective:?}: {error:.1e}");
        assert_eq!(flat(answer.per_token), flat(plain.per_token));
        let ours = named_gradients(&student, answer.mean);
        let expected = named_gradients(&plain_student, plain.mean * (-w).exp());
        for name in ["output_layer.linear.weight", "vocab_embed.embedding"] {
            let error = relative_error(&named(&ours, name).values, &named(&expected, name).values);
            // The factor is applied before the sums instead of after.
            assert!(error < 1e-5, "{objective:?} {name}: {error:.1e}");
        }
    }
}
