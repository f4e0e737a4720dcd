//! Invalid input gives a one-line error and exit code 2, and leaves no partial output.

mod support;

use std::fs;
use support::Folder;

/// Returns a folder with data, a flow trained on it, and other data.
fn prepared() -> Folder {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    fs::write(folder.path("words.txt"), "a b c d\n".repeat(200)).unwrap();
    folder
        .flm("data prepare --input words.txt --tokenizer words --length 24 --out other")
        .assert()
        .success();
    folder
}

#[test]
fn damaged_data() {
    let folder = Folder::new();
    folder.data("data", 200);
    let train = || folder.tiny("train --data data --out run");
    let shard = folder.path("data/train-00000.bin");
    let whole = fs::read(&shard).unwrap();

    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&shard, &flipped).unwrap();
    let message = folder.refused(train());
    assert!(
        message.starts_with("shard data/train-00000.bin is damaged: checksum "),
        "{message}"
    );

    fs::write(&shard, &whole[..whole.len() - 5]).unwrap();
    let (expected, found) = (whole.len(), whole.len() - 5);
    assert_eq!(
        folder.refused(train()),
        format!("shard data/train-00000.bin has {found} bytes, expected {expected}")
    );

    fs::remove_file(&shard).unwrap();
    assert_eq!(
        folder.refused(train()),
        "shard data/train-00000.bin is missing, expected from dataset.json"
    );

    let message = folder.refused(folder.tiny("train --data nowhere --out run"));
    assert_eq!(message, "there is no data folder nowhere");
}

#[test]
fn corpora_that_give_no_row() {
    let folder = Folder::new();
    fs::write(folder.path("empty.txt"), " \n\n").unwrap();
    fs::write(folder.path("short.txt"), "too short\n").unwrap();
    let prepare = |input: &str, more: &str| {
        folder.refused(folder.flm(&format!(
            "data prepare --input {input} --tokenizer chars --out data {more}"
        )))
    };
    assert_eq!(
        prepare("empty.txt", "--length 8"),
        "the corpus is empty: empty.txt (a document a line)"
    );
    let message = prepare("short.txt", "--length 64 --pack");
    assert!(
        message.starts_with(
            "the corpus is too small for one training row of 64 tokens (packed): short.txt"
        ),
        "{message}"
    );
    assert_eq!(
        prepare("short.txt", "--length 0"),
        "length 0 is too small: the layout `rows` needs at least 2 tokens a row"
    );
    let message = prepare("missing.txt", "--length 8");
    assert!(
        message.starts_with("cannot read missing.txt: "),
        "{message}"
    );
    assert_eq!(
        folder.refused(folder.flm("data prepare --input grammar --count 0 --out data")),
        "the corpus is empty: small-English grammar, 0 sentences, seed 0"
    );
    assert_eq!(
        prepare("short.txt", "--length 8 --validation-share 1.5"),
        "the validation share must be at least 0 and below 1, with at most six decimals, found 1.5"
    );
}

#[test]
fn impossible_settings() {
    let folder = Folder::new();
    folder.data("data", 200);
    let train = |setting: &str| {
        folder.refused(folder.tiny(&format!("train --data data --out run --set {setting}")))
    };
    // Later settings win, so the tested one comes last on the command line.
    let last = |setting: &str| {
        let mut command = folder.tiny("train --data data --out run");
        command.args(["--set", setting]);
        folder.refused(command)
    };
    assert_eq!(
        last("model.heads=3"),
        "model width 16 cannot be divided into 3 heads of even width"
    );
    assert_eq!(
        last("train.steps=0"),
        "training steps must be at least 1, found 0"
    );
    assert_eq!(
        last("data.length=8"),
        "--set data.length=8: the settings of [data] are decided when data is prepared (`flm data prepare --set`)"
    );
    assert_eq!(
        last("train.micro_batch=3"),
        "training batch 8 is not a multiple of micro_batch 3"
    );
    assert_eq!(
        train("optimizer.lrr=1"),
        "--set: there is no setting `optimizer.lrr`; the nearest known one is `train.optimizer.lr`"
    );
    assert_eq!(
        train("optimizer.lr=fast"),
        "--set: train.optimizer.lr must be a number, found the text \"fast\""
    );
    let message = folder.refused(folder.tiny("train --data data --out run --preset grammar-tny"));
    assert_eq!(
        message,
        "there is no preset and no file `grammar-tny`; the nearest preset is `grammar-tiny`, and `flm presets` lists them all"
    );
    let message = folder.refused(folder.tiny("quickstart --out run --set sample.count=0"));
    assert_eq!(message, "sample.count must be at least 1, found 0");
    let message = folder
        .refused(folder.tiny("distill --self --data data --out run --set flow_map.diagonal=2"));
    assert_eq!(
        message,
        "flow map diagonal must be a share between 0 and 1, found 2"
    );
}

