//! The residual recipe: a flow, a second network for it, and a single network distilled from both.

mod support;

use serde_json::Value;
use std::fs;
use support::{Folder, contents};

/// Returns a folder with data, a flow and a residual flow map of it.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.data("data", 200);
    let mut flow = folder.tiny("train --data data --out flow");
    // A longer training, so that the teacher's predictions are not trivial.
    flow.args(["--set", "train.steps=8"]).assert().success();
    folder.flm(RESIDUAL).assert().success();
    folder
}

const RESIDUAL: &str = "distill --teacher flow --data data --out residual --set flow_map.objective=residual --set flow_map.loss_weight=true";

fn json(folder: &Folder, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.path(name)).unwrap()).unwrap()
}

fn sampled(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_flow_becomes_two_networks_and_then_one_again() {
    let folder = trained();
    let config = json(&folder, "residual/model/config.json");
    for key in ["residual", "two_time", "loss_weight"] {
        assert_eq!(config["model"][key], true, "{key}");
    }
    let card = json(&folder, "residual/model/run.json");
    assert_eq!(card["kind"], "residual flow map");
    // Eight rows forward and backward, and four evaluations for the target of each.
    assert_eq!(card["training"]["evaluations"], 3 * 8 * (3 + 4));
    // The flow is included unchanged.
    for name in ["model.safetensors", "tokenizer.json", "run.json"] {
        let [inside, own] = ["residual/model/denoiser", "flow/model"]
            .map(|place| fs::read(folder.path(place).join(name)).unwrap());
        assert!(inside == own, "{name} differs");
    }
    assert_eq!(
        sampled(
            &folder,
            "sample --model residual/model/denoiser --steps 3 --count 3"
        ),
        sampled(&folder, "sample --model flow --steps 3 --count 3").replace("flow", "residual")
    );

    // Samples of two networks: independent of the batch, and different from those of the flow.
    let sample = |batch: usize| {
        let words = format!("sample --model residual --steps 3 --count 7 --seed 5 --batch {batch}");
        sampled(&folder, &words)
    };
    let whole = sample(7);
    assert_eq!(whole.lines().count(), 7);
    assert!(sample(3) == whole && sample(1) == whole);

    // The second stage, with the settings saved next to its teacher.
    folder
        .flm("distill --teacher residual --data data --out map")
        .assert()
        .success();
    let config = json(&folder, "map/model/config.json");
    assert_eq!(config["model"]["residual"], false);
    assert_eq!(config["model"]["two_time"], true);
    assert!(!folder.path("map/model/denoiser").exists());
    let card = json(&folder, "map/model/run.json");
    assert_eq!(card["kind"], "flow map");
    assert_eq!(card["training"]["evaluations"], 3 * 8 * (3 + 2));
    let text = sampled(
        &folder,
        "sample --model map --steps 2 --gamma 0.5 --count 4",
    );
    assert_eq!(text.lines().count(), 4);
    // The student can be a teacher, but not of a second network.
    let words = "distill --teacher map --data data --out again";
    assert_eq!(
        folder.refused(folder.flm(words)),
        "the residual objective trains a second network for a flow, but map/model is a flow map: choose another distill.flow_map.objective"
    );
    folder
        .flm("distill --teacher map --data data --out again --set flow_map.objective=semigroup --set flow_map.loss_weight=false")
        .assert()
        .success();
    let config = json(&folder, "again/model/config.json");
    assert_eq!(config["model"]["loss_weight"], false);
}

#[test]
fn a_run_that_is_resumed_ends_where_one_that_was_not_does() {
    let folder = trained();
    let two = |out: &str, teacher: &str, rest: &str| {
        let words = format!(
            "distill --teacher {teacher} --data data --out {out} --set flow_map.objective=residual --set flow_map.loss_weight=true {rest}"
        );
        folder.flm(&words).assert().success();
    };
    two("student", "residual", "");
    for (out, teacher) in [("residual", "flow"), ("student", "residual")] {
        let whole = format!("whole-{out}");
        // The student's teacher must not change in between.
        let teacher = if out == "student" { "kept" } else { teacher };
        if out == "residual" {
            two("kept", "flow", "");
        } else {
            two("student", "kept", "--force");
        }
        folder
            .flm(&format!(
                "distill --data data --out {out} --resume --set train.steps=5"
            ))
            .assert()
            .success();
        two(&whole, teacher, "--set train.steps=5");
        for name in ["model.safetensors", "config.json"] {
            let [resumed, whole] = [out, whole.as_str()]
                .map(|run| fs::read(folder.path(run).join("model").join(name)).unwrap());
            assert!(resumed == whole, "{out}: {name} differs");
        }
    }
    // A finished run does not change.
    let before = contents(&folder.path("residual"));
    folder
        .flm("distill --data data --out residual --resume")
        .assert()
        .success();
    assert!(contents(&folder.path("residual")) == before);
}

#[test]
fn what_the_recipe_does_not_have_is_refused() {
    let folder = trained();
    for (words, expected) in [
        (
            "sample --model residual --steps 2 --gamma 0.5",
            "residual is a residual flow map: only a flow map with one network supports a gamma above 0, found 0.5",
        ),
        (
            "sample --model residual --steps 2 --temperature 0.5",
            "residual is a residual flow map: only a model with one network supports a temperature other than 1, found 0.5",
        ),
        (
            "sample --model residual --steps 2 --top-p 0.5",
            "residual is a residual flow map: only a model with one network supports a top-p below 1, found 0.5",
        ),
        (
            "sample --model residual --steps 2 --guidance 2 --weak dropout:0.1",
            "residual is of kind residual flow map: only a flow or a flow map of one network takes --guidance",
        ),
        (
            "sample --model residual --steps 2 --trace trace.json",
            "residual is of kind residual flow map: only a flow or a flow map of one network has a trace",
        ),
        (
            "distill --self --data data --out run --set flow_map.objective=residual",
            "the residual objective trains a second network for a frozen flow: pass the flow with --teacher",
        ),
        (
            "distill --teacher flow --data data --out run --set flow_map.objective=residual --set flow_map.diagonal=0.25",
            "flow map diagonal is a setting of the objectives with a diagonal, found the objective residual",
        ),
        (
            "distill --teacher residual --data data --out run --set flow_map.objective=lagrangian --set flow_map.denoiser=student",
            "residual/model is a residual flow map: its student regresses onto it, so only loss_weight of distill.flow_map applies",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
    // A residual flow map without its flow.
    fs::remove_dir_all(folder.path("residual/model/denoiser")).unwrap();
    for words in [
        "sample --model residual --steps 2",
        "distill --teacher residual --data data --out run",
    ] {
        let message = folder.refused(folder.flm(words));
        assert!(
            message.starts_with("cannot read residual/model/denoiser/config.json: "),
            "{message}"
        );
    }
}

#[test]
fn a_weight_of_the_loss_is_learned_with_and_without_a_teacher() {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    for words in [
        "distill --teacher flow --data data --out taught",
        "distill --self --data data --out alone",
    ] {
        let mut command = if words.contains("flow") {
            folder.flm(words)
        } else {
            folder.tiny(words)
        };
        command
            .args(["--set", "flow_map.loss_weight=true"])
            .assert()
            .success();
    }
    for run in ["taught", "alone"] {
        let config = json(&folder, &format!("{run}/model/config.json"));
        assert_eq!(config["model"]["loss_weight"], true);
        let bytes = fs::read(folder.path(run).join("model/model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let place = &header["learnable_loss_weighting.mlp.2.bias"]["data_offsets"];
        let [from, to] = [0, 1].map(|i| place[i].as_u64().unwrap() as usize);
        let data = &bytes[bytes.len() - data_length(&header)..];
        let bias = f32::from_le_bytes(data[from..to].try_into().unwrap());
        // Losses are several nats: w = 0 is too small for them, and its gradient 1 − ℓ is negative.
        assert!(bias > 0.0, "{run}: {bias}");
        let words = format!("sample --model {run} --steps 2 --count 3");
        assert_eq!(sampled(&folder, &words).lines().count(), 3);
    }
}

/// Returns the number of bytes after the header of a safetensors file.
fn data_length(header: &Value) -> usize {
    let tensors = header.as_object().unwrap().values();
    let ends = tensors.filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    ends.max().unwrap() as usize
}
