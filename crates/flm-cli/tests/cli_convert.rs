//! Import and export of the published implementation's weights, and `flm inspect`.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

/// Returns a folder with data, a flow and a residual flow map distilled from it.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.data("data", 200);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    folder
        .flm("distill --teacher flow --data data --out residual --set flow_map.objective=residual --set train.steps=3")
        .assert()
        .success();
    folder
}

fn printed(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn samples(folder: &Folder, model: &str) -> Vec<Value> {
    let out = format!("{}.jsonl", model.replace('/', "-"));
    folder
        .flm(&format!(
            "sample --model {model} --steps 2 --count 3 --out {out} --force"
        ))
        .assert()
        .success();
    let lines = fs::read_to_string(folder.path(&out)).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["tokens"].clone())
        .collect()
}

#[test]
fn a_model_goes_out_and_comes_in_again_and_samples_the_same() {
    let folder = trained();
    let out = printed(&folder, "convert flow --out hub");
    assert!(out.contains("network    flow · "), "{out}");
    let out = printed(
        &folder,
        "convert hub --tokenizer data/tokenizer.json --out again",
    );
    assert!(
        out.contains("file       flm · one set of weights\n")
            && out.ends_with("next       flm sample --model again --steps 128\n"),
        "{out}"
    );
    assert_eq!(samples(&folder, "again"), samples(&folder, "flow/model"));
    let card = fs::read_to_string(folder.path("again/run.json")).unwrap();
    let card: Value = serde_json::from_str(&card).unwrap();
    assert_eq!(card["converted"]["file"], "hub");
    assert_eq!(card["converted"]["sha256"].as_str().unwrap().len(), 64);

    folder
        .flm("convert flow --out flow.safetensors")
        .assert()
        .success();
    assert_eq!(
        folder.refused(folder.flm("convert flow.safetensors --out third")),
        "flow.safetensors does not specify the network's length: it must be given by --length"
    );
    assert_eq!(
        folder.refused(folder.flm("convert hub --length 25 --out third")),
        "hub says that the network's length is 24, but 25 is given by --length"
    );
    folder
        .flm("convert flow.safetensors --length 24 --tokenizer data/tokenizer.json --out third")
        .assert()
        .success();
    assert_eq!(samples(&folder, "third"), samples(&folder, "flow/model"));

    // The two networks are exported one by one.
    let out = printed(&folder, "convert residual --out second");
    assert!(out.contains("flm convert residual/model/denoiser"), "{out}");
    assert_eq!(
        folder.refused(folder.flm("convert second --out both")),
        "second is the second network of a residual flow map: give the file of its denoiser with --denoiser"
    );
    folder
        .flm("convert second --denoiser hub --tokenizer data/tokenizer.json --out both")
        .assert()
        .success();
    assert_eq!(samples(&folder, "both"), samples(&folder, "residual/model"));
    folder
        .flm("convert second --denoiser flow --out fourth")
        .assert()
        .success();
    assert!(folder.path("fourth/denoiser/tokenizer.json").is_file());
}

#[test]
fn a_conversion_that_cannot_be_leaves_nothing() {
    let folder = trained();
    for (words, expected) in [
        (
            "convert flow --out hub --no-ema",
            "flow is a model folder, which is converted unchanged: --no-ema applies to other files",
        ),
        (
            "convert flow --out data",
            "data is not a model folder, so it is not replaced",
        ),
        (
            "convert data/dataset.json --out x",
            "data/dataset.json is not a supported file: a checkpoint (.ckpt, .pt, .pth, .bin), a .safetensors file or a folder with config.json and model.safetensors",
        ),
    ] {
        let force = if words.ends_with("--out data") {
            " --force"
        } else {
            ""
        };
        let words = format!("{words}{force}");
        // Some messages start with a path in the form that the system gives.
        let message = folder.refused(folder.flm(&words));
        assert!(message.ends_with(expected), "{message}");
    }
    folder.flm("convert flow --out hub").assert().success();
    assert_eq!(
        folder.refused(folder.flm("convert flow --out hub")),
        "hub exists already"
    );
    assert_eq!(
        folder.refused(folder.flm("convert hub --out x --denoiser flow")),
        "hub is not a residual flow map and has no denoiser, found --denoiser flow"
    );
    assert_eq!(
        folder.refused(folder.flm("convert hub --out x --no-ema")),
        "hub holds one set of weights and does not say whether they are averages: load them as they are, without --no-ema"
    );
    fs::write(folder.path("cut.ckpt"), b"PK\x03\x04 and no more").unwrap();
    let message = folder.refused(folder.flm("convert cut.ckpt --out x"));
    assert!(
        message.starts_with("cut.ckpt is not a readable checkpoint: "),
        "{message}"
    );
    folder.flm("convert hub --out bare").assert().success();
    assert_eq!(
        folder.refused(folder.flm("sample --model bare --steps 1")),
        "the model folder bare has no tokenizer.json: its tokens cannot be decoded"
    );
}

