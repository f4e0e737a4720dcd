//! The network, the samplers and the losses agree with the published implementation.
//!
//! The golden file is in every clone; the full fixtures are optional. See the root of `flm_tests`.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_denoiser::{Dit, Dropout};
use flm_tests::fixture::{self, Fixture, Pinned, flat, flat_int, relative_error};
use flm_tests::golden;
use flm_tests::parity::{Line, Models, Parity, Source, Verdict, convert, discrete, text};
use safetensors::Dtype;

type Fused = Autodiff<Flex>;
/// A backend without `flm_ops` kernels, which checks the compositions.
type Composed = Autodiff<Flex, BalancedCheckpointing>;

/// The numbers of compared tensors in the golden file and in the full fixtures. All others are
/// inputs, except one that cannot be compared.
const GOLDEN: usize = 22;
const FULL: usize = 65;

/// Returns the lines of compared tensors.
fn compared(lines: &[Line]) -> Vec<&Line> {
    let compares = |line: &&Line| {
        matches!(
            line.verdict,
            Verdict::Numbers { .. } | Verdict::Tokens { .. }
        )
    };
    lines.iter().filter(compares).collect()
}

fn assert_agrees<B: AutodiffBackend>(parity: &Parity<B>, tensors: usize) {
    let lines = parity.lines();
    for line in &lines {
        assert!(line.holds(), "{line}");
    }
    assert_eq!(compared(&lines).len(), tensors);
}

/// Opens the full fixtures and converts their checkpoints.
fn full<B: AutodiffBackend>() -> Option<Parity<B>> {
    let folder = fixture::shared()?.join("parity/model");
    let home = tempfile::tempdir().unwrap();
    let models = Models::convert(&folder, home.path(), &convert::<Flex>).unwrap();
    Some(Parity::open(&Source::Folder(folder, models)).unwrap())
}

#[test]
fn the_golden_numbers_agree() {
    assert_agrees(&Parity::<Fused>::open(&Source::golden()).unwrap(), GOLDEN);
}

#[test]
fn the_golden_numbers_agree_without_kernels() {
    assert_agrees(
        &Parity::<Composed>::open(&Source::golden()).unwrap(),
        GOLDEN,
    );
}

#[test]
fn the_full_fixtures_agree() {
    if let Some(parity) = full::<Fused>() {
        assert_agrees(&parity, FULL);
    }
}

#[test]
fn the_full_fixtures_agree_without_kernels() {
    if let Some(parity) = full::<Composed>() {
        assert_agrees(&parity, FULL);
    }
}

/// Returns a tensor of one of the two files.
fn tensor<'a, B: AutodiffBackend>(
    parity: &'a mut Parity<B>,
    of_map: bool,
    name: &str,
) -> &'a mut Pinned {
    let file = if of_map {
        &mut parity.map_file
    } else {
        &mut parity.expected
    };
    file.0.get_mut(name).expect("a tensor of this file")
}

/// Returns the positions of numbers to corrupt: the first, and the first with a magnitude in 1..2,
/// which a bit flip turns into NaN or infinity.
fn places(tensor: &Pinned) -> Vec<usize> {
    let of_magnitude = |bytes: &[u8]| match bytes.try_into() {
        Ok(bytes) => (1.0..2.0).contains(&f32::from_le_bytes(bytes).abs()),
        Err(_) => false,
    };
    let place = match tensor.dtype {
        Dtype::F32 => tensor.bytes.chunks(4).position(of_magnitude),
        _ => None,
    };
    [0].into_iter().chain(place).collect()
}

/// Checks that flipping one bit in any expected tensor makes its comparison fail.
///
/// It flips the bit below the sign: the highest exponent bit of a float, and a bit that makes a
/// token invalid.
fn assert_flips_are_seen<B: AutodiffBackend>(mut parity: Parity<B>) {
    let of_expected = parity.expected.0.keys().map(|name| (false, name.clone()));
    let of_map = parity.map_file.0.keys().map(|name| (true, name.clone()));
    let names: Vec<(bool, String)> = of_expected.chain(of_map).collect();
    for (of_map, name) in names {
        let line = |parity: &Parity<B>| {
            if of_map {
                parity.of_map(&name)
            } else {
                parity.of_expected(&name)
            }
        };
        if compared(&[line(&parity)]).is_empty() {
            continue;
        }
        let flip = |tensor: &mut Pinned, place: usize| {
            let width = tensor.bytes.len() / tensor.shape.iter().product::<usize>();
            tensor.bytes[(place + 1) * width - 1] ^= 0x40;
        };
        for place in places(tensor(&mut parity, of_map, &name)) {
            // The second row of the Eulerian loss is a boundary row, which is not compared.
            if name == "fmlm_esd_loss_per_token" && place > 0 {
                continue;
            }
            flip(tensor(&mut parity, of_map, &name), place);
            let found = line(&parity);
            assert!(!found.holds(), "{found}, number {place}");
            flip(tensor(&mut parity, of_map, &name), place);
        }
    }
}