#[test]
fn what_is_there_is_kept() {
    let folder = prepared();
    fs::write(folder.path("note.txt"), "mine").unwrap();
    fs::create_dir(folder.path("mine")).unwrap();
    fs::write(folder.path("mine/note.txt"), "mine").unwrap();
    for words in [
        "train --data data --out flow",
        "distill --self --data data --out flow",
        "quickstart --out flow",
    ] {
        let message = folder.refused(folder.tiny(words));
        assert_eq!(
            message,
            "flow exists already: choose another folder, add --resume to continue it, or --force to replace it"
        );
    }
    assert_eq!(
        folder.refused(folder.flm("data prepare --input grammar --out data")),
        "data exists already: choose another folder, or add --force to replace it"
    );
    assert_eq!(
        folder.refused(folder.flm("sample --model flow --steps 1 --out note.txt")),
        "note.txt exists already: choose another name, or add --force"
    );
    // `--force` replaces only folders that the program made.
    for words in [
        "train --data data --out mine --force",
        "quickstart --out mine --force",
    ] {
        let message = folder.refused(folder.tiny(words));
        assert!(
            message.starts_with("mine is not the folder of a ")
                && message.ends_with(" (it holds no config.toml) and is not replaced"),
            "{message}"
        );
    }
    // Other programs, and people, also write a `config.toml`.
    fs::create_dir(folder.path("mine/data")).unwrap();
    for (text, reason) in [
        (
            "baseURL = 3",
            "(mine/config.toml: there is no setting `baseURL`",
        ),
        (
            "[train]\nsteps = 3",
            "(mine/config.toml has no section curriculum)",
        ),
        ("", "(mine/config.toml has no section curriculum)"),
    ] {
        fs::write(folder.path("mine/config.toml"), text).unwrap();
        for words in [
            "train --data data --out mine --force",
            "quickstart --out mine --force",
        ] {
            let message = folder.refused(folder.tiny(words));
            assert!(message.contains(reason), "{message}");
        }
    }
    assert_eq!(
        folder.refused(folder.tiny("quickstart --out flow --force")),
        "flow is not the folder of a quickstart (it holds no times.json) and is not replaced"
    );
    folder
        .tiny("train --data data --out flow --force")
        .assert()
        .success();
}

#[test]
fn models_that_do_not_fit() {
    let folder = prepared();
    let distill = |words: &str| folder.refused(folder.flm(&format!("distill {words} --out map")));
    let message = distill("--teacher flow --data other");
    assert!(
        message.starts_with("the tokenizer of the model flow/model ("),
        "{message}"
    );
    assert!(
        message.contains(") differs from the tokenizer of the data other (7 tokens, hash "),
        "{message}"
    );
    folder
        .flm("data prepare --input grammar --count 200 --length 30 --out longer")
        .assert()
        .success();
    assert_eq!(
        distill("--teacher flow --data longer"),
        "the model flow/model has 24 tokens in a sequence, but the data longer has 30"
    );
    assert_eq!(
        distill("--teacher data --data data"),
        "data is neither a model folder (no config.json) nor a finished run (no model/config.json)"
    );
    assert_eq!(
        distill("--teacher nowhere --data data"),
        "there is no model folder nowhere"
    );

    let tensors = folder.path("flow/model/model.safetensors");
    let whole = fs::read(&tensors).unwrap();
    fs::write(&tensors, &whole[..whole.len() / 2]).unwrap();
    let truncated =
        "flow/model/model.safetensors is truncated, corrupt or not a safetensors file: ";
    for message in [
        distill("--teacher flow --data data"),
        folder.refused(folder.flm("sample --model flow --steps 1")),
    ] {
        assert!(message.starts_with(truncated), "{message}");
    }
    fs::write(&tensors, &whole).unwrap();

    fs::copy(
        folder.path("other/tokenizer.json"),
        folder.path("flow/model/tokenizer.json"),
    )
    .unwrap();
    let sample = || folder.refused(folder.flm("sample --model flow --steps 1"));
    let message = sample();
    assert!(
        message.starts_with("flow/model/tokenizer.json has the hash ")
            && message.contains(", but the model was trained with the tokenizer "),
        "{message}"
    );
    // Without a card only the vocabulary sizes can be compared.
    fs::remove_file(folder.path("flow/model/run.json")).unwrap();
    let message = sample();
    assert!(
        message.starts_with("the tokenizer in flow/model has 7 tokens, but its model has "),
        "{message}"
    );
    fs::remove_file(folder.path("flow/model/tokenizer.json")).unwrap();
    for message in [sample(), distill("--teacher flow --data data")] {
        assert!(
            message.starts_with("the model folder flow/model has no tokenizer.json"),
            "{message}"
        );
    }
}

