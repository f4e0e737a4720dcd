//! Routes with real models.

mod support;

use flm::{Conditioning, SampleOptions};
use flm_server::Settings;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{LENGTH, Server, save_flow, save_masked};

#[test]
fn completions_are_those_of_the_library_in_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (flow, masked) = (folder.path().join("flow"), folder.path().join("masked"));
    let (model, rival) = (save_flow(&flow), save_masked(&masked));
    let server = Server::of_folders(Settings::default(), &[("flow", &flow), ("masked", &masked)]);
    let list: Value = serde_json::from_str(&server.get("/v1/models")).unwrap();
    assert_eq!(list["data"][0]["id"], "flow");
    assert_eq!(list["data"][1]["kind"], "mdlm");
    assert_eq!(list["data"][0]["default_steps"], 32);

    std::thread::scope(|scope| {
        for seed in 0..12 {
            let (server, model, rival) = (&server, &model, &rival);
            scope.spawn(move || {
                let (name, model) = if seed % 3 == 0 {
                    ("masked", rival)
                } else {
                    ("flow", model)
                };
                let prompt = ["a", "b", "c a"][seed % 3];
                let (count, steps) = (1 + seed % 4, 2 + seed % 2);
                let options = SampleOptions::steps(steps)
                    .count(count)
                    .seed(seed as u64)
                    .conditioning(Conditioning::prompt(prompt));
                let expected = model.sample(options).unwrap();
                let body = json!({
                    "model": name, "prompt": prompt, "n": count, "seed": seed, "steps": steps,
                });
                let (status, answer) = server.post("/v1/denoise", &body);
                assert_eq!(status, 200, "{answer}");
                let samples = answer["samples"].as_array().unwrap();
                let tokens: Vec<&Value> = samples.iter().map(|one| &one["tokens"]).collect();
                let known: Vec<Value> =
                    expected.iter().map(|sample| json!(sample.tokens)).collect();
                assert_eq!(tokens, known.iter().collect::<Vec<_>>(), "{name} {seed}");

                // A completion ends before padding.
                let (_, answer) = server.post("/v1/completions", &body);
                for (choice, sample) in answer["choices"].as_array().unwrap().iter().zip(&expected)
                {
                    let text = choice["text"].as_str().unwrap();
                    assert!(
                        sample.text.starts_with(&format!("{prompt}{text}")),
                        "{text}"
                    );
                    assert!(!text.contains("[PAD]"), "{text}");
                }
            });
        }
    });

    let (_, answer) = server.post(
        "/v1/completions",
        &json!({"prompt": ["a", ""], "n": 2, "seed": 1, "max_tokens": 2, "logprobs": 2}),
    );
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    for (i, choice) in choices.iter().enumerate() {
        let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
        assert!(tokens.len() <= 2, "{choice}");
        assert_eq!(choice["index"], i);
        for (token, top) in tokens
            .iter()
            .zip(choice["logprobs"]["top_logprobs"].as_array().unwrap())
        {
            assert!(top.get(token.as_str().unwrap()).is_some(), "{choice}");
        }
    }
    let used = answer["usage"].clone();
    assert_eq!(used["prompt_tokens"], 1);
    let sum = used["prompt_tokens"].as_u64().unwrap() + used["completion_tokens"].as_u64().unwrap();
    assert_eq!(used["total_tokens"], sum);

    let metrics = server.get("/metrics");
    assert!(
        metrics.contains("flm_requests_total{route=\"/v1/completions\",status=\"200\"} 13"),
        "{metrics}"
    );
    assert!(
        metrics.contains("flm_batch_rows_count{model=\"flow\"}"),
        "{metrics}"
    );
    assert_eq!(server.get("/readyz"), "ready\n");
}

