//! The baselines by the same commands: masked and uniform-state diffusion, autoregressive models.

mod support;

use serde_json::Value;
use std::fs;
use support::{Folder, contents};

const FAMILIES: [&str; 3] = ["mdlm", "duo", "autoregressive"];

fn printed(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read(folder: &Folder, name: &str) -> Value {
    json(&fs::read_to_string(folder.path(name)).unwrap())
}

/// Trains a model of a family in a run of the same name.
fn train(folder: &Folder, family: &str, rest: &[&str]) {
    let mut command = folder.tiny(&format!("train --data data --out {family}"));
    command.args(["--set", &format!("model.family={family}")]);
    for setting in rest {
        command.args(["--set", setting]);
    }
    command.assert().success();
}

/// Returns a folder with data and a run of each family.
fn trained(rest: &[&str]) -> Folder {
    let folder = Folder::new();
    folder.data("data", 500);
    for family in FAMILIES {
        train(&folder, family, rest);
    }
    folder
}

/// Returns the option for the number of steps, for families that have one.
fn steps(family: &str) -> &'static str {
    if family == "autoregressive" {
        ""
    } else {
        "--steps 3"
    }
}

#[test]
fn every_family_is_trained_sampled_and_judged() {
    let folder = trained(&[]);
    for family in FAMILIES {
        let config = read(&folder, &format!("{family}/model/config.json"));
        assert_eq!(config["model"]["family"], family);
        let card = read(&folder, &format!("{family}/model/run.json"));
        assert_eq!(card["kind"], family);
        // Four steps of eight rows, forward and backward.
        assert_eq!(card["training"]["evaluations"], 4 * 8 * 3);
        let readme = fs::read_to_string(folder.path(&format!("{family}/model/README.md"))).unwrap();
        assert!(readme.contains(&format!("(family `{family}`)")), "{readme}");
        let told = printed(&folder, &format!("inspect {family}"));
        assert!(told.contains(&format!("network    {family} · ")), "{told}");

        // Samples do not depend on the rest of the batch, but on the seed.
        let sample = |rest: &str| {
            let steps = steps(family);
            printed(
                &folder,
                &format!("sample --model {family} {steps} --count 7 {rest}"),
            )
        };
        let whole = sample("--seed 5 --batch 7");
        assert_eq!(whole.lines().count(), 7, "{whole}");
        for rest in ["--seed 5 --batch 3", "--seed 5 --batch 1"] {
            assert_eq!(sample(rest), whole, "{family} {rest}");
        }
        assert_ne!(sample("--seed 6"), whole);
        // Only the likeliest token, at any temperature.
        assert_eq!(
            sample("--top-p 0 --temperature 0.5"),
            sample("--top-p 0 --temperature 2"),
            "{family}"
        );

        let steps = steps(family);
        printed(
            &folder,
            &format!(
                "sample --model {family} {steps} --count 6 --top-p 0.5 --out s/{family}.jsonl"
            ),
        );
    }
    let judged = json(&printed(
        &folder,
        "eval s --data data --scorer autoregressive --scorer ngram:data --json",
    ));
    for (judged, (family, steps)) in
        judged
            .as_array()
            .unwrap()
            .iter()
            .zip([("autoregressive", 24), ("duo", 3), ("mdlm", 3)])
    {
        assert_eq!(judged["name"], family);
        let drawn = &judged["drawn"];
        assert_eq!(
            (&drawn["steps"], &drawn["top_p"]),
            (&steps.into(), &0.5.into())
        );
        let scores = judged["scores"].as_array().unwrap();
        let scorer = scores[0]["scorer"].as_str().unwrap();
        assert!(scorer.starts_with("autoregressive-1x16-"), "{scorer}");
        assert!(scores[0]["nats_per_token"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(judged.as_array().unwrap().len(), 3);
}

#[test]
fn nobody_beats_the_distribution_of_the_text() {
    let folder = trained(&["train.steps=40"]);
    let words = "eval bound mdlm duo autoregressive --data data --rows 8 --draws 64";
    let measured = json(&printed(&folder, &format!("{words} --json")));
    assert_eq!(measured["rows"], 8);
    let distribution = measured["grammar_nats_per_token"].as_f64().unwrap();
    let models = measured["models"].as_array().unwrap();
    for (model, family) in models.iter().zip(FAMILIES) {
        assert_eq!(model["family"], family);
        assert_eq!(model["bound"], family != "autoregressive");
        let nats = model["nats_per_token"].as_f64().unwrap();
        assert!(nats > distribution, "{family}: {nats} below {distribution}");
    }
    let table = printed(&folder, words);
    assert!(
        table.contains("≤ ") && table.contains("the grammar"),
        "{table}"
    );
    assert_eq!(table, printed(&folder, words));
}

#[test]
fn a_scorer_of_ours_says_of_a_text_what_its_likelihood_is() {
    let folder = Folder::new();
    // All rows are the same sentence, which fills a row.
    let sentence = "every dog saw one small cat\n";
    fs::write(folder.path("corpus.txt"), sentence.repeat(40)).unwrap();
    printed(
        &folder,
        "data prepare --input corpus.txt --tokenizer words --length 7 --validation-share 0.2 --out data",
    );
    train(&folder, "autoregressive", &[]);
    fs::write(
        folder.path("texts.txt"),
        sentence.repeat(5) + "dog dog dog dog dog dog dog dog dog\n",
    )
    .unwrap();
    fs::write(folder.path("one.txt"), sentence).unwrap();
    let score = |rest: &str| {
        let words = format!("eval {rest} --scorer autoregressive --json");
        json(&printed(&folder, &words))[0]["scores"][0].clone()
    };
    let one = score("one.txt");
    let nats = one["nats_per_token"].as_f64().unwrap();
    let measured = json(&printed(
        &folder,
        "eval bound autoregressive --data data --json",
    ));
    let likelihood = measured["models"][0]["nats_per_token"].as_f64().unwrap();
    // Sums of a few f32 numbers in a different order.
    assert!((nats - likelihood).abs() < 1e-5, "{nats} and {likelihood}");
    assert_eq!(one["perplexity"].as_f64().unwrap(), nats.exp());
    // Six words and an end token per text; the text that is too long counts the tokens before the
    // end of the row.
    let several = score("texts.txt --score-batch 4");
    assert_eq!(several["tokens"], 5 * 7 + 6);
    assert_eq!(several["scorer"], one["scorer"]);
}

#[test]
fn a_packed_block_is_scored_between_its_begin_and_its_end() {
    let folder = Folder::new();
    let text = "the cat saw a dog\na dog saw the cat\n".repeat(60);
    fs::write(folder.path("corpus.txt"), text).unwrap();
    printed(
        &folder,
        "data prepare --input corpus.txt --tokenizer chars --length 20 --pack --out data",
    );
    train(&folder, "autoregressive", &["train.steps=30"]);
    printed(
        &folder,
        "sample --model autoregressive --count 5 --out s.jsonl",
    );
    let judged = json(&printed(
        &folder,
        "eval s.jsonl --scorer autoregressive --json",
    ));
    let score = &judged[0]["scores"][0];
    assert!(score["scorer"].as_str().unwrap().contains("-packed-20-"));
    // All tokens except the begin token, which is given, and the last one, which is never text.
    assert_eq!(score["tokens"], 5 * 18);
}

#[test]
fn a_frontier_compares_families_by_a_scorer_of_ours() {
    let folder = trained(&[]);
    let words = "eval frontier mdlm autoregressive --scorer autoregressive --steps 1,2 --temperature 0.5,1 --count 6 --out frontier";
    let told = printed(&folder, words);
    assert!(told.contains("judge      autoregressive-1x16-"), "{told}");
    // An autoregressive model takes one step per token, so both numbers of steps share its samples.
    let samples = fs::read_dir(folder.path("frontier/samples")).unwrap();
    assert_eq!(samples.count(), 2 * 2 + 2);
    assert_eq!(printed(&folder, words), told);
}

#[test]
fn a_run_that_is_resumed_ends_where_one_that_was_not_does() {
    let folder = trained(&["train.checkpoint_every=2"]);
    for family in FAMILIES {
        let model = folder.path(&format!("{family}/model/model.safetensors"));
        let whole = fs::read(&model).unwrap();
        let checkpoints = folder.path(&format!("{family}/checkpoints"));
        let mut all: Vec<_> = fs::read_dir(&checkpoints)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        all.sort();
        assert_eq!(all.len(), 2);
        fs::remove_dir_all(&all[1]).unwrap();
        fs::remove_dir_all(folder.path(&format!("{family}/model"))).unwrap();
        printed(
            &folder,
            &format!("train --data data --out {family} --resume"),
        );
        assert!(fs::read(&model).unwrap() == whole, "{family}");
    }
}

#[test]
fn diffusions_are_distilled_in_rounds() {
    let folder = trained(&[]);
    // Evaluations per row: forward and backward, and those of the teacher.
    for (family, recipe, cost) in [("mdlm", "sdtt", 3 + 2), ("duo", "dcd", 3 + 1)] {
        let distill = format!(
            "distill --teacher {family} --data data --out {recipe} --set {recipe}.rounds=3"
        );
        printed(&folder, &distill);
        let card = read(&folder, &format!("{recipe}/model/run.json"));
        assert_eq!(card["kind"], family);
        // Three rounds of three steps of eight rows.
        assert_eq!(card["training"]["evaluations"], 3 * 3 * 8 * cost);
        let rounds = fs::read_dir(folder.path(&format!("{recipe}/rounds"))).unwrap();
        assert_eq!(rounds.count(), 2);
        let weights =
            |run: &str| fs::read(folder.path(&format!("{run}/model/model.safetensors"))).unwrap();
        let whole = weights(recipe);
        assert!(whole != weights(&format!("{recipe}/rounds/2")));
        let text = printed(
            &folder,
            &format!("sample --model {recipe} --steps 2 --count 4"),
        );
        assert_eq!(text.lines().count(), 4);

        // Stopped before the second round, and resumed.
        for gone in ["rounds/2", "model", "checkpoints"] {
            fs::remove_dir_all(folder.path(&format!("{recipe}/{gone}"))).unwrap();
        }
        let resume = format!("distill --data data --out {recipe} --resume");
        printed(&folder, &resume);
        assert!(weights(recipe) == whole, "{recipe}");
        // A finished run does not change.
        let before = contents(&folder.path(recipe));
        printed(&folder, &resume);
        assert!(contents(&folder.path(recipe)) == before);
        assert_eq!(
            folder.refused(folder.flm(&format!("{resume} --set train.steps=9"))),
            format!(
                "{recipe} is distilled in rounds and cannot be resumed with other settings: distill.train.steps was 3, now 9"
            )
        );
        // The budget is shared evenly: it pays for two and a half steps per round, so two are
        // taken.
        let evaluations = 3 * 8 * cost * 5 / 2;
        printed(
            &folder,
            &format!("{distill} --evaluations {evaluations} --force"),
        );
        let card = read(&folder, &format!("{recipe}/model/run.json"));
        assert_eq!(card["training"]["evaluations"], 3 * 2 * 8 * cost);
        // A resumed run keeps its share.
        fs::remove_dir_all(folder.path(&format!("{recipe}/model"))).unwrap();
        printed(&folder, &resume);
        let card = read(&folder, &format!("{recipe}/model/run.json"));
        assert_eq!(card["training"]["evaluations"], 3 * 2 * 8 * cost);
        assert_eq!(
            folder.refused(folder.flm(&format!("{resume} --evaluations {}", 2 * evaluations))),
            format!(
                "{recipe} is distilled in rounds and cannot be resumed with other settings: distill.train.steps was 2, now 5"
            )
        );
        // A shorter distillation that replaces it removes the old rounds.
        printed(
            &folder,
            &format!("{distill} --set {recipe}.rounds=1 --force"),
        );
        assert!(!folder.path(&format!("{recipe}/rounds")).exists());
    }
}

#[test]
fn what_a_family_does_not_have_is_refused() {
    let folder = trained(&[]);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    fs::write(folder.path("corpus.txt"), "a sentence\n").unwrap();
    for (words, expected) in [
        (
            "sample --model mdlm --steps 2 --gamma 0.5",
            "mdlm is of family mdlm: only a flow map with one network supports a gamma above 0, found 0.5",
        ),
        (
            "sample --model duo --steps 2 --trace trace.json",
            "duo is of kind duo: only a flow or a flow map of one network has a trace",
        ),
        (
            "sample --model mdlm --steps 2 --greedy-tail",
            "mdlm is of family mdlm: only a duo model supports a greedy tail",
        ),
        (
            "sample --model duo --steps 2 --top-p 1.5",
            "top-p must lie between 0 and 1, found 1.5",
        ),
        (
            "sample --model autoregressive --steps 4",
            "autoregressive is autoregressive and takes one step for each of its 24 tokens: omit `steps`",
        ),
        (
            "eval corpus.txt --scorer flow",
            "--scorer flow: a model folder must be autoregressive to score, found flow",
        ),
        (
            "eval corpus.txt --scorer mdlm",
            "--scorer mdlm: a model folder must be autoregressive to score, found mdlm",
        ),
        (
            "eval bound mdlm flow --data data",
            "flow must be of family mdlm, duo or autoregressive to have a likelihood, found flow",
        ),
        (
            "eval bound mdlm --data data --draws 0",
            "--draws must be at least 1, found 0",
        ),
        (
            "distill --teacher autoregressive --data data --out map",
            "autoregressive/model is autoregressive: distillation of such a model is unsupported",
        ),
        (
            "distill --self --data data --out map --set model.family=duo",
            "only a flow map can be distilled without a teacher, but model.family is duo",
        ),
        (
            "distill --teacher mdlm --data data --out few --set flow_map.objective=semigroup",
            "--set flow_map.objective=semigroup: [flow_map] is for teachers of family flow, found mdlm",
        ),
        (
            "distill --teacher mdlm --data data --out few --set dcd.rounds=2",
            "--set dcd.rounds=2: [dcd] is for teachers of family duo, found mdlm",
        ),
        (
            "doctor --set train.batch=3",
            "--set train.batch=3 changes a preset: choose one with --preset",
        ),
        (
            "distill --teacher mdlm --data data --out few --set sdtt.rounds=0",
            "0 rounds of sdtt with a first step of 0.0009765625 are invalid: at least 1 round is needed, and the last step must be at most 0.5",
        ),
        (
            "distill --teacher mdlm --data data --out mdlm --force",
            "the teacher mdlm/model is in the run that would be replaced, mdlm",
        ),
        (
            "distill --teacher duo --data data --out few --evaluations 100",
            "--evaluations 20 is too small: one step takes 32 network evaluations",
        ),
        (
            "train --data data --out x --set model.family=duo --set curriculum.gamma=[1]",
            "the configuration: gamma must be two numbers or none, found 1 in `curriculum.gamma`",
        ),
        (
            "train --data data --out x --set model.family=duo --set curriculum.gamma=[1,0]",
            "curriculum.gamma must grow from first to last, found 1 and 0",
        ),
    ] {
        assert_eq!(folder.refused(folder.flm(words)), expected, "{words}");
    }
    let message = folder.refused(folder.flm("train --data data --out x --set model.family=mdlmm"));
    assert!(
        message.contains(
            "unknown variant `mdlmm`, expected one of `flow`, `mdlm`, `duo`, `autoregressive`"
        ),
        "{message}"
    );
}
