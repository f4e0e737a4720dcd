//! The quickstart from end to end, in seconds.

mod support;

use serde_json::Value;
use std::fs;
use support::{Folder, contents};

const SETTINGS: [&str; 5] = [
    "data.sentences=300",
    "sample.count=20",
    "sample.flm_steps=[1,2]",
    "sample.fmlm_steps=[1,4]",
    "train.validate_every=2",
];

fn quickstart(folder: &Folder, words: &str) -> assert_cmd::Command {
    let mut command = folder.tiny(&format!("quickstart {words}"));
    for setting in SETTINGS {
        command.args(["--set", setting]);
    }
    command
}

fn report(folder: &Folder, out: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(out).join("report.json")).unwrap()).unwrap()
}

/// Returns the report without measured durations.
fn timeless(mut report: Value) -> Value {
    report.as_object_mut().unwrap().remove("seconds").unwrap();
    report
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort();
    keys
}

#[test]
fn it_makes_what_it_promises() {
    let folder = Folder::new();
    let output = quickstart(&folder, "--seed 3")
        .assert()
        .success()
        .get_output()
        .clone();
    let report = report(&folder, "quickstart");
    assert_eq!(
        keys(&report),
        ["config", "corpus", "minutes", "rows", "seconds", "seed"]
    );
    assert_eq!(
        keys(&report["corpus"]),
        [
            "distinct",
            "entropy",
            "frame_divergence",
            "oracle_nats_per_token"
        ]
    );
    assert_eq!(
        keys(&report["seconds"]),
        ["distill", "prepare", "sample", "train"]
    );
    assert_eq!(report["seed"], 3);
    for seed in [
        "/config/data/seed",
        "/config/train/seed",
        "/config/distill/train/seed",
        "/config/sample/seed",
    ] {
        assert_eq!(report.pointer(seed), Some(&Value::from(3)), "{seed}");
    }
    let rows = report["rows"].as_array().unwrap();
    let models: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["model"].as_str().unwrap(),
                row["steps"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(models, [("flm", 1), ("flm", 2), ("fmlm", 1), ("fmlm", 4)]);
    for row in rows {
        assert_eq!(
            keys(row),
            [
                "distinct",
                "entropy",
                "frame_divergence",
                "frame_recall",
                "model",
                "oracle_nats_per_token",
                "samples",
                "steps",
                "valid"
            ]
        );
        assert_eq!(row["samples"], 20);
        for share in ["valid", "distinct"] {
            assert!((0.0..=1.0).contains(&row[share].as_f64().unwrap()), "{row}");
        }
    }
    for path in [
        "config.toml",
        "report.html",
        "data/corpus.grammar",
        "flm/config.toml",
        "flm/metrics.jsonl",
        "flm/losses.svg",
        "flm/checkpoints/step-00000004/state.json",
        "flm/model/config.json",
        "flm/model/model.safetensors",
        "flm/model/tokenizer.json",
        "flm/model/README.md",
        "fmlm/model/README.md",
        "samples/flm-2.jsonl",
        "samples/fmlm-4.jsonl",
    ] {
        assert!(folder.path("quickstart").join(path).is_file(), "{path}");
    }
    let samples = fs::read_to_string(folder.path("quickstart/samples/fmlm-1.jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 20);
    let first: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!(
        keys(&first),
        [
            "dtype",
            "gamma",
            "model",
            "noise_scale",
            "seed",
            "steps",
            "temperature",
            "text",
            "tokens",
            "weights"
        ]
    );
    assert_eq!(first["tokens"].as_array().unwrap().len(), 22);

    // The printed sentences are the saved ones.
    let stdout = String::from_utf8(output.stdout).unwrap();
    let page = fs::read_to_string(folder.path("quickstart/report.html")).unwrap();
    let sentences: Vec<&str> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  “")?.strip_suffix('”'))
        .collect();
    assert_eq!(sentences.len(), 10);
    let kept: Vec<Value> = samples
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (shown, kept) in sentences.iter().zip(&kept) {
        assert_eq!(*shown, kept["text"].as_str().unwrap());
    }
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(
        page.matches("<li>").count() - 4,
        10,
        "ten sentences, four stages"
    );
    let card = fs::read_to_string(folder.path("quickstart/flm/model/README.md")).unwrap();
    assert!(
        card.contains("| command | `flm quickstart --seed 3 "),
        "{card}"
    );

    // The single commands give the same metrics.
    let json = folder
        .flm("eval quickstart/samples/fmlm-1.jsonl --data quickstart/data --json")
        .assert()
        .success();
    let judged: Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(
        judged[0]["figures"]["oracle_nats_per_token"],
        rows[2]["oracle_nats_per_token"]
    );
    assert_eq!(judged[0]["figures"]["entropy"], rows[2]["entropy"]);
}

#[test]
fn steps_may_be_chosen_for_a_time() {
    let folder = Folder::new();
    quickstart(&folder, "--minutes 0.05 --out a")
        .assert()
        .success();
    let found = report(&folder, "a");
    assert_eq!(found["minutes"], 0.05);
    // A resumed quickstart keeps its numbers of steps.
    fs::remove_dir_all(folder.path("a/fmlm")).unwrap();
    quickstart(&folder, "--minutes 0.05 --out a --resume")
        .assert()
        .success();
    assert_eq!(report(&folder, "a")["config"], found["config"]);
    let message = folder.refused(quickstart(&folder, "--minutes 0 --out b"));
    assert_eq!(message, "--minutes must be positive and finite, found 0");
}

#[test]
fn one_seed_gives_one_report_and_another_another() {
    let folder = Folder::new();
    let run = |words: &str, out: &str| {
        quickstart(&folder, &format!("{words} --out {out}"))
            .assert()
            .success();
        timeless(report(&folder, out))
    };
    let first = run("--seed 1", "a");
    assert_eq!(run("--seed 1", "b"), first);
    assert_ne!(run("--seed 2", "c")["corpus"], first["corpus"]);
    // A forced rerun removes everything of the earlier one.
    assert_eq!(run("--seed 1 --force", "c"), first);
    let data = |out: &str| contents(&folder.path(out).join("data"));
    assert_eq!(data("c"), data("a"));
}

#[test]
fn settings_without_a_corpus_are_refused_before_anything_is_made_or_replaced() {
    let folder = Folder::new();
    quickstart(&folder, "--out there").assert().success();
    for (setting, expected) in [
        (
            "data.tokenizer=bpe:x",
            "must be `bpe:` and a number of tokens",
        ),
        ("data.tokenizer=nofile.json", "there is no file nofile.json"),
        ("data.tokenizer=chars", "the corpus is too small"),
        ("data.sentences=0", "the corpus is empty"),
        ("data.length=4", "the corpus is too small"),
        ("data.validation_share=2", "found 2"),
        ("sample.count=0", "sample.count must be at least 1"),
    ] {
        for words in ["--out a/new/one", "--out there --force"] {
            let mut command = quickstart(&folder, words);
            command.args(["--set", setting]);
            let message = folder.refused(command);
            assert!(message.contains(expected), "{setting}: {message}");
        }
    }
}

#[test]
fn whatever_was_not_made_yet_is_made_on_resuming() {
    let folder = Folder::new();
    quickstart(&folder, "--out a").assert().success();
    let whole = timeless(report(&folder, "a"));
    let gone = |names: &[&str]| {
        for name in names {
            let path = folder.path("a").join(name);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    };
    for names in [
        // A forced start that was killed before its data was in place.
        &[
            "data",
            "flm",
            "fmlm",
            "samples",
            "times.json",
            "report.json",
        ][..],
        // A training run that was killed before its first file.
        &[
            "flm/config.toml",
            "flm/model",
            "fmlm",
            "samples",
            "report.json",
        ],
        &["fmlm/model", "samples/flm-2.jsonl", "report.json"],
    ] {
        gone(names);
        quickstart(&folder, "--out a --resume").assert().success();
        assert_eq!(timeless(report(&folder, "a")), whole, "without {names:?}");
    }
    // Models of different data are not reused.
    quickstart(&folder, "--out b --seed 1").assert().success();
    gone(&["data", "report.json"]);
    fs::rename(folder.path("b/data"), folder.path("a/data")).unwrap();
    let message = folder.refused(quickstart(&folder, "--out a --resume"));
    assert!(
        message.starts_with("checkpoint a/flm/checkpoints/step-00000004: its data has the hash "),
        "{message}"
    );
    // A run cannot replace a quickstart.
    assert_eq!(
        folder.refused(folder.tiny("train --data a/data --out b --force")),
        "b is not the folder of a run (it holds a quickstart) and is not replaced"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_quickstart_goes_on_as_if_nothing_had_happened() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let folder = Folder::new();
    let settings = || {
        SETTINGS
            .into_iter()
            .chain(support::TINY)
            .chain(["train.steps=800", "distill.train.steps=40"])
    };
    let arguments = |out: &str| {
        let mut arguments = vec!["quickstart".to_owned(), "--out".to_owned(), out.to_owned()];
        arguments.extend(settings().flat_map(|setting| ["--set".to_owned(), setting.to_owned()]));
        arguments
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_flm"))
        .current_dir(folder.0.path())
        .args(arguments("a"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = folder.path("a/flm/metrics.jsonl");
    while !fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be interrupted"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // Like `timeout`, which signals its child and its group: the process may end before the second
    // signal.
    let interrupted = [(); 2].map(|()| {
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .output()
            .unwrap()
            .status
            .success()
    });
    assert!(interrupted[0]);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains(" of 800; nothing is lost; continue with: flm quickstart --out a --set "),
        "{stderr}"
    );
    assert!(stderr.trim_end().ends_with(" --resume"), "{stderr}");
    assert!(!folder.path("a/flm/model").exists());

    let run = |words: Vec<String>| {
        assert_cmd::Command::new(env!("CARGO_BIN_EXE_flm"))
            .current_dir(folder.0.path())
            .args(words)
            .assert()
            .success();
    };
    run(arguments("b"));
    let mut resumed = arguments("a");
    resumed.push("--resume".to_owned());
    run(resumed);
    assert_eq!(
        timeless(report(&folder, "a")),
        timeless(report(&folder, "b"))
    );
    let weights =
        |out: &str| fs::read(folder.path(out).join("fmlm/model/model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "the flow maps differ");
}
