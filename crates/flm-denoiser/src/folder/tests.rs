use super::*;
use crate::{Dit, DitConfig, named_tensors};
use burn::backend::Autodiff;
use burn::tensor::{bf16, f16};
use burn_flex::Flex;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A tensor in a file: type, shape, bytes.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

fn config() -> DitConfig {
    DitConfig {
        cond_dim: 6,
        dropout: 0.25,
        register_token: true,
        schedule_vocab: 4,
        ..DitConfig::new(5, 3, 8, 1, 2)
    }
}

fn model(seed: u64) -> Dit<Flex> {
    config()
        .init(&mut ChaCha8Rng::seed_from_u64(seed), &Default::default())
        .unwrap()
}

/// A folder `m` in a temporary folder, with the model of seed 1.
fn saved() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    save(
        &path,
        &model(1),
        &config(),
        &[("tokenizer.json", b"{}")],
        Existing::Refuse,
    )
    .unwrap();
    (dir, path)
}

fn failure(path: &Path) -> String {
    load::<Flex>(path, &Default::default())
        .unwrap_err()
        .to_string()
        .replace(&format!("{}/", path.display()), "m/")
}

/// Rewrites the tensors of a folder; `change` returns a changed tensor, or `None` to drop it.
fn rewrite(path: &Path, change: impl Fn(&str, TensorView<'_>) -> Option<Raw>) {
    let file = path.join(TENSORS_FILE);
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned: Vec<(String, Raw)> = tensors
        .iter()
        .filter_map(|(name, view)| Some((name.to_owned(), change(name, view)?)))
        .collect();
    let views = owned.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn unchanged(view: &TensorView<'_>) -> Raw {
    (view.dtype(), view.shape().to_vec(), view.data().to_vec())
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let (_dir, path) = saved();
    let (loaded, found) = load::<Flex>(&path, &Default::default()).unwrap();
    assert_eq!(found, config());
    assert_eq!(named_tensors(&loaded), named_tensors(&model(1)));
    assert_eq!(fs::read(path.join("tokenizer.json")).unwrap(), b"{}");
    let mut names: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [CONFIG_FILE, TENSORS_FILE, "tokenizer.json"]);
}

#[test]
fn a_loaded_model_is_trained() {
    let (_dir, path) = saved();
    let (loaded, _) = load::<Autodiff<Flex>>(&path, &Default::default()).unwrap();
    let embedding = &loaded.embed().embedding;
    let grads = embedding.val().sum().backward();
    assert!(embedding.is_require_grad() && embedding.grad(&grads).is_some());
}

#[test]
fn halves_are_widened() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        let (_dir, path) = saved();
        let narrow = |value: f32| match dtype {
            Dtype::F16 => f16::from_f32(value).to_le_bytes(),
            _ => bf16::from_f32(value).to_le_bytes(),
        };
        rewrite(&path, |_, view| {
            let data = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(|b| narrow(f32::from_le_bytes(*b)))
                .collect();
            Some((dtype, view.shape().to_vec(), data))
        });
        let (loaded, _) = load::<Flex>(&path, &Default::default()).unwrap();
        for (found, expected) in named_tensors(&loaded)
            .into_iter()
            .zip(named_tensors(&model(1)))
        {
            for (found, expected) in found.values.into_iter().zip(expected.values) {
                // The shorter mantissa has eight bits, rounded. Below 6e-8, F16 rounds to zero.
                assert!(
                    (found - expected).abs() <= expected.abs() / 256.0 + 6e-8,
                    "{dtype}: {found}, {expected}"
                );
            }
        }
    }
}

#[test]
fn an_existing_folder_is_replaced_only_on_request() {
    let (dir, path) = saved();
    let again = |existing| save(&path, &model(2), &config(), &[], existing);
    let error = again(Existing::Refuse).unwrap_err().to_string();
    assert_eq!(error, format!("{} exists already", path.display()));
    let kept = load::<Flex>(&path, &Default::default()).unwrap().0;
    assert_eq!(named_tensors(&kept), named_tensors(&model(1)));

    again(Existing::Replace).unwrap();
    let replaced = load::<Flex>(&path, &Default::default()).unwrap().0;
    assert_eq!(named_tensors(&replaced), named_tensors(&model(2)));
    assert!(
        !path.join("tokenizer.json").exists(),
        "files of the old folder remain"
    );

    // Other existing folders are not replaced.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "").unwrap();
    let error = save(&other, &model(2), &config(), &[], Existing::Replace)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "{} is not a model folder, so it is not replaced",
            other.display()
        )
    );
    assert!(other.join("thesis.tex").exists());
}

