//! Guided sampling: a weaker network, a reward, nucleus sampling.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

/// Returns a folder with data, a flow, a narrower flow at an early stage, and a reward.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("train --data data --out flow")
        .args(["--set", "train.steps=30", "--set", "model.dropout=0"])
        .assert()
        .success();
    folder
        .tiny("train --data data --out early")
        .args(["--set", "model.width=8"])
        .assert()
        .success();
    folder
        .flm("train-reward --data data --out reward --steps 20 --width 8")
        .assert()
        .success();
    folder
}

fn samples(folder: &Folder, options: &str) -> Vec<Value> {
    let words =
        format!("sample --model flow --steps 3 --count 5 --seed 2 --out s.jsonl --force {options}");
    folder.flm(&words).assert().success();
    let text = fs::read_to_string(folder.path("s.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn tokens(samples: &[Value]) -> Vec<&Value> {
    samples.iter().map(|sample| &sample["tokens"]).collect()
}

#[test]
fn guided_samples_say_so_and_do_not_depend_on_their_batch() {
    let folder = trained();
    let alone = samples(&folder, "");
    assert_eq!(alone[0].get("guidance"), None);
    assert_eq!(alone[0].get("evaluations"), None);
    for (options, evaluations, pointer, expected) in [
        (
            "--guidance 4 --weak dropout:0.3",
            6,
            "/auto/weak/dropout",
            Value::from(0.3),
        ),
        (
            "--guidance 4 --weak early",
            6,
            "/auto/weak/model/path",
            Value::from("early"),
        ),
        (
            "--reward keyword:happy,yesterday --reward-scale 20",
            12,
            "/reward/of/keyword/1",
            Value::from("yesterday"),
        ),
        (
            "--reward classifier:reward --reward-scale 20",
            12,
            "/reward/scale",
            Value::from(20.0),
        ),
        (
            "--reward classifier:reward --reward-scale 20 --guidance 3 --weak early",
            15,
            "/auto/eta",
            Value::from(3.0),
        ),
    ] {
        let guided = samples(&folder, options);
        assert_eq!(guided[0]["evaluations"], evaluations, "{options}");
        assert_eq!(
            guided[0]["guidance"].pointer(pointer),
            Some(&expected),
            "{options}"
        );
        assert_ne!(tokens(&guided), tokens(&alone), "{options}");
        let one_by_one = samples(&folder, &format!("{options} --batch 2"));
        assert_eq!(guided, one_by_one, "{options}");
    }
    // Neutral strengths do not change the samples.
    for options in [
        "--guidance 1 --weak early",
        "--reward keyword:happy --reward-scale 0",
        "--top-p 1",
    ] {
        assert_eq!(samples(&folder, options), alone, "{options}");
    }
}

#[test]
fn a_nucleus_is_of_every_denoised_of_a_flow() {
    let folder = trained();
    let alone = samples(&folder, "");
    let few = samples(&folder, "--top-p 0.2");
    assert_eq!(few[0]["top_p"], 0.2);
    assert_ne!(tokens(&few), tokens(&alone));
    // `--top-p 0` equals a temperature near 0, unless the two likeliest tokens are almost equally
    // likely: then the cold distribution is a mixture.
    let [greedy, cold] = ["--top-p 0", "--temperature 0.0001"].map(|options| {
        let samples = samples(&folder, options);
        let ids = |sample: &Value| sample["tokens"].as_array().unwrap().clone();
        samples.iter().flat_map(ids).collect::<Vec<_>>()
    });
    let same = greedy.iter().zip(&cold).filter(|(a, b)| a == b).count();
    assert!(10 * same > 9 * greedy.len(), "{same} of {}", greedy.len());
}

#[test]
fn a_frontier_sweeps_eta_and_lambda() {
    let folder = trained();
    let words = "eval frontier flow --data data --steps 2 --temperature 1 --count 6 --out f --guidance 1,3 --weak dropout:0.2 --reward keyword:happy --reward-scale 0,5";
    let output = folder.flm(words).assert().success().get_output().clone();
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let header = lines.iter().position(|line| line.contains(&"eta")).unwrap();
    let settings: Vec<String> = lines[header + 1..header + 5]
        .iter()
        .map(|line| line[4..7].join(" "))
        .collect();
    assert_eq!(settings, ["1 0 2", "1 5 8", "3 0 4", "3 5 10"]);
    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.path("f/frontier.json")).unwrap()).unwrap();
    let points = &report["at"][0]["curves"][0]["points"];
    assert_eq!(points[0].get("guidance"), None);
    assert_eq!(points[3]["guidance"]["auto"]["eta"], 3.0);
    assert_eq!(points[3]["evaluations"], 10);
    // Existing samples that match the request are not drawn again.
    folder.flm(words).assert().success();
}