#[test]
fn a_stop_text_ends_a_completion_and_a_stream_repeats_it() {
    let folder = tempfile::tempdir().unwrap();
    let flow = folder.path().join("flow");
    save_flow(&flow);
    let server = Server::of_folders(Settings::default(), &[("flow", &flow)]);
    let body = json!({"prompt": "a", "seed": 3, "n": 6, "steps": 2});
    let (_, whole) = server.post("/v1/completions", &body);
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        choices
            .iter()
            .map(|one| one["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut stopped = body.clone();
    stopped["stop"] = json!("b");
    let (_, cut) = server.post("/v1/completions", &stopped);
    for (text, cut) in texts(&whole).iter().zip(texts(&cut)) {
        assert_eq!(text.split('b').next().unwrap(), cut);
    }
    assert!(texts(&whole).iter().any(|text| text.contains('b')));

    let mut streamed = body;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let events = server.events("/v1/completions", &streamed);
    assert_eq!(events.len(), 6 + 2);
    let parts: Vec<String> = events[..6]
        .iter()
        .flat_map(|(_, data)| texts(data))
        .collect();
    assert_eq!(parts, texts(&whole));
    assert_eq!(events[6].1["usage"], whole["usage"]);
    assert_eq!(events[7].1, "[DONE]");
}

#[test]
fn every_step_is_an_event_with_its_likeliest_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let flow = folder.path().join("flow");
    let model = save_flow(&flow);
    let settings = Settings {
        max_batch: 2,
        ..Settings::default()
    };
    let server = Server::of_folders(settings, &[("flow", &flow)]);
    let body =
        json!({"steps": 4, "n": 5, "seed": 9, "infill": "a ___ c", "stream": true, "top": 2});
    let events = server.events("/v1/denoise", &body);
    let named = |name: &str| {
        events
            .iter()
            .filter(|(event, _)| event == name)
            .map(|(_, data)| data)
            .collect::<Vec<_>>()
    };
    assert_eq!(named("request")[0]["steps"], 4);
    assert_eq!(named("frame").len(), 4 * 5);
    assert_eq!(named("done").len(), 1);
    let options = SampleOptions::steps(4)
        .count(5)
        .seed(9)
        .conditioning(Conditioning::infill("a ___ c"));
    for (sample, expected) in named("sample").iter().zip(model.sample(options).unwrap()) {
        assert_eq!(sample["tokens"], json!(expected.tokens));
        assert_eq!(sample["open"], json!([1]));
        let frames: Vec<_> = named("frame")
            .into_iter()
            .filter(|frame| frame["sample"] == sample["sample"])
            .collect();
        assert_eq!(frames.len(), 4);
        let taus: Vec<f64> = frames
            .iter()
            .map(|frame| frame["tau"].as_f64().unwrap())
            .collect();
        assert!(taus.windows(2).all(|pair| pair[0] < pair[1]), "{taus:?}");
        let last = frames[3]["positions"].as_array().unwrap();
        assert_eq!(last.len(), LENGTH);
        assert_eq!(last[1].as_array().unwrap().len(), 2);
        assert_eq!(last[1][0]["id"], sample["tokens"][1]);
    }
    let mut whole = body;
    whole["stream"] = json!(false);
    whole["frames"] = json!(true);
    let (_, answer) = server.post("/v1/denoise", &whole);
    let frames: Vec<&Value> = answer["samples"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|sample| sample["frames"].as_array().unwrap())
        .collect();
    assert_eq!(frames.len(), 4 * 5);

    // A hole in known tokens.
    let mut row: Vec<Value> = answer["samples"][0]["tokens"].as_array().unwrap().clone();
    row[0] = Value::Null;
    let (status, again) = server.post(
        "/v1/denoise",
        &json!({"tokens": row, "steps": 2, "seed": 1}),
    );
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["samples"][0]["open"], json!([0]));
}

