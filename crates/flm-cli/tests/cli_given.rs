//! Samples with known text: prompts, suffixes and holes, for every family.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

/// A model of each kind, and its sampling options.
const MODELS: [(&str, &str); 6] = [
    ("flow", "--steps 3"),
    ("clean", "--steps 3"),
    ("map", "--steps 2 --gamma 0.5"),
    ("mdlm", "--steps 3"),
    ("duo", "--steps 3"),
    ("autoregressive", ""),
];

/// Trains a model of each kind on `data`.
fn trained(folder: &Folder) {
    for (run, setting) in [
        ("flow", "model.family=flow"),
        ("clean", "train.conditioning=0.5"),
        ("mdlm", "model.family=mdlm"),
        ("duo", "model.family=duo"),
        ("autoregressive", "model.family=autoregressive"),
    ] {
        let mut command = folder.tiny(&format!("train --data data --out {run}"));
        command.args(["--set", setting]).assert().success();
    }
    // The teacher was trained with known positions; its flow map is not.
    folder
        .flm("distill --teacher clean --data data --out map")
        .assert()
        .success();
}

fn grammar() -> Folder {
    let folder = Folder::new();
    folder.data("data", 500);
    trained(&folder);
    folder
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Returns the samples of a command; the arguments in `given` may contain spaces.
fn samples(folder: &Folder, words: &str, given: &[&str]) -> Vec<Value> {
    let mut command = folder.flm(&format!("sample {words} --out s.jsonl --force"));
    command.args(given).assert().success();
    let lines = fs::read_to_string(folder.path("s.jsonl")).unwrap();
    lines.lines().map(json).collect()
}

fn tokens(sample: &Value) -> Vec<u64> {
    let tokens = sample["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token.as_u64().unwrap()).collect()
}

#[test]
fn what_is_given_is_there_in_every_family() {
    let folder = grammar();
    for (model, how) in MODELS {
        let sample = |given: &[&str], batch: usize| {
            let words = format!("--model {model} {how} --count 5 --batch {batch}");
            samples(&folder, &words, given)
        };
        let texts = |samples: &[Value]| -> Vec<String> {
            let text = |sample: &Value| sample["text"].as_str().unwrap().to_owned();
            samples.iter().map(text).collect()
        };
        let prompted = sample(&["--prompt", "the girls"], 5);
        for (sample, text) in prompted.iter().zip(texts(&prompted)) {
            assert!(text.starts_with("the girls"), "{model}: {text}");
            assert_eq!(sample["condition"]["prompt"], "the girls");
            assert_eq!(sample["condition"]["open"][0], 2);
        }
        let filled = sample(&["--infill", "the ___{2} walked to ___ market ."], 5);
        for sample in &filled {
            assert_eq!(sample["condition"]["open"], serde_json::json!([1, 2, 5]));
            let (found, first) = (tokens(sample), tokens(&filled[0]));
            assert_eq!(found.len(), 24);
            for at in (0..24).filter(|at| ![1, 2, 5].contains(at)) {
                assert_eq!(found[at], first[at], "{model} at {at}");
            }
            // The end token after the full stop, and padding.
            assert_eq!(found[8..11], [2, 0, 0], "{model}");
        }
        let open: Vec<Vec<u64>> = (filled.iter())
            .map(|sample| [1, 2, 5].map(|at| tokens(sample)[at]).to_vec())
            .collect();
        assert!(
            open.iter().any(|fill| fill != &open[0]),
            "{model}: {open:?}"
        );
        // Samples do not depend on the rest of the batch.
        let alone = sample(&["--infill", "the ___{2} walked to ___ market ."], 2);
        assert_eq!(alone, filled, "{model}");
    }
    let config = |run: &str| {
        let path = folder.path(&format!("{run}/model/config.json"));
        json(&fs::read_to_string(path).unwrap())["model"]["conditioning"].clone()
    };
    assert_eq!(
        ["flow", "clean", "map"].map(config),
        [false, true, false].map(Value::from)
    );
}

#[test]
fn known_positions_change_what_a_flow_is_trained_on() {
    let folder = Folder::new();
    folder.data("data", 200);
    let losses = |run: &str, probability: &str| -> Vec<Value> {
        let mut command = folder.tiny(&format!("train --data data --out {run}"));
        let conditioning = format!("train.conditioning={probability}");
        for setting in ["train.log_every=1", &conditioning] {
            command.args(["--set", setting]);
        }
        command.assert().success();
        let metrics = fs::read_to_string(folder.path(&format!("{run}/metrics.jsonl"))).unwrap();
        metrics
            .lines()
            .map(|line| json(line)["loss"].clone())
            .collect()
    };
    let (plain, always) = (losses("plain", "0"), losses("always", "1"));
    // Noise and times are the same; known positions add no loss.
    assert!(
        always[0].as_f64() < plain[0].as_f64(),
        "{plain:?} {always:?}"
    );
}

/// Returns a folder with two flows that have learned to use other positions, which an untrained
/// network does not: one that pins known positions, and one trained for them.
fn learned() -> Folder {
    let folder = Folder::new();
    folder.data("data", 500);
    for (run, probability) in [("flow", "0"), ("clean", "0.5")] {
        let mut command = folder.tiny(&format!("train --data data --out {run}"));
        let conditioning = format!("train.conditioning={probability}");
        for setting in ["train.steps=100", "train.optimizer.lr=1e-2", &conditioning] {
            command.args(["--set", setting]);
        }
        command.assert().success();
    }
    folder
}

#[test]
fn what_is_open_hears_of_what_is_given() {
    let folder = learned();
    // The noise and the number of words in the prompt are the same.
    for model in ["flow", "clean"] {
        let words = format!("--model {model} --steps 4 --count 20 --seed 3");
        let rest = |prompt: &str| -> Vec<Vec<u64>> {
            let samples = samples(&folder, &words, &["--prompt", prompt]);
            let rest = |sample: &Value| tokens(sample)[2..].to_vec();
            samples.iter().map(rest).collect()
        };
        assert_ne!(rest("the girls"), rest("two happy"), "{model}");
    }
}

#[test]
fn what_is_given_stays_where_samples_are_guided() {
    let folder = learned();
    let given = ["--infill", "the ___ sold two ___ ."];
    let early = "train --data data --out early --set train.steps=2";
    folder.tiny(early).assert().success();
    for guided in [
        "--guidance 4 --weak dropout:0.3",
        "--guidance 4 --weak early",
        "--reward keyword:happy --reward-scale 2",
    ] {
        let words = format!("--model flow --steps 3 --count 30 {guided}");
        let plain = samples(&folder, "--model flow --steps 3 --count 30", &given);
        let found = samples(&folder, &words, &given);
        for (one, other) in found.iter().zip(&plain) {
            let (one, other) = (tokens(one), tokens(other));
            for place in [0, 2, 3, 5] {
                assert_eq!(one[place], other[place], "{guided}");
            }
        }
        let fills = |samples: &[Value]| -> Vec<[u64; 2]> {
            let fill = |sample: &Value| [1, 4].map(|at| tokens(sample)[at]);
            samples.iter().map(fill).collect()
        };
        assert_ne!(fills(&found), fills(&plain), "{guided}");
    }
    let mut command = folder.flm("sample --model clean --steps 3 --guidance 2 --weak flow");
    command.args(given);
    assert_eq!(
        folder.refused(command),
        "clean was trained with conditioning: it does not support the option guidance with known text"
    );
}

#[test]
fn the_blanks_of_a_file_are_filled_line_by_line() {
    let folder = grammar();
    fs::write(folder.path("holes.txt"), "the ___ is late\n\n___ girls\n").unwrap();
    let line = |text: &str| format!("{}\n", serde_json::json!({ "infill": text }));
    let lines = [line("the ___ is late"), line("___ girls")].concat();
    fs::write(folder.path("holes.jsonl"), lines).unwrap();
    for (model, how) in MODELS {
        let words = format!("--model {model} {how} --count 3 --batch 4");
        let found = samples(&folder, &words, &["--infill-file", "holes.txt"]);
        assert_eq!(found.len(), 6, "{model}");
        for (number, sample) in found.iter().enumerate() {
            let text = sample["text"].as_str().unwrap();
            let (asked, end) = [("the ___ is late", "is late"), ("___ girls", "girls")][number / 3];
            assert_eq!(sample["condition"]["infill"], asked);
            // A fill can be an end token, which cuts the text short.
            let cut = tokens(sample)[1 - number / 3] == 2;
            assert!(cut || text.ends_with(end), "{model}: {text}");
        }
        let same = samples(&folder, &words, &["--infill-file", "holes.jsonl"]);
        assert_eq!(same, found, "{model}");
    }
}

#[test]
fn a_packed_block_is_led_up_to_its_end() {
    let folder = Folder::new();
    let text = "the cat saw a dog\na dog saw the cat\n".repeat(60);
    fs::write(folder.path("corpus.txt"), text).unwrap();
    let words = "data prepare --input corpus.txt --tokenizer chars --length 20 --pack --out data";
    folder.flm(words).assert().success();
    trained(&folder);
    for (model, how) in MODELS {
        let words = format!("--model {model} {how} --count 4");
        for sample in samples(&folder, &words, &["--prompt", "the ", "--suffix", " dog"]) {
            let (text, tokens) = (sample["text"].as_str().unwrap(), tokens(&sample));
            assert!(
                text.starts_with("the ") && text.ends_with(" dog"),
                "{model}: {text}"
            );
            assert_eq!((tokens[0], tokens[19]), (1, 2), "{model}");
        }
        for sample in samples(&folder, &words, &["--infill", "a ___{3} saw"]) {
            let open: Vec<usize> = (3..6).chain(10..19).collect();
            assert_eq!(sample["condition"]["open"], serde_json::json!(open));
        }
    }
}

#[test]
fn holes_are_judged() {
    let folder = grammar();
    let words = "eval infill flow clean map mdlm duo autoregressive --data data --span 1,2 --steps 1,2 --count 6 --rejection-samples 20";
    let printed = |rest: &str| {
        let output = folder.flm(&format!("{words} {rest}")).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    let report = json(&printed("--json"));
    let models = report["models"].as_array().unwrap();
    // Two spans at two numbers of steps; an autoregressive model has one.
    assert_eq!(models.len(), 5 * 4 + 2);
    for found in models {
        assert_eq!(found["count"], 6);
        assert_eq!(found["conditioning"], found["model"] == "clean");
        let share = |key: &str| found[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share("exact")) && share("distinct") > 0.0);
        // An exact fill restores the original sentence.
        assert!(share("valid") >= share("exact"), "{found}");
        let budgets: Vec<&Value> = (found["rejection"].as_array().unwrap().iter())
            .map(|rejection| &rejection["samples"])
            .collect();
        assert_eq!(budgets, [2, 20]);
    }
    for (rows, span) in report["rows"].as_array().unwrap().iter().zip([1, 2]) {
        assert_eq!((&rows["span"], &rows["valid"]), (&span.into(), &1.0.into()));
        let distribution = rows["oracle_exact"].as_f64().unwrap();
        assert!(distribution > 0.0 && distribution < 1.0, "{distribution}");
    }
    let table = printed("");
    assert!(
        table.contains("the rows") && table.contains("of 20 unconditional samples"),
        "{table}"
    );
    assert_eq!(table, printed("--batch 3"));
}

#[test]
fn what_cannot_be_given_is_answered_with_a_sentence() {
    let folder = grammar();
    folder
        .flm("distill --teacher flow --data data --out residual")
        .args(["--set", "distill.flow_map.objective=residual"])
        .assert()
        .success();
    fs::write(folder.path("holes.txt"), "the ___\nthe zebra ___\n").unwrap();
    fs::write(folder.path("holes.jsonl"), "{\"text\": \"a ___\"}\n").unwrap();
    fs::write(folder.path("empty.txt"), "\n").unwrap();
    fs::write(folder.path("vast.txt"), "___\n___{3000000000000000000}\n").unwrap();
    let long = "the ".repeat(30);
    for (model, given, expected) in [
        (
            "flow",
            ["--prompt", "the zebra"],
            "prompt: `zebra` is not in the vocabulary of ",
        ),
        (
            "mdlm",
            ["--infill", "the zebra ___"],
            "infill: `zebra` is not in the vocabulary of ",
        ),
        (
            "duo",
            ["--infill-file", "holes.txt"],
            "line 2 of holes.txt: `zebra` is not in the vocabulary of ",
        ),
        (
            "flow",
            ["--infill-file", "holes.jsonl"],
            "line 1 of holes.jsonl is not a JSON object with the key \"infill\": ",
        ),
        (
            "flow",
            ["--infill-file", "empty.txt"],
            "empty.txt holds no text to fill",
        ),
        (
            "flow",
            ["--prompt", &long],
            "prompt: 30 tokens, but a text of this model has room for 23",
        ),
        ("flow", ["--prompt", " "], "prompt: the text has no tokens"),
        (
            "flow",
            ["--suffix", "."],
            "suffix: only models of packed blocks support a suffix, because the end position of a row of one document is not known; use an infill instead, as in `___{4} the end`",
        ),
        (
            "mdlm",
            ["--infill", "the girls"],
            "infill: there is no blank ___ to fill in `the girls`",
        ),
        (
            "mdlm",
            ["--infill", "the ___{0}"],
            "infill: expected a number of tokens of at least 1, as in ___{3}, found ___{0}",
        ),
        (
            "mdlm",
            ["--infill", "___{9999999999999999}"],
            "infill: 9999999999999999 tokens, but a text of this model has room for 23",
        ),
        (
            "flow",
            ["--infill-file", "vast.txt"],
            "line 2 of vast.txt: 3000000000000000000 tokens, but a text of this model has room for 23",
        ),
        (
            "residual",
            ["--prompt", "the girls"],
            "residual is a residual flow map: only a model with one network supports a prompt, suffix or infill",
        ),
    ] {
        let mut command = folder.flm(&format!("sample --model {model} --steps 2"));
        command.args(given);
        let message = folder.refused(command);
        assert!(message.starts_with(expected), "{given:?}: {message}");
    }
    for (words, expected) in [
        (
            "train --data data --out x --set model.family=mdlm --set train.conditioning=0.5",
            "train.conditioning is for flows, but model.family is mdlm: set it to 0",
        ),
        (
            "train --data data --out x --set train.conditioning=2",
            "training conditioning must lie between 0 and 1, found 2",
        ),
        (
            "distill --teacher flow --data data --out x --set distill.train.conditioning=0.5",
            "distill.train.conditioning must be 0: it is a setting of a flow's training, train.conditioning",
        ),
        (
            "eval infill flow --data data --span 0",
            "--span must be at least 1, found 0",
        ),
        (
            "eval infill flow --data data --span 24",
            "--span 24: no validation row of data has that many tokens of text",
        ),
        (
            "eval infill residual --data data",
            "residual is a residual flow map, which cannot fill holes",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
}
