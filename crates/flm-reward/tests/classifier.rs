//! Tests of the training of classifiers and of their folders.

use burn::backend::Autodiff;
use burn_flex::Flex;
use flm_reward::{
    Classifier, ClassifierConfig, ClassifierFile, ClassifierTraining, Existing, recognized,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

type Train = Autodiff<Flex>;

/// Rows of 8 tokens that count upwards from a random start, cyclically from 2 to 11, then an end
/// and padding.
fn rows(count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Vec<u32>>, Infallible> {
    let row = |_| {
        let first = rng.random_range(0..10);
        (0..10)
            .map(|i| match i {
                0..8 => 2 + (first + i) % 10,
                8 => 1,
                _ => 0,
            })
            .collect()
    };
    Ok((0..count).map(row).collect())
}

fn config() -> ClassifierConfig {
    ClassifierConfig {
        width: 16,
        layers: 2,
        ..ClassifierConfig::new(12)
    }
}

fn trained(steps: u64) -> Classifier<Flex> {
    trained_at(steps, 1e-2)
}

fn trained_at(steps: u64, lr: f64) -> Classifier<Flex> {
    let training = ClassifierTraining {
        steps,
        batch: 32,
        lr,
        seed: 1,
        pad: 0,
    };
    let device = Default::default();
    flm_reward::train::<Train, _>(&config(), training, &device, rows, |_, _| Ok(())).unwrap()
}

#[test]
fn it_tells_rows_from_corrupted_ones() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let real = rows(500, &mut rng).unwrap();
    let [of_real, of_corrupted] =
        recognized(&trained(300), &real, 0, &mut rng, &Default::default());
    // The tokens of a text differ, so every swap is an error.
    assert!(
        of_real > 0.9 && of_corrupted > 0.9,
        "{of_real}, {of_corrupted}"
    );
    let [of_real, of_corrupted] = recognized(&trained(0), &real, 0, &mut rng, &Default::default());
    assert!(of_real + of_corrupted < 1.4, "{of_real}, {of_corrupted}");
}

#[test]
fn its_folder_gives_it_back_and_is_read_strictly() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("reward");
    let classifier = trained(2);
    let file = ClassifierFile::new(config(), "abc");
    flm_reward::save(&dir, &classifier, &file, Existing::Refuse).unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    let (found, read) = flm_reward::load::<Flex>(&dir, &Default::default()).unwrap();
    assert_eq!(read, file);
    let means = flm_simplex::noise::gaussian(
        [3, 10, 16],
        &mut ChaCha8Rng::seed_from_u64(3),
        &Default::default(),
    );
    let odds = found.log_odds(means.clone()).into_data();
    odds.assert_eq(&classifier.log_odds(means).into_data(), true);

    let message = |dir: &Path| {
        let error = flm_reward::load::<Flex>(dir, &Default::default()).unwrap_err();
        error.to_string().replace(&dir.display().to_string(), "DIR")
    };
    let config_path = dir.join("config.json");
    let text = fs::read_to_string(&config_path).unwrap();
    for (from, to, expected) in [
        (
            "\"kind\": \"reward classifier\"",
            "\"kind\": \"flow\"",
            "DIR/config.json is not the configuration of a reward classifier: its kind is \"flow\"",
        ),
        (
            "\"format_version\": 1",
            "\"format_version\": 2",
            "DIR/config.json is not the configuration of a reward classifier: it has format version 2, but only version 1 is supported",
        ),
        (
            "\"layers\": 2",
            "\"layers\": 3",
            "DIR/model.safetensors: the tensor layers.2.weight is missing",
        ),
        (
            "\"layers\": 2",
            "\"layers\": 1",
            "DIR/model.safetensors: the tensor layers.1.bias is not a parameter of the classifier",
        ),
        (
            "\"vocab_size\": 12",
            "\"vocab_size\": 13",
            "DIR/model.safetensors: the tensor embedding is F32 [12, 16], expected F32 [13, 16]",
        ),
        (
            "\"width\": 16",
            "\"width\": 99999999999",
            "DIR/config.json is not the configuration of a reward classifier: invalid classifier sizes: 12 tokens, width 99999999999, 2 layers and reach 2",
        ),
    ] {
        fs::write(&config_path, text.replace(from, to)).unwrap();
        assert_eq!(message(&dir), expected);
    }
    fs::write(&config_path, &text).unwrap();
    fs::write(dir.join("model.safetensors"), b"cut off").unwrap();
    let cut = message(&dir);
    assert!(
        cut.starts_with("DIR/model.safetensors: truncated, or not a safetensors file"),
        "{cut}"
    );
}

#[test]
fn nothing_is_saved_that_could_not_be_read() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("reward");
    let refused = |classifier: &Classifier<Flex>, file: &ClassifierFile| {
        let error = flm_reward::save(&dir, classifier, file, Existing::Refuse).unwrap_err();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        error.to_string().replace(&dir.display().to_string(), "DIR")
    };
    let wider = ClassifierConfig {
        width: 17,
        ..config()
    };
    assert_eq!(
        refused(&trained(0), &ClassifierFile::new(wider, "abc")),
        "DIR/model.safetensors: the sizes differ from the configuration"
    );
    let vast = ClassifierConfig {
        reach: usize::MAX,
        ..config()
    };
    assert_eq!(
        refused(&trained(0), &ClassifierFile::new(vast, "abc")),
        format!(
            "DIR/config.json is not the configuration of a reward classifier: invalid classifier sizes: 12 tokens, width 16, 2 layers and reach {}",
            usize::MAX
        )
    );
    let diverged = trained_at(2, f64::MAX);
    assert_eq!(
        refused(&diverged, &ClassifierFile::new(config(), "abc")),
        "DIR/model.safetensors: the tensor embedding has a value that is not finite"
    );
}

#[test]
fn only_a_reward_and_nothing_beside_it_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("reward");
    let save = |existing| {
        let file = ClassifierFile::new(config(), "abc");
        let saved = flm_reward::save(&dir, &trained(1), &file, existing);
        saved.map_err(|error| error.to_string().replace(&dir.display().to_string(), "DIR"))
    };
    // An empty folder may be replaced.
    fs::create_dir(&dir).unwrap();
    save(Existing::Replace).unwrap();
    save(Existing::Replace).unwrap();
    assert_eq!(save(Existing::Refuse).unwrap_err(), "DIR exists already");
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    assert_eq!(
        save(Existing::Replace).unwrap_err(),
        "DIR holds notes.txt, which is not part of a reward classifier, so it is not replaced"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}