#[test]
fn a_bad_request_gets_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (flow, masked) = (folder.path().join("flow"), folder.path().join("masked"));
    save_flow(&flow);
    save_masked(&masked);
    let server = Server::of_folders(Settings::default(), &[("flow", &flow), ("masked", &masked)]);
    let long = "a ".repeat(40_000);
    for (path, body, status, message) in [
        (
            "/v1/completions",
            json!({"model": "x"}),
            404,
            "there is no model `x`, expected one of: flow, masked",
        ),
        (
            "/v1/completions",
            json!({"prompt": [1, 2]}),
            400,
            "expected a text or a list of texts; tokens are unsupported, send them to /v1/denoise",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "n": 129}),
            400,
            "at most 128 samples per request are allowed, found 129",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "n": 0}),
            400,
            "the number of samples must be at least 1, found 0",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "temperature": -1}),
            400,
            "temperature",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "temperature": "hot"}),
            400,
            "the body is not a valid request: temperature: invalid type: string \"hot\", expected f64",
        ),
        (
            "/v1/completions",
            json!({"prompt": "dog"}),
            400,
            "prompt: `dog` is not in the vocabulary of 6 tokens",
        ),
        (
            "/v1/completions",
            json!({"prompt": long}),
            400,
            "a text may have at most 65536 bytes, found 80000",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a a a a a a a a a"}),
            400,
            "prompt: 9 tokens, but a text of this model has room for 7",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "best_of": 4}),
            400,
            "best_of is unsupported: omit it",
        ),
        (
            "/v1/completions",
            json!({"model": "masked", "logprobs": 1}),
            400,
            "the probabilities of a mdlm cannot be observed",
        ),
        (
            "/v1/completions",
            json!({"steps": 4000}),
            400,
            "at most 1024 steps per request are allowed, found 4000",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": []}),
            400,
            "the model flow has no chat template: use /v1/completions",
        ),
        (
            "/v1/denoise",
            json!({"prompt": "a", "infill": "___"}),
            400,
            "a request has either prompt and suffix, or infill, or tokens: omit the others",
        ),
        (
            "/v1/denoise",
            json!({"prompts": "a"}),
            400,
            "the body is not a valid request: prompts: unknown field `prompts`",
        ),
        (
            "/v1/denoise",
            json!({"infill": "a ___{9999999999999}"}),
            400,
            "infill: 10000000000000 tokens, but a text of this model has room for 7",
        ),
        (
            "/v1/denoise",
            json!({"frames": true, "n": 128, "steps": 1024, "top": 20}),
            400,
            "at most 1048576 tokens in all frames are allowed, found 20971520",
        ),
        (
            "/v1/denoise",
            json!({"reward": {"scale": 1, "words": vec!["a"; 17]}}),
            400,
            "at most 16 words of 100 bytes are allowed",
        ),
        (
            "/v1/completions",
            json!({"prompt": ["a", "b"], "n": 100}),
            400,
            "at most 128 samples per request are allowed, found 200",
        ),
        (
            "/v1/denoise",
            json!({"model": "masked", "stream": true}),
            400,
            "the steps of a mdlm cannot be observed",
        ),
        (
            "/v1/denoise",
            json!({"model": "masked", "gamma": 0.5}),
            400,
            "masked is of family mdlm: only a flow map with one network supports a gamma above 0, found 0.5",
        ),
        ("/nothing", json!({}), 404, "there is no such route"),
        (
            "/v1/models",
            json!({}),
            405,
            "this route does not support the method",
        ),
    ] {
        let (found, answer) = server.post(path, &body);
        let text = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{path}: {answer}");
        assert!(text.contains(message), "{path}: {text}");
        assert!(
            !answer.to_string().contains(folder.path().to_str().unwrap()),
            "{answer}"
        );
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let flow = folder.path().join("flow");
    save_flow(&flow);
    let server = Server::of_folders(Settings::default(), &[("flow", &flow)]);
    let page = server.get("/");
    let parts: BTreeSet<&str> = page
        .split('"')
        .filter(|text| text.ends_with(".js") || text.ends_with(".css"))
        .collect();
    assert_eq!(parts, BTreeSet::from(["page.css", "page.js"]));
    for part in parts {
        assert!(server.get(&format!("/{part}")).len() > 1000);
    }
    assert!(!page.contains("http"));
}
