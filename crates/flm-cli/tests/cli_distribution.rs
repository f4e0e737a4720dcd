//! Distribution matching, and samplers that draw tokens at each step.

mod support;

use serde_json::Value;
use std::fs;
use support::Folder;

/// Returns a folder with data, a flow, a flow map and a masked diffusion.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.data("data", 300);
    for (run, setting) in [
        ("flow", "model.evidence=true"),
        ("mdlm", "model.family=mdlm"),
    ] {
        let mut command = folder.tiny(&format!("train --data data --out {run}"));
        command.args(["--set", setting]).assert().success();
    }
    let map = "distill --teacher flow --data data --out map --set flow_map.objective=semigroup";
    folder.flm(map).assert().success();
    folder
}

const MATCH: &str = "distill --teacher flow --data data --set flow_map.objective=distribution";

fn texts(folder: &Folder, words: &str) -> Vec<Value> {
    let words = format!("sample {words} --seed 3 --count 6 --out s.jsonl --force");
    folder.flm(&words).assert().success();
    let lines = fs::read_to_string(folder.path("s.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(line).collect()
}

#[test]
fn a_fitted_clock_belongs_to_the_model_and_its_flow_map() {
    let folder = Folder::new();
    folder.data("data", 300);
    let train = "train --data data --out flow --set train.self_conditioning=0.25 --set train.clock_every=1 --set model.clock=[0.01,1.0]";
    folder.tiny(train).assert().success();
    let map = format!("{MATCH} --out map");
    folder.flm(&map).assert().success();
    let clock = |model: &str, hears: bool| {
        let text = fs::read_to_string(folder.path(&format!("{model}/model/config.json"))).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["model"]["self_conditioning"], hears);
        config["model"]["clock"].as_array().unwrap().clone()
    };
    let of_flow = clock("flow", true);
    assert_eq!(of_flow.len(), 65);
    assert_eq!(of_flow[0], 0.01);
    assert_eq!(of_flow, clock("map", false));
    for words in ["--model flow --steps 3", "--model map --steps 2"] {
        assert_eq!(texts(&folder, words).len(), 6);
    }
}

#[test]
fn a_flow_map_is_made_from_a_flow_and_from_another_map() {
    let folder = trained();
    for (out, more) in [
        ("alone", ""),
        (
            "after",
            "--set distill.start=map --set distribution.levels=2",
        ),
    ] {
        let command = format!("{MATCH} --out {out} {more} --set train.log_every=1");
        folder.flm(&command).assert().success();
        let read = |name: &str| -> Value {
            let text = fs::read_to_string(folder.path(&format!("{out}/{name}"))).unwrap();
            serde_json::from_str(text.lines().next().unwrap())
                .unwrap_or_else(|_| serde_json::from_str(&text).unwrap())
        };
        assert_eq!(read("model/config.json")["model"]["two_time"], true);
        assert_eq!(read("model/run.json")["kind"], "flow map");
        // Three steps of eight rows, at seven evaluations per row.
        assert_eq!(read("model/run.json")["training"]["evaluations"], 3 * 8 * 7);
        assert!(
            read("metrics.jsonl")["diagnostics"]["auxiliary"]
                .as_f64()
                .unwrap()
                > 0.0
        );
        let checkpoint = folder.path(&format!("{out}/checkpoints/step-00000003"));
        assert!(checkpoint.join("auxiliary.mpk").is_file());
        // The model folder does not hold the auxiliary network.
        assert_eq!(texts(&folder, &format!("--model {out} --steps 1")).len(), 6);
        texts(&folder, &format!("--model {out} --steps 2 --gamma 1"));
    }
}

#[test]
fn paths_make_a_flow_map_alone_and_beside_matching() {
    let folder = trained();
    for (out, more, evaluations) in [
        // Four rows on the diagonal at four evaluations, and four at 3 + 4 path steps.
        (
            "paired",
            "objective=path --set flow_map.path_steps=4",
            4 * 4 + 4 * 7,
        ),
        // 1, 2 and 4 path steps, 7/3 on average.
        (
            "halved",
            "objective=path --set flow_map.path_steps=4 --set flow_map.segments=4",
            4 * 4 + 12 + 28 / 3,
        ),
        (
            "mixed",
            "objective=distribution --set distribution.paths=0.5 --set distribution.path_steps=2",
            8 * 7 + 4 * 2,
        ),
    ] {
        let command =
            format!("distill --teacher flow --data data --out {out} --set flow_map.{more}");
        folder.flm(&command).assert().success();
        let card = fs::read_to_string(folder.path(&format!("{out}/model/run.json"))).unwrap();
        let card: Value = serde_json::from_str(&card).unwrap();
        let found = card["training"]["evaluations"].as_f64().unwrap();
        assert!(
            (found - 3.0 * f64::from(evaluations)).abs() <= 3.0,
            "{out}: {found}"
        );
        texts(&folder, &format!("--model {out} --steps 1"));
    }
}

#[test]
fn the_scale_of_noise_is_told_and_changes_the_samples() {
    let folder = trained();
    for model in ["flow", "map"] {
        let of = |scale: &str| texts(&folder, &format!("--model {model} --steps 2 {scale}"));
        let (plain, one) = (of(""), of("--noise-scale 1"));
        assert_eq!(plain, one);
        assert_eq!(plain[0].get("noise_scale"), None);
        let scaled = of("--noise-scale 0.2");
        assert_eq!(scaled[0]["noise_scale"], 0.2);
        let tokens = |samples: &[Value]| -> Vec<Value> {
            samples
                .iter()
                .map(|sample| sample["tokens"].clone())
                .collect()
        };
        assert_ne!(tokens(&plain), tokens(&scaled), "{model}");
    }
}

#[test]
fn samplers_draw_the_same_whatever_the_batch_and_differ_from_each_other() {
    let folder = trained();
    let mut all = Vec::new();
    for sampler in ["ode", "bridge", "bridge-mean", "renoise"] {
        for model in ["flow", "map"] {
            let words = format!("--model {model} --steps 4 --sampler {sampler}");
            let together = texts(&folder, &format!("{words} --batch 6"));
            assert_eq!(together, texts(&folder, &format!("{words} --batch 4")));
            let named = (sampler != "ode").then(|| Value::from(sampler));
            assert_eq!(together[0].get("sampler"), named.as_ref());
            let tokens: Vec<Value> = together.iter().map(|s| s["tokens"].clone()).collect();
            all.push((sampler, model, tokens));
        }
    }
    for (i, (sampler, model, tokens)) in all.iter().enumerate() {
        for (other, of, others) in &all[..i] {
            assert!(tokens != others, "{sampler} {model} and {other} {of}");
        }
    }
}

#[test]
fn samples_of_no_model_are_told_from_text_by_frames_and_copying() {
    let folder = trained();
    let controls = "eval controls --data data --count 40 --out nonsense";
    folder.flm(controls).assert().success();
    let output = folder
        .flm("eval nonsense --data data --copying --json")
        .assert()
        .success();
    let judged: Vec<Value> = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let of = |name: &str, key: &str| {
        let named = judged.iter().find(|judged| judged["name"] == name).unwrap();
        named.pointer(key).unwrap().as_f64().unwrap()
    };
    // The same row repeated: all valid and fully copied, but of a single frame.
    assert_eq!(of("repeated", "/figures/valid"), 1.0);
    assert_eq!(
        of("repeated", "/copied"),
        of("repeated", "/figures/mean_length")
    );
    assert!(of("repeated", "/figures/frame_recall") < 0.3);
    for name in ["unigrams", "shuffled"] {
        assert!(of(name, "/figures/valid") < 0.1, "{name}");
        assert!(of(name, "/copied") < 0.5 * of(name, "/figures/mean_length"));
    }
    let message = folder.refused(folder.flm(controls));
    assert!(
        message.contains("nonsense/unigrams.jsonl exists already"),
        "{message}"
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let folder = trained();
    texts(&folder, "--model flow --steps 1");
    let map_teacher = MATCH.replace("--teacher flow", "--teacher map");
    for (command, message) in [
        (
            "distill --self --data data --out x --set flow_map.objective=distribution".to_owned(),
            "the distribution objective compares with a frozen flow: pass the flow with --teacher",
        ),
        (
            format!("{map_teacher} --out x"),
            "the distribution objective compares with a flow, but the teacher map/model is a flow map: set it as distill.start",
        ),
        (
            "distill --teacher flow --data data --out x --set flow_map.objective=semigroup --set distill.start=map".to_owned(),
            "distill.start is a setting of the distribution objective, found the objective semigroup",
        ),
        (
            format!("{MATCH} --out x --set distribution.levels=0"),
            "distribution levels must be at least 1, found 0",
        ),
        (
            format!("{MATCH} --out x --set flow_map.diagonal=0.25"),
            "flow map diagonal is a setting of the objectives with a diagonal, found the objective distribution",
        ),
        (
            format!("{MATCH} --out x --set distill.start=mdlm"),
            "distill.start mdlm/model is of family mdlm: the student must start as a flow or a flow map",
        ),
        (
            "train --data data --out x --set model.family=mdlm --set train.references=8".to_owned(),
            "train.references is for flows, but model.family is mdlm: set it to 0",
        ),
        (
            "train --data data --out x --set model.clock=[0.5,0.2,1.0]".to_owned(),
            "model clock: a clock needs at least two strictly increasing times τ in [0, 1] that end at 1, found [0.5, 0.2, 1.0]",
        ),
        (
            "train --data data --out x --set train.self_conditioning=0.3 --set train.micro_batch=4 --set train.batch=4".to_owned(),
            "training self_conditioning 0.3 times micro_batch 4 is not a whole number of rows",
        ),
        (
            "train --data data --out x --set model.family=mdlm --set model.clock=[0.5,1.0]".to_owned(),
            "model clock is for flows and flow maps of one network",
        ),
        (
            "train --data data --out x --set train.self_conditioning=0.5 --set train.conditioning=0.5".to_owned(),
            "train.self_conditioning cannot be combined with train.conditioning: set one of them to 0",
        ),
        (
            format!("{MATCH} --out x --set distill.train.clock_every=5"),
            "distill.train.clock_every must be 0: it is a setting of a flow's training, train.clock_every",
        ),
        (
            "distill --teacher flow --data data --out x --set flow_map.objective=residual".to_owned(),
            "model evidence is for flows and flow maps of one network",
        ),
        (
            format!("{MATCH} --out x --set distribution.paths=1.5"),
            "distribution paths must be a share between 0 and 1, found 1.5",
        ),
        (
            "distill --teacher flow --data data --out x --set flow_map.objective=path --set flow_map.segments=3".to_owned(),
            "flow map path_steps must be at least 1 and segments a power of two, found 8 and 3",
        ),
        (
            "distill --self --data data --out x --set flow_map.objective=path".to_owned(),
            "the path objective follows a frozen flow: pass the flow with --teacher",
        ),
        (
            "sample --model mdlm --steps 2 --noise-scale 0.5".to_owned(),
            "mdlm is of family mdlm: only a flow or a flow map supports a noise scale",
        ),
        (
            "sample --model flow --steps 2 --noise-scale 0".to_owned(),
            "the noise scale must be positive and finite, found 0",
        ),
        (
            "eval s.jsonl --mauve".to_owned(),
            "--mauve compares samples with validation rows: pass the data folder with --data",
        ),
        (
            "eval s.jsonl --copying".to_owned(),
            "--copying compares with training rows: pass the data folder with --data",
        ),
        (
            "sample --model mdlm --steps 2 --sampler bridge".to_owned(),
            "mdlm is of family mdlm: only a flow or a flow map with one network supports a sampler",
        ),
        (
            "sample --model map --steps 2 --sampler bridge --gamma 0.5".to_owned(),
            "gamma 0.5 applies only to the sampler `ode`: the others set their own noise level",
        ),
        (
            "sample --model flow --steps 2 --sampler renoise --guidance 2 --weak dropout:0.1".to_owned(),
            "no tokens can be drawn under guidance, because it leaves the simplex: use the sampler `ode` or `bridge-mean`",
        ),
        (
            "train --data data --out x --set model.family=mdlm --set model.evidence=true".to_owned(),
            "model evidence is for flows and flow maps of one network",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(&command)), message, "{command}");
    }
}