#[test]
fn impossible_samples() {
    let folder = prepared();
    let sample = |words: &str| folder.refused(folder.flm(&format!("sample --model flow {words}")));
    assert_eq!(
        sample("--steps 0"),
        "the number of steps must be at least 1, found 0"
    );
    assert_eq!(
        sample("--steps 1 --count 0"),
        "the number of samples must be at least 1, found 0"
    );
    assert_eq!(
        sample("--steps 1 --gamma 0.5"),
        "flow is a flow: only a flow map with one network supports a gamma above 0, found 0.5"
    );
    assert_eq!(
        sample("--steps 1 --out a.jsonl --trace ./a.jsonl"),
        "--out and --trace name the same file: they need different files"
    );
    assert_eq!(
        sample("--steps 1 --gamma 2"),
        "gamma must lie between 0 and 1, found 2"
    );
    assert_eq!(
        sample("--steps 1 --temperature 0"),
        "a temperature must be positive and finite, found 0"
    );
    fs::write(
        folder.path("bad.jsonl"),
        "{\"text\": \"a\"}\n{\"txt\": 1}\n",
    )
    .unwrap();
    let message = folder.refused(folder.flm("eval bad.jsonl --data data"));
    assert!(
        message.starts_with("line 2 of bad.jsonl is not a sample: missing field `text`"),
        "{message}"
    );
    assert_eq!(
        folder.refused(folder.flm("eval bad.jsonl --data flow")),
        "flow is not a data folder: it holds no dataset.json"
    );
}

#[test]
fn runs_that_cannot_be_resumed() {
    let folder = prepared();
    assert_eq!(
        folder.refused(folder.tiny("train --data data --out nowhere --resume")),
        "there is no run to resume in nowhere"
    );
    let mut command = folder.tiny("train --data data --out flow --resume");
    command.args(["--set", "train.batch=16"]);
    assert_eq!(
        folder.refused(command),
        "flow cannot be resumed with other settings: train.batch was 8, now 16"
    );
    // More steps are allowed, but the data and all other settings are checked first.
    let mut command = folder.tiny("train --data other --out flow --resume");
    command.args(["--set", "train.steps=9"]);
    let message = folder.refused(command);
    assert!(
        message.starts_with("checkpoint flow/checkpoints/step-00000004: its data has the hash "),
        "{message}"
    );

    // An unrelated folder next to the checkpoints is ignored, whatever its name.
    let backup = folder.path("flow/checkpoints/step-00000004-backup");
    fs::create_dir(&backup).unwrap();
    let mut command = folder.tiny("train --data data --out flow --resume");
    command.args(["--set", "train.steps=5"]).assert().success();
    let metrics = fs::read_to_string(folder.path("flow/metrics.jsonl")).unwrap();
    assert!(
        metrics.contains("\"step\":4,") && metrics.contains("\"step\":5,"),
        "{metrics}"
    );
    assert!(backup.is_dir() && folder.path("flow/checkpoints/step-00000004").is_dir());

    // A checkpoint of a different shape, in place of the run's own.
    let mut wider = folder.tiny("train --data data --out wider");
    wider.args(["--set", "model.width=32"]).assert().success();
    for entry in fs::read_dir(folder.path("wider/checkpoints/step-00000004")).unwrap() {
        let path = entry.unwrap().path();
        let place = folder
            .path("flow/checkpoints/step-00000005")
            .join(path.file_name().unwrap());
        fs::copy(path, place).unwrap();
    }
    let mut command = folder.tiny("train --data data --out flow --resume");
    command.args(["--set", "train.steps=6"]);
    let message = folder.refused(command);
    assert!(
        message.starts_with("checkpoint flow/checkpoints/step-00000005: its tensor ")
            && message.contains(" has shape ["),
        "{message}"
    );
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let folder = Folder::new();
    folder.data("data", 200);
    let mut command = folder.tiny("train --data data --out run");
    command.args([
        "--set",
        "train.optimizer.lr=1e300",
        "--set",
        "train.steps=50",
    ]);
    let output = command.assert().code(1).get_output().clone();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("error: the loss became NaN at step 2 (losses: diagonal NaN): start again with lower learning rates or a longer warm-up, because resuming repeats this; "),
        "{stderr}"
    );
    assert!(
        stderr.trim_end().ends_with("there is no checkpoint yet"),
        "{stderr}"
    );
    assert!(!folder.path("run/model").exists());
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_device_that_was_not_built_in() {
    let folder = Folder::new();
    folder.data("data", 200);
    for words in ["train --data data --out run", "quickstart"] {
        assert_eq!(
            folder.refused(folder.tiny(&format!("{words} --device wgpu"))),
            "flm was built without the device `wgpu`: build it with `--features wgpu`, or use --device cpu"
        );
    }
}