#[test]
fn a_refused_save_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let attempt = |config: &DitConfig, extra: &[(&str, &[u8])]| {
        save(&path, &model(1), config, extra, Existing::Refuse)
            .unwrap_err()
            .to_string()
    };
    for name in [
        "",
        "a/b",
        "..",
        "config.json",
        "model.safetensors",
        "denoiser",
    ] {
        let expected = format!("{name:?} is not a valid name for an extra file in a model folder");
        assert_eq!(attempt(&config(), &[(name, b"")]), expected);
    }
    assert_eq!(
        attempt(&config(), &[("a", b""), ("a", b"")]),
        "\"a\" is not a valid name for an extra file in a model folder"
    );
    assert_eq!(
        attempt(&config().with_two_time(true), &[]),
        "the configuration has two_time = true, but the network has false"
    );
    assert_eq!(
        attempt(
            &DitConfig {
                register_token: false,
                ..config()
            },
            &[]
        ),
        "the configuration has register_token = false, but the network has true"
    );
    assert_eq!(
        attempt(
            &DitConfig {
                heads: 4,
                ..config()
            },
            &[]
        ),
        "the configuration has heads = 4, but the network has 2"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_folder_is_readable_like_its_siblings() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path) = saved();
    let sibling = dir.path().join("sibling");
    fs::create_dir(&sibling).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&sibling));
}

#[test]
fn faults_of_the_tensors_are_named() {
    let (_dir, path) = saved();
    rewrite(&path, |name, view| {
        (name != "blocks.0.mlp.2.bias").then(|| unchanged(&view))
    });
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor blocks.0.mlp.2.bias of shape [8] is missing"
    );

    let (_dir, path) = saved();
    rewrite(&path, |name, view| {
        let mut tensor = unchanged(&view);
        if name == "output_layer.linear.weight" {
            tensor.1 = vec![8, 5];
        }
        Some(tensor)
    });
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor output_layer.linear.weight must have shape [5, 8], found [8, 5]"
    );

    let (_dir, path) = saved();
    rewrite(&path, |name, view| {
        let mut tensor = unchanged(&view);
        if name == "blocks.0.norm1.weight" {
            tensor.2[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
        }
        Some(tensor)
    });
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor blocks.0.norm1.weight holds inf at position 1; every value must be finite"
    );

    let (_dir, path) = saved();
    rewrite(&path, |name, view| {
        let mut tensor = unchanged(&view);
        if name == "blocks.0.norm1.weight" {
            tensor.0 = Dtype::I32;
        }
        Some(tensor)
    });
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor blocks.0.norm1.weight has type I32, expected F32, F16 or BF16"
    );

    // A two-time network needs more tensors than this file has, and vice versa.
    let (_dir, path) = saved();
    let text = fs::read_to_string(path.join(CONFIG_FILE)).unwrap();
    fs::write(
        path.join(CONFIG_FILE),
        text.replace("\"two_time\": false", "\"two_time\": true"),
    )
    .unwrap();
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor sigma_map_prime.mlp.0.weight of shape [6, 256] is missing"
    );
    let two_time = config().with_two_time(true);
    let bigger: Dit<Flex> = two_time
        .init(&mut ChaCha8Rng::seed_from_u64(1), &Default::default())
        .unwrap();
    save(&path, &bigger, &two_time, &[], Existing::Replace).unwrap();
    fs::write(path.join(CONFIG_FILE), text).unwrap();
    assert_eq!(
        failure(&path),
        "m/model.safetensors: tensor sigma_map_prime.mlp.0.bias of shape [6] does not match any parameter of this network"
    );
}

