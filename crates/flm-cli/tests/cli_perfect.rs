//! Models that know the grammar's law, and how far a trained flow is from them.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

fn printed(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

fn losses(report: &Value) -> Vec<(&str, f64)> {
    let all = report["flow_losses"].as_array().unwrap();
    let loss = |loss: &Value| loss["nats_per_place"].as_f64().unwrap();
    all.iter()
        .map(|found| (found["of"].as_str().unwrap(), loss(found)))
        .collect()
}

#[test]
fn perfect_models_err_by_their_steps_alone() {
    let folder = Folder::new();
    folder.data("data", 500);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();

    let words = "eval perfect --data data --steps 1,2,16 --count 60";
    let report: Value =
        serde_json::from_str(&printed(&folder, &format!("{words} --json"))).unwrap();
    let valid = |family: &str, steps: u64| {
        let samples = report["samples"].as_array().unwrap().iter();
        let mut found = samples.filter(|s| s["family"] == family && s["steps"] == steps);
        found.next().unwrap()["figures"]["valid"].as_f64().unwrap()
    };
    // Factorization leaves next to nothing of one step, and a flow's first step knows nothing.
    assert!(valid("mdlm", 1) < 0.1 && valid("flow", 1) < 0.1);
    assert!(valid("mdlm", 2) < valid("mdlm", 16) && valid("mdlm", 16) < 0.9);
    assert!(valid("flow", 2) > 0.5 && valid("flow", 16) > 0.95);
    assert_eq!(printed(&folder, words), printed(&folder, words));

    // A network of width 16 sees less than there is, and this one has not learnt what it sees.
    let through: Value =
        serde_json::from_str(&printed(&folder, &format!("{words} --json --through flow"))).unwrap();
    let found = losses(&through);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["perfect", "perfect_through", "network"]);
    assert!(
        found[0].1 < found[1].1 && found[1].1 < found[2].1,
        "{found:?}"
    );
    // In full and by the same schedule it is the same number.
    assert_eq!(losses(&report), found[..1]);
    let quarters = through["flow_losses"][0]["quarters"].as_array().unwrap();
    assert!(quarters[0].as_f64() > quarters[3].as_f64());
    let table = printed(&folder, &format!("{words} --through flow"));
    assert!(
        table.contains("and sees through the embedding of flow"),
        "{table}"
    );
}

#[test]
fn what_has_no_law_is_refused() {
    let folder = Folder::new();
    folder.data("data", 200);
    fs::write(folder.path("corpus.txt"), "a b c d e f\n".repeat(200)).unwrap();
    folder
        .flm("data prepare --input corpus.txt --tokenizer words --length 4 --pack --out text")
        .assert()
        .success();
    for run in ["mdlm", "duo"] {
        let mut command = folder.tiny(&format!("train --data data --out {run}"));
        let family = format!("model.family={run}");
        command.args(["--set", &family]).assert().success();
    }
    for (words, expected) in [
        (
            "eval perfect --data text",
            "text is not of a grammar's sentences, a row each, whose law would be known",
        ),
        (
            "eval perfect --data data --steps 2,0",
            "--steps must be at least 1, found 0",
        ),
        (
            "eval perfect --data data --count 0",
            "--count must be at least 1, found 0",
        ),
        (
            "eval perfect --data data --schedule-vocab 1",
            "a schedule needs a vocabulary of at least 2 tokens, found 1",
        ),
        (
            "eval perfect --data data --through mdlm",
            "--through mdlm: expected a flow or a flow map that denoises, found mdlm",
        ),
        (
            "eval perfect --data data --through duo",
            "--through duo: expected a flow or a flow map that denoises, found duo",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
}
