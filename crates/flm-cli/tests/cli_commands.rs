//! Single commands: their output, and reproducibility.

mod support;

use flm_simplex::Schedule;
use serde_json::Value;
use std::fs;
use support::Folder;

#[test]
fn help_for_newcomers() {
    let folder = Folder::new();
    for words in [
        "--help",
        "quickstart --help",
        "data prepare --help",
        "train --help",
        "distill --help",
        "train-reward --help",
        "sample --help",
        "eval --help",
        "eval frontier --help",
        "eval bound --help",
        "eval perfect --help",
        "data fetch --help",
        "convert --help",
        "inspect --help",
        "doctor --help",
    ] {
        let output = folder
            .flm(words)
            .env("COLUMNS", "100")
            .assert()
            .success()
            .get_output()
            .clone();
        let name = format!(
            "help-{}",
            words.trim_end_matches("--help").trim().replace(' ', "-")
        );
        insta::assert_snapshot!(
            name.trim_end_matches('-'),
            String::from_utf8(output.stdout).unwrap()
        );
    }
    let output = folder
        .flm("presets")
        .assert()
        .success()
        .get_output()
        .clone();
    insta::assert_snapshot!("presets", String::from_utf8(output.stdout).unwrap());
}

#[test]
fn a_doctor_tells_what_the_processor_can_do_and_what_a_gpu_lacks() {
    let folder = Folder::new();
    let told = |words: &str| {
        let output = folder.flm(words).assert().success().get_output().clone();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = told("doctor --device cpu --preset lm1b --batch 8");
    for part in [
        "built for cpu",
        "Tflop/s of f32",
        "Tflop/s of bf16",
        "V 30522, L 128",
        "a batch of 8",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // On any machine: three parts that are present or missing, and no panic.
    let text = told("doctor --device cuda:0");
    for part in ["driver", "NVRTC", "headers"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    for (words, expected) in [
        ("--batch 0", "--batch must be at least 1, found 0"),
        (
            "--set train.micro_batch=0",
            "micro_batch must be at least 1",
        ),
    ] {
        let error = folder.refused(folder.flm(&format!("doctor --preset lm1b {words}")));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_shown_preset_is_one_that_can_be_used() {
    let folder = Folder::new();
    let output = folder
        .flm("presets grammar-tiny")
        .assert()
        .success()
        .get_output()
        .clone();
    fs::write(folder.path("mine.toml"), output.stdout).unwrap();
    folder.data("data", 200);
    folder
        .tiny("train --data data --preset mine.toml --out run")
        .assert()
        .success();
    let config: toml::Table =
        toml::from_str(&fs::read_to_string(folder.path("run/config.toml")).unwrap()).unwrap();
    assert_eq!(
        config["train"]["optimizer"]["decay"].as_str(),
        Some("linear")
    );
    assert_eq!(config["train"]["steps"].as_integer(), Some(4));
}

#[test]
fn samples_do_not_depend_on_the_batch() {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("distill --self --data data --out map")
        .assert()
        .success();
    let sample = |batch: usize| {
        let words =
            format!("sample --model map --steps 3 --gamma 0.5 --count 7 --seed 5 --batch {batch}");
        folder
            .flm(&words)
            .assert()
            .success()
            .get_output()
            .stdout
            .clone()
    };
    let whole = sample(7);
    assert_eq!(String::from_utf8(whole.clone()).unwrap().lines().count(), 7);
    assert!(sample(3) == whole && sample(1) == whole);
    let other = folder
        .flm("sample --model map --steps 3 --gamma 0.5 --count 7 --seed 6")
        .assert()
        .success();
    assert_ne!(other.get_output().stdout, whole);
}

#[test]
fn a_trace_tells_every_step_and_ends_with_the_sample() {
    let folder = Folder::new();
    // Every word occurs in training: unseen words would stay equally likely, and any of them could
    // lead.
    fs::write(
        folder.path("words.txt"),
        "a b c d\na d\nb a c\nd c\n".repeat(50),
    )
    .unwrap();
    folder
        .flm("data prepare --input words.txt --tokenizer words --length 6 --out data")
        .assert()
        .success();
    let mut train = folder.tiny("train --data data --out flow");
    train.args(["--set", "train.steps=60"]).assert().success();
    folder
        .flm("sample --model flow --steps 3 --count 2 --trace trace.json --out s.jsonl")
        .assert()
        .success();
    let trace: Value =
        serde_json::from_slice(&fs::read(folder.path("trace.json")).unwrap()).unwrap();
    let samples = fs::read_to_string(folder.path("s.jsonl")).unwrap();
    assert_eq!(trace["samples"].as_array().unwrap().len(), 2);
    for (traced, sample) in trace["samples"]
        .as_array()
        .unwrap()
        .iter()
        .zip(samples.lines())
    {
        let sample: Value = serde_json::from_str(sample).unwrap();
        let steps = traced["trace"].as_array().unwrap();
        assert_eq!(steps.len(), 3);
        for (number, step) in steps.iter().enumerate() {
            assert!((step["tau"].as_f64().unwrap() - number as f64 / 3.0).abs() < 1e-12);
            for position in step["positions"].as_array().unwrap() {
                let p: Vec<f64> = position
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|token| token["probability"].as_f64().unwrap())
                    .collect();
                assert!(
                    p.len() == 3
                        && p[0] >= p[1]
                        && p[1] >= p[2]
                        && p.iter().sum::<f64>() <= 1.0 + 1e-6,
                    "{p:?}"
                );
            }
        }
        let likeliest: Vec<&Value> = steps[2]["positions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|position| &position[0]["id"])
            .collect();
        assert_eq!(
            likeliest,
            sample["tokens"]
                .as_array()
                .unwrap()
                .iter()
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn text_without_a_grammar_is_trained_sampled_and_judged() {
    let folder = Folder::new();
    fs::write(
        folder.path("text.txt"),
        "To be, or not to be,\nthat is the question.\n\n".repeat(40),
    )
    .unwrap();
    folder
        .flm(
            "data prepare --input text.txt --tokenizer chars --length 16 --pack --whole --out data",
        )
        .assert()
        .success();
    let inspected = folder
        .flm("data inspect data --rows 1")
        .assert()
        .success()
        .get_output()
        .clone();
    let inspected = String::from_utf8(inspected.stdout).unwrap();
    assert!(
        inspected.contains("of 16 tokens (packed)")
            && inspected.contains("[BOS]To be, or not [EOS]"),
        "{inspected}"
    );
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    folder
        .flm("sample --model flow --steps 2 --count 4 --out samples.jsonl")
        .assert()
        .success();
    let table = folder
        .flm("eval samples.jsonl --data data")
        .assert()
        .success()
        .get_output()
        .clone();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.starts_with(
            "samples  count  entropy  of tokens  distinct  pairs  self-BLEU  repeated  length\nsamples      4  "
        ),
        "{table}"
    );
}

#[test]
fn manual_pages_and_completions() {
    let folder = Folder::new();
    folder.flm("man man").assert().success();
    for page in ["flm.1", "flm-train.1", "flm-data-prepare.1"] {
        assert!(folder.path("man").join(page).is_file(), "{page}");
    }
    let script = folder
        .flm("completions bash")
        .assert()
        .success()
        .get_output()
        .clone();
    assert!(
        String::from_utf8(script.stdout)
            .unwrap()
            .contains("quickstart")
    );
}

#[test]
fn a_student_has_its_teachers_settings_and_a_finished_run_stays_finished() {
    let folder = Folder::new();
    folder.data("data", 2000);
    folder
        .tiny("train --data data --out flow --set model.register_token=true --set model.schedule_vocab=8")
        .assert()
        .success();
    folder
        .flm("distill --teacher flow/model --data data --out map --set train.steps=2")
        .assert()
        .success();
    let config = |run: &str| -> toml::Table {
        toml::from_str(&fs::read_to_string(folder.path(run).join("config.toml")).unwrap()).unwrap()
    };
    assert_eq!(config("map")["model"], config("flow")["model"]);
    assert!(!config("flow").contains_key("data") && !config("map").contains_key("data"));
    assert_eq!(
        folder.refused(
            folder.flm("distill --teacher flow/model --data data --out other --set model.width=8")
        ),
        "--set model.width=8: the settings of [model] are decided by the teacher"
    );
    assert_eq!(
        config("map")["model"]["register_token"].as_bool(),
        Some(true)
    );
    // Samplers take their times from the model's own schedule.
    folder
        .flm("sample --model map/model --steps 2 --count 1 --trace trace.json --out s.jsonl")
        .assert()
        .success();
    let trace: Value =
        serde_json::from_slice(&fs::read(folder.path("trace.json")).unwrap()).unwrap();
    let half_way = trace["samples"][0]["trace"][1]["t"].as_f64().unwrap();
    assert_eq!(half_way, Schedule::new(8).unwrap().t_of_tau(0.5));
    assert_eq!(
        config("map")["distill"]["train"]["batch"].as_integer(),
        Some(8)
    );
    assert_eq!(
        config("map")["distill"]["train"]["steps"].as_integer(),
        Some(2)
    );

    let before = support::contents(&folder.path("map"));
    folder
        .flm("distill --data data --out map --resume")
        .assert()
        .success();
    assert!(support::contents(&folder.path("map")) == before);
    // The number of steps is the only setting that may change on resume.
    folder
        .flm("distill --data data --out map --resume --set train.steps=4")
        .assert()
        .success();
    let card = fs::read_to_string(folder.path("map/model/run.json")).unwrap();
    let card: Value = serde_json::from_str(&card).unwrap();
    assert_eq!(card["training"]["steps"], 4);
    assert!(card["training"]["validation_loss"].as_f64().unwrap() > 0.0);
    let metrics = fs::read_to_string(folder.path("map/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(
        steps,
        [2, 2, 4, 4],
        "a line of training and one of validation each"
    );
}

#[test]
fn a_run_is_as_long_as_its_evaluations_pay_for() {
    let folder = Folder::new();
    folder.data("data", 200);
    let took = |run: &str| {
        let path = folder.path(run).join("model/run.json");
        let card: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        ["steps", "evaluations"].map(|key| card["training"][key].as_u64().unwrap())
    };
    let train = |evaluations| {
        format!(
            "train --data data --preset grammar-trajectory --out flow --evaluations {evaluations}"
        )
    };
    // Eight rows forward and backward: 24 evaluations.
    folder.tiny(&train(100)).assert().success();
    assert_eq!(took("flow"), [4, 96]);
    folder
        .flm("train --data data --out flow --evaluations 130 --resume")
        .assert()
        .success();
    assert_eq!(took("flow"), [5, 120]);
    // In addition: a teacher evaluation for each of four rows, and a derivative (two evaluations)
    // with a teacher evaluation for each of the other four.
    folder
        .flm("distill --teacher flow --data data --out map --evaluations 100")
        .args(["--set", "flow_map.objective=lagrangian"])
        .assert()
        .success();
    assert_eq!(took("map"), [2, 80]);
    let kept = fs::read_to_string(folder.path("map/config.toml")).unwrap();
    let kept: toml::Table = kept.parse().unwrap();
    assert_eq!(kept["distill"]["train"]["steps"].as_integer(), Some(2));
    let message = folder.refused(folder.tiny(&train(10).replace("flow", "other")));
    assert_eq!(
        message,
        "--evaluations 10 is too small: one step takes 24 network evaluations"
    );
}

#[test]
fn every_objective_distills_with_and_without_a_teacher() {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("train --data data --preset grammar-trajectory --out flow")
        .assert()
        .success();
    for settings in [
        &["objective=eulerian", "denoiser=student"][..],
        &["objective=eulerian", "measure=squared_error"],
        &["objective=ecld"],
        &["objective=consistency"],
        &["objective=semigroup", "target=average", "midpoint=random"],
    ] {
        let taught = folder.flm("distill --teacher flow --data data --force --out map");
        let alone = "distill --self --data data --preset grammar-trajectory --force --out map";
        for mut command in [taught, folder.tiny(alone)] {
            for setting in settings {
                command.args(["--set", &format!("flow_map.{setting}")]);
            }
            command.assert().success();
            let metrics = fs::read_to_string(folder.path("map/metrics.jsonl")).unwrap();
            assert!(metrics.contains("off_diagonal"), "{metrics}");
        }
    }
}