#[test]
fn a_damaged_file_is_one_sentence() {
    let (_dir, path) = saved();
    let whole = fs::read(path.join(TENSORS_FILE)).unwrap();
    let start = "m/model.safetensors is truncated, corrupt or not a safetensors file: ";
    for length in [0, 5, 8, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(path.join(TENSORS_FILE), &whole[..length]).unwrap();
        let message = failure(&path);
        assert!(
            message.starts_with(start) && !message.contains('\n'),
            "{length}: {message}"
        );
    }
    fs::write(path.join(TENSORS_FILE), "not tensors at all").unwrap();
    assert!(failure(&path).starts_with(start));
    fs::remove_file(path.join(TENSORS_FILE)).unwrap();
    assert!(failure(&path).starts_with("cannot read m/model.safetensors: "));
}

#[test]
fn faults_of_the_configuration_are_named() {
    let (_dir, path) = saved();
    let text = fs::read_to_string(path.join(CONFIG_FILE)).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        fs::write(path.join(CONFIG_FILE), text.replace(from, to)).unwrap();
        failure(&path)
    };
    assert_eq!(
        with("\"format_version\": 1", "\"format_version\": 6"),
        "m/config.json has format version 6, but only version 1 is supported"
    );
    assert!(
        with("\"width\"", "\"widht\"")
            .starts_with("m/config.json is not a model configuration: unknown field `widht`")
    );
    assert_eq!(
        with("\"heads\": 2", "\"heads\": 3"),
        "m/config.json: model width 8 cannot be divided into 3 heads of even width"
    );
    // Rejected by its parameter count, because such a network cannot be allocated for
    // comparing shapes.
    assert_eq!(
        with("\"vocab_size\": 5", "\"vocab_size\": 99999999999"),
        format!(
            "m/config.json describes a network of {} parameters, but model.safetensors holds {}",
            DitConfig {
                vocab_size: 99_999_999_999,
                ..config()
            }
            .parameter_count(),
            config().parameter_count()
        )
    );
    // A network of similar size is compared tensor by tensor.
    assert!(
        with("\"vocab_size\": 5", "\"vocab_size\": 6")
            .contains("tensor vocab_embed.embedding must have shape [6, 8], found [5, 8]")
    );
    assert!(with("{", "").starts_with("m/config.json is not a model configuration: "));
    assert!(failure(Path::new("/nowhere")).starts_with("cannot read m/config.json: "));
}

/// A network for `config` with all parameters random.
fn drawn(config: &DitConfig, seed: u64) -> Dit<Flex> {
    use rand::RngExt;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let model = config.init(&mut rng, &Default::default()).unwrap();
    let mut tensors = named_tensors(&model);
    for tensor in &mut tensors {
        tensor.values.fill_with(|| rng.random_range(-0.5..0.5));
    }
    crate::apply_tensors(model, Path::new("drawn"), tensors).unwrap()
}

#[test]
fn a_learned_loss_weight_is_saved_and_read_and_changes_no_other_parameter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let plain = config().with_two_time(true);
    let weighted = DitConfig {
        loss_weight: true,
        ..plain.clone()
    };
    let model = drawn(&weighted, 3);
    save(&path, &model, &weighted, &[], Existing::Refuse).unwrap();
    let (loaded, found) = load::<Flex>(&path, &Default::default()).unwrap();
    assert_eq!(found, weighted);
    assert_eq!(named_tensors(&loaded), named_tensors(&model));
    let tau = || burn::tensor::Tensor::<Flex, 1>::from_floats([0.1, 0.8], &Default::default());
    let weight = |model: &Dit<Flex>| model.loss_weight(tau()).unwrap().into_data();
    let values = weight(&model).to_vec::<f32>().unwrap();
    assert!(values[0] != values[1], "{values:?}");
    assert_eq!(weight(&loaded), weight(&model));

    // As in `state_dict()` of the released code. The other parameters equal those that the same
    // seed gives without the weight.
    let fresh = |config: &DitConfig| {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        named_tensors(&config.init::<Flex>(&mut rng, &Default::default()).unwrap())
    };
    let (ours, others): (Vec<_>, Vec<_>) = fresh(&weighted)
        .into_iter()
        .partition(|tensor| tensor.name.starts_with("learnable_loss_weighting."));
    assert_eq!(others, fresh(&plain));
    let of = "learnable_loss_weighting";
    let expected = [
        ("s_embed.mlp.0.weight", vec![6, 256]),
        ("s_embed.mlp.0.bias", vec![6]),
        ("s_embed.mlp.2.weight", vec![6, 6]),
        ("s_embed.mlp.2.bias", vec![6]),
        ("mlp.0.weight", vec![128, 6]),
        ("mlp.0.bias", vec![128]),
        ("mlp.2.weight", vec![1, 128]),
        ("mlp.2.bias", vec![1]),
    ]
    .map(|(name, shape)| (format!("{of}.{name}"), shape));
    let found: Vec<_> = ours
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    assert_eq!(found, expected);
    assert!(
        ours[6..]
            .iter()
            .all(|last| last.values.iter().all(|x| *x == 0.0))
    );
    let error = save(&path, &model, &plain, &[], Existing::Replace).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration has loss_weight = false, but the network has true"
    );
}