#[test]
fn what_cannot_guide_is_refused_in_a_sentence() {
    let folder = trained();
    folder
        .tiny("train --data data --out mdlm")
        .args(["--set", "model.family=mdlm"])
        .assert()
        .success();
    fs::write(
        folder.path("corpus.txt"),
        "the girl is happy .\n".repeat(30),
    )
    .unwrap();
    folder
        .flm("data prepare --input corpus.txt --tokenizer words --length 24 --out words")
        .assert()
        .success();
    folder
        .flm("train-reward --data words --out foreign --steps 1")
        .assert()
        .success();
    folder
        .tiny("train --data words --out foreign-flow")
        .assert()
        .success();
    folder
        .flm("distill --teacher flow --data data --out map")
        .assert()
        .success();
    let hash = |file: &str| -> String {
        let text = fs::read_to_string(folder.path(file)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        json["tokenizer_hash"].as_str().unwrap()[..12].to_owned()
    };
    let [ours, foreign] = ["reward/config.json", "foreign/config.json"].map(hash);
    let tokenizers = format!(
        "the reward foreign was trained on the tokenizer {foreign}, but that of flow is {ours}"
    );
    let weak = format!("weak foreign-flow has the tokenizer {foreign}, expected {ours} as in flow");
    for (words, expected) in [
        (
            "--guidance nan",
            "--guidance must lie between -1000000 and 1000000, found NaN",
        ),
        (
            "--guidance 2",
            "--weak dropout has no effect: flow was trained without dropout, so give a rate, as in dropout:0.1",
        ),
        (
            "--guidance 2 --weak dropout:1",
            "--weak dropout:1: the dropout rate must be above 0 and at most 0.99, found 1",
        ),
        (
            "--guidance 2 --weak nobody",
            "there is no model folder nobody",
        ),
        (
            "--guidance 2 --weak map",
            "weak map has the kind flow map, expected flow as in flow",
        ),
        ("--guidance 2 --weak foreign-flow", weak.as_str()),
        (
            "--reward happy",
            "--reward happy: expected keyword:WORD,WORD or classifier:DIR",
        ),
        (
            "--reward keyword:happy,,",
            "--reward keyword:happy,,: expected keyword:WORD,WORD or classifier:DIR",
        ),
        ("--reward classifier:foreign", tokenizers.as_str()),
        // The weak network is opened even if the strength is neutral.
        (
            "--guidance 1 --weak nobody",
            "there is no model folder nobody",
        ),
        (
            "--reward happy --reward-scale 0",
            "--reward happy: expected keyword:WORD,WORD or classifier:DIR",
        ),
        (
            "--guidance 1e300 --weak dropout:0.1",
            "--guidance must lie between -1000000 and 1000000, found 1e300",
        ),
        (
            "--reward keyword:happy --reward-scale 1e38",
            "--reward-scale must lie between -1000000 and 1000000, found 1e38",
        ),
        (
            "--reward classifier:flow/model",
            "flow/model/config.json is not the configuration of a reward classifier: it has no key `kind`",
        ),
    ] {
        let words = format!("sample --model flow --steps 2 {words}");
        assert_eq!(folder.refused(folder.flm(&words)), expected, "{words}");
    }
    for (words, expected) in [
        (
            "sample --model mdlm --steps 2 --guidance 2 --weak dropout:0.1",
            "mdlm is of kind mdlm: only a flow or a flow map of one network takes --guidance",
        ),
        (
            "sample --model mdlm --steps 2 --reward keyword:happy",
            "mdlm is of kind mdlm: only a flow or a flow map of one network takes --reward",
        ),
        (
            "sample --model mdlm --steps 2 --guidance 1",
            "mdlm is of kind mdlm: only a flow or a flow map of one network takes --guidance",
        ),
        (
            "sample --model mdlm --steps 2 --reward keyword:happy --reward-scale 0",
            "mdlm is of kind mdlm: only a flow or a flow map of one network takes --reward",
        ),
        (
            "eval frontier mdlm --data data --out f --guidance nan --weak zzz",
            "--guidance must lie between -1000000 and 1000000, found NaN",
        ),
        (
            "eval frontier mdlm --data data --out f --guidance 2 --weak zzz",
            "--guidance needs a flow or a flow map of one network, and no model here is one",
        ),
        (
            "eval frontier mdlm --data data --out f --reward bogus",
            "--reward needs a flow or a flow map of one network, and no model here is one",
        ),
        (
            "eval frontier flow --data data --out f --gamma 0,0.5",
            "--gamma 0.5 needs a flow map, and no model here is one",
        ),
        (
            "eval infill flow --data data --gamma 0.5",
            "--gamma 0.5 needs a flow map, and no model here is one",
        ),
        (
            "train --data data --out new --set model.family=mdlm --set curriculum.share=0.7",
            "--set curriculum.share=0.7: the settings of [curriculum] are only for models of family duo, but model.family is mdlm",
        ),
        (
            "distill --teacher flow --data data --out new --set curriculum.share=0.7",
            "--set curriculum.share=0.7: the settings of [curriculum] are only for `flm train`",
        ),
        (
            "train-reward --data data --out reward",
            "reward exists already: choose another folder, or add --force to replace it",
        ),
        (
            "train-reward --data data --out flow/model --force",
            "flow/model/config.json is not the configuration of a reward classifier: it has no key `kind`",
        ),
        (
            "train-reward --data data --out new --steps 0",
            "the number of steps must be at least 1, found 0",
        ),
        (
            "train-reward --data data --out new --lr nan",
            "--lr must be a finite number above 0, found NaN",
        ),
        (
            "train-reward --data data --out new --lr=-1",
            "--lr must be a finite number above 0, found -1",
        ),
        (
            "train-reward --data data --out new --steps 9 --width 8 --lr 1e300",
            "the loss became NaN in step 2: choose a smaller --lr than 1e300",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
    let vast =
        folder.refused(folder.flm("train-reward --data data --out new --width 9999999999999"));
    assert!(
        vast.starts_with("--width 9999999999999: invalid classifier sizes: "),
        "{vast}"
    );
    fs::write(folder.path("reward/notes.txt"), "mine").unwrap();
    assert_eq!(
        folder.refused(folder.flm("train-reward --data data --out reward --force")),
        "reward holds notes.txt, which is not part of a reward classifier, so it is not replaced"
    );
    fs::remove_file(folder.path("reward/notes.txt")).unwrap();
    folder
        .flm("train-reward --data data --out reward --force --steps 1 --width 4")
        .assert()
        .success();
    assert!(folder.names().iter().all(|name| !name.starts_with(".flm")));
    for rest in ["", "--reward-scale 0"] {
        let words = format!("sample --model flow --steps 2 --reward keyword:zebra {rest}");
        let unknown = folder.refused(folder.flm(&words));
        assert!(unknown.contains("zebra"), "{unknown}");
    }
    for gamma in ["nan", "9"] {
        let words = format!("eval infill flow --data data --gamma {gamma}");
        let refused = folder.refused(folder.flm(&words));
        let sampled =
            folder.refused(folder.flm(&format!("sample --model flow --steps 2 --gamma {gamma}")));
        assert_eq!(refused, sampled);
    }
    let usual = samples(&folder, "--reward classifier:reward");
    assert_eq!(usual[0]["guidance"]["reward"]["scale"], 0.3);
}
