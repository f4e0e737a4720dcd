//! Exact denoisers of the grammar, and the gap of a trained flow.

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
    // Independent tokens are rarely valid, and the first step of a flow starts from pure noise.
    assert!(valid("mdlm", 1) < 0.1 && valid("flow", 1) < 0.1);
    assert!(valid("mdlm", 2) < valid("mdlm", 16) && valid("mdlm", 16) < 0.9);
    assert!(valid("duo", 1) < 0.1 && valid("duo", 2) < valid("duo", 16));
    assert!(valid("flow", 2) > 0.5 && valid("flow", 16) > 0.95);
    assert_eq!(printed(&folder, words), printed(&folder, words));

    // The projection to width 16 loses information, and this network is hardly trained.
    let through: Value = serde_json::from_str(&printed(
        &folder,
        &format!("{words} --json --embedding-from flow"),
    ))
    .unwrap();
    let found = losses(&through);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["perfect", "perfect_through", "network"]);
    assert!(
        found[0].1 < found[1].1 && found[1].1 < found[2].1,
        "{found:?}"
    );
    // Full states under the same schedule give the same loss.
    assert_eq!(losses(&report), found[..1]);
    // Less noise leaves less uncertainty about a position.
    let quarters = |loss: &Value| -> Vec<f64> {
        let quarters = loss["quarters"].as_array().unwrap();
        quarters.iter().map(|nats| nats.as_f64().unwrap()).collect()
    };
    let bounds = report["bounds"].as_array().unwrap();
    assert_eq!(bounds.len(), 2);
    for (bound, family) in bounds.iter().zip(["mdlm", "duo"]) {
        assert_eq!(bound["family"], family);
        assert!(quarters(bound)[0] < quarters(bound)[3], "{bound}");
    }
    let loss = quarters(&through["flow_losses"][0]);
    assert!(loss[0] > loss[3], "{loss:?}");
    // Discrete diffusions have no projected states.
    assert_eq!(through["bounds"].as_array().unwrap().len(), 0);
    let families = through["samples"].as_array().unwrap().iter();
    let families: Vec<&Value> = families.map(|s| &s["family"]).collect();
    assert_eq!(families, ["flow"; 3]);
    let table = printed(&folder, &format!("{words} --embedding-from flow"));
    assert!(
        table.contains("exact denoiser, through the embedding of flow"),
        "{table}"
    );
}

#[test]
fn what_has_no_distribution_is_refused() {
    let folder = Folder::new();
    folder.data("data", 200);
    fs::write(folder.path("corpus.txt"), "a b c d e f\n".repeat(200)).unwrap();
    folder
        .flm("data prepare --input corpus.txt --tokenizer words --length 4 --pack --out text")
        .assert()
        .success();
    for (input, out) in [
        ("grammar --pack", "packed"),
        ("grammar --tokenizer chars", "chars"),
    ] {
        let words = format!("data prepare --input {input} --count 200 --length 120 --out {out}");
        folder.flm(&words).assert().success();
    }
    for family in ["mdlm", "flow"] {
        let mut command = folder.tiny(&format!("train --data data --out {family}"));
        let family = format!("model.family={family}");
        command.args(["--set", &family]).assert().success();
    }
    folder
        .flm("distill --teacher flow --data data --out residual")
        .args(["--set", "distill.flow_map.objective=residual"])
        .assert()
        .success();
    // A data folder with sentences of a different grammar.
    fs::create_dir(folder.path("foreign")).unwrap();
    for file in fs::read_dir(folder.path("data")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        fs::copy(&path, folder.path("foreign").join(name)).unwrap();
    }
    let other = "start S\nS -> the girl is happy today .\n";
    fs::write(folder.path("foreign/corpus.grammar"), other).unwrap();
    for (words, expected) in [
        (
            "eval perfect --data text",
            "text: expected sentences of a grammar, one per row (`flm data prepare --input grammar`), found another text",
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
            "eval perfect --data data --embedding-from mdlm",
            "--embedding-from mdlm: expected a flow or a flow map of one network, found mdlm",
        ),
        (
            "eval perfect --data data --embedding-from residual",
            "--embedding-from residual: expected a flow or a flow map of one network, found residual flow map",
        ),
        (
            "eval perfect --data packed",
            "packed: expected sentences of a grammar, one per row (`flm data prepare --input grammar`), found sentences packed into blocks",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
    for (data, beginning, end) in [
        (
            "foreign",
            "row ",
            " of validation of foreign is not a sentence of its grammar",
        ),
        (
            "chars",
            "`",
            "` of the grammar is not a token: exact distributions need one token per word",
        ),
    ] {
        let message = folder.refused(folder.flm(&format!("eval perfect --data {data}")));
        assert!(
            message.starts_with(beginning) && message.ends_with(end),
            "{message}"
        );
    }
}