#[test]
fn the_layout_is_packed_unless_it_is_said() {
    let folder = trained();
    let layout = |words: &str, model: &str| {
        folder.flm(words).assert().success();
        let card = fs::read_to_string(folder.path(model).join("run.json")).unwrap();
        let card: Value = serde_json::from_str(&card).unwrap();
        card["layout"].clone()
    };
    folder.flm("convert flow --out hub").assert().success();
    folder
        .flm("convert residual --out second")
        .assert()
        .success();
    assert_eq!(layout("convert hub --out packed", "packed"), "packed");
    assert_eq!(
        layout("convert hub --layout rows --out rows", "rows"),
        "rows"
    );
    // The layout comes from the card of the denoiser, which can be a model folder or a file in one.
    let both = "convert second --denoiser flow --out both";
    assert_eq!(layout(both, "both"), "rows");
    assert_eq!(
        folder.refused(folder.flm(&format!("{both} --force --layout packed"))),
        "the card of flow has the layout rows, which differs from --layout packed"
    );
    fs::copy(folder.path("rows/run.json"), folder.path("hub/run.json")).unwrap();
    assert_eq!(layout("convert hub --out told", "told"), "rows");
    assert_eq!(
        folder.refused(folder.flm("convert hub --layout packed --out x")),
        "the card of hub has the layout rows, which differs from --layout packed"
    );
    assert_eq!(
        folder.refused(folder.flm("convert flow --layout rows --out x")),
        "flow is a model folder, which is converted unchanged: --layout applies to other files"
    );
}

#[test]
fn inspecting_says_what_a_path_holds() {
    let folder = trained();
    let has = |words: &str, parts: &[&str]| {
        let out = printed(&folder, &format!("inspect {words}"));
        for part in parts {
            assert!(out.contains(part), "{words}: {part}\n{out}");
        }
    };
    has(
        "flow/model --tensors",
        &[
            "network    flow · ",
            "tokenizer  ",
            "command    flm train",
            "tensor     vocab_embed.embedding [",
        ],
    );
    has("flow", &["checkpoint step 4 in ", "network    flow · "]);
    has(
        "residual/model",
        &[
            "network    residual flow map · ",
            "denoiser\n  network    flow · ",
        ],
    );
    has("data", &["rows        "]);
    has(
        "data/train-00000.bin",
        &["shard      196 rows of 24 tokens of 16 bits"],
    );
    let checkpoints = fs::read_dir(folder.path("flow/checkpoints")).unwrap();
    let newest = checkpoints
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let name = newest.strip_prefix(folder.0.path()).unwrap();
    has(
        &format!("{}", name.display()),
        &["checkpoint step 4, after "],
    );
    folder.flm("convert flow --out hub").assert().success();
    has("hub", &["file       flm · one set of weights"]);
    folder
        .flm("convert flow --out flow.safetensors")
        .assert()
        .success();
    has(
        "flow.safetensors",
        &["network    flow.safetensors does not specify the network's length"],
    );
    fs::create_dir(folder.path("empty")).unwrap();
    assert_eq!(
        folder.refused(folder.flm("inspect empty")),
        "empty is not an flm folder: it has no config.json (a model), config.toml (a run), dataset.json (data) or state.json (a checkpoint)"
    );
    assert_eq!(folder.refused(folder.flm("inspect no")), "there is no no");
    fs::write(folder.path("bad.bin"), b"not a shard").unwrap();
    assert!(
        folder
            .refused(folder.flm("inspect bad.bin"))
            .contains("bad.bin")
    );
}
