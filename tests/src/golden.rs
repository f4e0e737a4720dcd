//! The golden file: the fixtures for clones without the full ones.

use crate::fixture::{Fixture, Pinned, config, flat};
use burn::tensor::Tensor;
use burn_flex::Flex;
use flm_denoiser::reference::{Hints, ReferenceCheckpoint, Weights};
use flm_denoiser::{Dit, Dropout, NamedTensor, apply_tensors, named_tensors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors copied from `expected.safetensors`, with the prefix `expected.`.
const EXPECTED: [&str; 24] = [
    "fmlm_gamma0.0_1",
    "fmlm_gamma0.0_2",
    "fmlm_gamma0.0_4",
    "fmlm_gamma0.0_8",
    "fmlm_gamma0.8_1",
    "fmlm_gamma0.8_2",
    "fmlm_gamma0.8_4",
    "fmlm_log_probs",
    "fmlm_psd_grad.output_layer.linear.weight",
    "fmlm_psd_loss_per_token",
    "fresh_noise_0",
    "fresh_noise_1",
    "fresh_noise_2",
    "noise",
    "pair_tau_s",
    "pair_tau_t",
    "row_kind",
    "row_tau_s",
    "row_tau_t",
    "t",
    "tau",
    "tokens",
    "x_t",
    "z0",
];

/// Tensors copied from `flow_map.safetensors`, with the prefix `flow_map.`.
///
/// I_s is left out: it is computed from the noise and the tokens.
const FLOW_MAP: [&str; 15] = [
    "X_su",
    "d_delta_along_velocity",
    "d_delta_d_tau_s",
    "d_delta_d_tau_t",
    "delta_st",
    "delta_ut",
    "s",
    "semigroup_gamma",
    "semigroup_target",
    "t",
    "tau_s",
    "tau_t",
    "tau_u",
    "u",
    "velocity_s",
];

/// The one-time teacher's prediction for the rows of the semigroup loss, D_s(I_s) at `row_tau_s`,
/// `[batch, length, vocabulary]`.
///
/// The fixtures pin the teacher only at other times, and its weights would not fit in the golden
/// file. So this is our teacher's output, whose agreement with the reference is checked separately.
pub const TEACHER: &str = "derived.teacher_at_row_tau_s";

/// The prefix of parameter names.
const WEIGHTS: &str = "fmlm.";

/// Returns the path of the golden file.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fmlm.safetensors")
}

/// Reads the golden file.
///
/// # Panics
///
/// If the file cannot be read.
pub fn open() -> Fixture {
    Fixture::open(&path())
}

/// Returns the two-time network of the golden file.
///
/// # Panics
///
/// If its weights are missing from the file.
pub fn model<B: burn::tensor::backend::Backend>(golden: &Fixture) -> Dit<B> {
    let weights = golden
        .0
        .keys()
        .filter_map(|name| Some((name, name.strip_prefix(WEIGHTS)?)));
    let tensors = weights.map(|(key, name)| NamedTensor {
        name: name.to_owned(),
        shape: golden.pinned(key).shape.clone(),
        values: golden.values(key),
    });
    let fresh = config(true)
        .init(&mut ChaCha8Rng::seed_from_u64(0), &B::Device::default())
        .expect("valid sizes");
    apply_tensors(fresh, &path(), tensors).unwrap_or_else(|error| panic!("{error}"))
}

/// Extracts the content of the golden file from the full fixtures in `shared`.
///
/// # Panics
///
/// If a fixture is missing.
pub fn make(shared: &Path) -> Fixture {
    let folder = shared.join("parity/model");
    let expected = Fixture::open(&folder.join("expected.safetensors"));
    let flow_map = Fixture::open(&folder.join("flow_map.safetensors"));
    let load = |file: &str| -> Dit<Flex> {
        ReferenceCheckpoint::open(&folder.join(file))
            .and_then(|file| file.load(Weights::Averaged, &Hints::default(), &Default::default()))
            .map(|(model, _)| model)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let (teacher, student) = (load("flm.ckpt"), load("fmlm.ckpt"));

    let mut tensors = BTreeMap::new();
    for name in EXPECTED {
        tensors.insert(format!("expected.{name}"), expected.pinned(name).clone());
    }
    for name in FLOW_MAP {
        tensors.insert(format!("flow_map.{name}"), flow_map.pinned(name).clone());
    }
    for weight in named_tensors(&student) {
        tensors.insert(
            format!("{WEIGHTS}{}", weight.name),
            Pinned::floats(weight.shape, &weight.values),
        );
    }
    let denoised = teacher_denoised(&teacher, &expected);
    tensors.insert(
        TEACHER.to_owned(),
        Pinned::floats(denoised.dims().to_vec(), &flat(denoised)),
    );
    Fixture(tensors)
}

/// Returns D_s(I_s) of the one-time `teacher` for the rows of the semigroup loss, computed from the
/// tensors of `expected.safetensors`.
pub fn teacher_denoised(teacher: &Dit<Flex>, expected: &Fixture) -> Tensor<Flex, 3> {
    let taus: Tensor<Flex, 1> = expected.float("row_tau_s");
    let schedule = flm_simplex::Schedule::new(61).expect("61 tokens have a schedule");
    let times: Vec<f64> = expected
        .values("row_tau_s")
        .iter()
        .map(|tau| schedule.t_of_tau(f64::from(*tau)))
        .collect();
    let embed = teacher.embed();
    let state = flm_simplex::interpolant::interpolate(
        embed.project(expected.float("noise")),
        embed.tokens(expected.int("tokens")),
        flm_simplex::interpolant::rows(&times, &Default::default()),
    );
    teacher
        .forward(state, taus.clone(), taus, &mut Dropout::off())
        .distribution()
        .dense()
}

/// Serializes a fixture as a safetensors file.
///
/// # Panics
///
/// If the number of a tensor's bytes does not match its shape.
pub fn bytes(fixture: &Fixture) -> Vec<u8> {
    let views = fixture.0.iter().map(|(name, pinned)| {
        let view = TensorView::new(pinned.dtype, pinned.shape.clone(), &pinned.bytes);
        (name, view.unwrap_or_else(|error| panic!("{name}: {error}")))
    });
    safetensors::serialize(views, None).expect("whole tensors")
}