#[test]
fn a_flipped_bit_is_seen() {
    assert_flips_are_seen(Parity::<Fused>::open(&Source::golden()).unwrap());
    if let Some(parity) = full::<Fused>() {
        assert_flips_are_seen(parity);
    }
}

#[test]
fn the_fixtures_of_text_agree() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let lines = text::<Flex>(&shared.join("parity/text"), &shared.join("tokenizers")).unwrap();
    for line in &lines {
        assert!(line.holds(), "{line}");
    }
    // Losses of eight texts, three checks of the texts together, four detokenizers, two layouts.
    assert_eq!(compared(&lines).len(), 8 + 3 + 4 + 2);
}

/// Checks that every compared tensor agrees, and that none agrees after a bit flip.
fn assert_discrete_agrees<B: AutodiffBackend>(file: &mut Fixture) {
    let names: Vec<String> = file.0.keys().cloned().collect();
    let mut count = 0;
    for name in names {
        let line = discrete::of::<B>(file, &name);
        assert!(line.holds(), "{line}");
        if compared(&[line]).is_empty() {
            continue;
        }
        count += 1;
        for place in places(file.pinned(&name)) {
            let flip = |file: &mut Fixture| {
                let tensor = file.0.get_mut(&name).expect("a tensor of this file");
                tensor.bytes[(place + 1) * 4 - 1] ^= 0x40;
            };
            flip(file);
            let line = discrete::of::<B>(file, &name);
            assert!(!line.holds(), "{line}, number {place}");
            flip(file);
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_fixtures_of_discrete_diffusion_agree() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let path = shared.join("parity/model/discrete.safetensors");
    let mut file = Fixture::open(&path);
    assert_discrete_agrees::<Fused>(&mut file);
    assert_discrete_agrees::<Composed>(&mut file);
}

#[test]
fn a_tensor_that_no_check_knows_does_not_pass() {
    let mut parity = Parity::<Fused>::open(&Source::golden()).unwrap();
    let any = parity.expected.pinned("tokens").clone();
    parity.expected.0.insert("news".to_owned(), any);
    let line = parity.of_expected("news");
    assert_eq!((line.holds(), &line.verdict), (false, &Verdict::Unknown));
}

#[test]
fn the_head_gives_the_same_numbers_by_every_way() {
    let file = golden::open();
    let model: Dit<Flex> = golden::model(&file);
    let state = model.embed().project(file.float("expected.x_t"));
    let times = ["expected.pair_tau_s", "expected.pair_tau_t"].map(|name| file.float(name));
    let [tau_s, tau_t] = times;
    let prediction = model.forward(state, tau_s, tau_t, &mut Dropout::off());
    let expected = file.values("expected.fmlm_log_probs");
    let tokens = file.int::<Flex, 2>("expected.tokens");
    let ids = flat_int(tokens.clone());
    let picked: Vec<f32> = expected
        .chunks(61)
        .zip(&ids)
        .map(|(row, id)| row[*id as usize])
        .collect();
    let probabilities: Vec<f32> = expected.iter().map(|value| value.exp()).collect();
    for (found, expected) in [
        (flat(prediction.log_probs(tokens)), picked),
        (flat(prediction.distribution().dense()), probabilities),
    ] {
        assert!(relative_error(&found, &expected) < 2e-5);
    }
}

#[test]
fn the_golden_file_is_cut_from_the_fixtures() {
    let Some(shared) = fixture::shared() else {
        return;
    };
    let (mut golden, mut made) = (golden::open(), golden::make(&shared));
    // This tensor is computed, not copied, so it may differ by rounding.
    let [old, new] = [&mut golden, &mut made].map(|file| {
        let values = file.values(golden::TEACHER);
        file.0.remove(golden::TEACHER);
        values
    });
    assert!(relative_error(&new, &old) < 2e-5);
    assert!(golden.0.keys().eq(made.0.keys()));
    for (name, pinned) in &made.0 {
        assert!(golden.pinned(name) == pinned, "{name} differs");
    }
}