/// The configurations of a residual flow map's second network and of its denoiser.
fn pair() -> [DitConfig; 2] {
    let second = DitConfig {
        residual: true,
        loss_weight: true,
        ..config().with_two_time(true)
    };
    [second, config()]
}

/// Saves a residual flow map at `path`.
fn save_pair(
    path: &Path,
    [second, denoiser]: &[DitConfig; 2],
    seed: u64,
) -> Result<(), FolderError> {
    save_residual(
        path,
        Content {
            model: &drawn(second, seed),
            config: second,
            extra: &[("tokenizer.json", b"{}")],
        },
        Content {
            model: &drawn(denoiser, seed + 1),
            config: denoiser,
            extra: &[("tokenizer.json", b"{}")],
        },
        Existing::Replace,
    )
}

#[test]
fn a_residual_flow_map_is_two_folders_that_come_and_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    // The second save replaces the first.
    for seed in [1, 5] {
        save_pair(&path, &pair(), seed).unwrap();
        let (loaded, found) = load_residual::<Flex>(&path, &Default::default()).unwrap();
        assert_eq!(found, pair());
        let [second, denoiser] = pair();
        for (loaded, saved) in [
            (&loaded.second, drawn(&second, seed)),
            (&loaded.denoiser, drawn(&denoiser, seed + 1)),
        ] {
            assert_eq!(named_tensors(loaded), named_tensors(&saved));
        }
        // The denoiser is an ordinary model folder.
        let inner = path.join(DENOISER_FOLDER);
        let (alone, _) = load::<Flex>(&inner, &Default::default()).unwrap();
        assert_eq!(named_tensors(&alone), named_tensors(&loaded.denoiser));
        assert_eq!(fs::read(inner.join("tokenizer.json")).unwrap(), b"{}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn two_networks_are_not_taken_for_one_nor_one_for_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    save_pair(&path, &pair(), 1).unwrap();
    assert_eq!(
        load::<Flex>(&path, &Default::default())
            .unwrap_err()
            .to_string(),
        format!(
            "{} holds a residual flow map (two networks), expected a single network",
            path.display()
        )
    );
    let (_dir, one) = saved();
    let error = load_residual::<Flex>(&one, &Default::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is not a residual flow map: its configuration has residual = false",
            one.display()
        )
    );
    // A folder without its denoiser, and one with the denoiser of another map.
    let denoiser = path.join(DENOISER_FOLDER);
    fs::remove_dir_all(&denoiser).unwrap();
    let residual = || {
        load_residual::<Flex>(&path, &Default::default())
            .unwrap_err()
            .to_string()
    };
    assert!(residual().starts_with(&format!(
        "cannot read {}: ",
        denoiser.join(CONFIG_FILE).display()
    )));
    let longer = DitConfig {
        length: 4,
        ..config()
    };
    save(
        &denoiser,
        &drawn(&longer, 1),
        &longer,
        &[],
        Existing::Refuse,
    )
    .unwrap();
    let expected = "the residual flow map has length = 3, but its denoiser has length = 4";
    assert_eq!(residual(), expected);
    let [second, denoiser] = pair();
    let other = dir.path().join("other");
    let refused = |pair| save_pair(&other, &pair, 1).unwrap_err().to_string();
    assert_eq!(refused([second.clone(), longer]), expected);
    let plain = DitConfig {
        residual: false,
        ..second.clone()
    };
    assert_eq!(
        refused([plain, denoiser]),
        "the configuration has residual = false, but the network has true"
    );
    let error = save(&other, &drawn(&second, 1), &second, &[], Existing::Refuse).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration has residual = true, but the network has false"
    );
    assert!(!other.exists());
}
