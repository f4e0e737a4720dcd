//! `flm watch`, `flm trace render` and `flm serve`.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use support::Folder;

fn trained() -> Folder {
    let folder = Folder::new();
    folder.data("data", 100);
    folder
        .tiny("train --data data --out flow")
        .assert()
        .success();
    folder
}

fn output(folder: &Folder, words: &str) -> String {
    let output = folder.flm(words).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn without_a_terminal_each_step_is_a_line() {
    let folder = trained();
    let lines = output(&folder, "watch flow --steps 3 --count 2 --seed 4");
    let (steps, texts) = lines.split_once("text\n").unwrap();
    assert_eq!(steps.matches("τ = ").count(), 3);
    assert_eq!(steps.lines().count(), 3 * 3);
    let sampled = output(&folder, "sample --model flow --steps 3 --count 2 --seed 4");
    let texts: Vec<&str> = texts.lines().map(str::trim_start).collect();
    assert_eq!(texts, sampled.lines().collect::<Vec<_>>());
}

#[test]
fn a_trace_becomes_a_page_and_a_picture() {
    let folder = trained();
    for (steps, trace) in [(3, "three.json"), (1, "one.json")] {
        let words = format!(
            "sample --model flow --steps {steps} --count 2 --trace {trace} --out {steps}.jsonl"
        );
        folder.flm(&words).assert().success();
    }
    output(
        &folder,
        "trace render three.json one.json --samples 2 --out picture.svg",
    );
    let picture = std::fs::read_to_string(folder.path("picture.svg")).unwrap();
    // Noise, a frame for each step, and the text.
    assert_eq!(picture.matches("@keyframes").count(), (3 + 2) + (1 + 2));
    output(
        &folder,
        "trace render three.json --samples 1 --out page.html",
    );
    let page = std::fs::read_to_string(folder.path("page.html")).unwrap();
    let (_, rest) = page.split_once("id=\"trace\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data[0]["trace"].as_array().unwrap().len(), 3);
    assert!(!page.contains("src=") && !page.contains("/*TRACE*/"));

    for (words, message) in [
        (
            "trace render one.json --samples 9 --out x.svg",
            "error: one.json has 2 samples, --samples is 9",
        ),
        (
            "trace render one.json --out x.png --samples 1",
            "error: x.png must end in .html or .svg",
        ),
        (
            "trace render data/dataset.json --out x.svg",
            "error: data/dataset.json is not a trace: it has no list `samples`",
        ),
        (
            "trace render one.json --samples 1 --out page.html",
            "error: page.html exists already",
        ),
        ("watch data", "error: data is neither a model folder"),
        (
            "serve nothing",
            "error: cannot open nothing: No such file or directory",
        ),
        (
            "serve a=flow a=flow",
            "error: two models have the identifier `a`",
        ),
        (
            "serve flow --api-keys 1.jsonl.gz",
            "error: cannot read 1.jsonl.gz",
        ),
    ] {
        let found = folder.refused(folder.flm(words));
        assert!(
            format!("error: {found}").contains(message) || found.contains(message),
            "{found}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_served_model_answers_until_it_is_told_to_stop() {
    let folder = trained();
    let mut server = Command::new(env!("CARGO_BIN_EXE_flm"))
        .current_dir(folder.0.path())
        .args(["serve", "flow", "--port", "0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("serving flow at http://")
        .unwrap()
        .to_owned();
    let ask = || {
        let body = "{\"steps\": 2, \"seed\": 5}";
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "POST /v1/denoise HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let text = output(&folder, "sample --model flow --steps 2 --count 1 --seed 5");
    let text = format!("\"text\":{}", serde_json::json!(text.trim_end()));
    let answer = ask();
    assert!(answer.contains(&text), "no {text} in {answer}");
    let signal = |name: &str| {
        let id = server.id().to_string();
        Command::new("kill").args([name, &id]).status().unwrap();
    };
    signal("-HUP");
    loop {
        line.clear();
        log.read_line(&mut line).unwrap();
        if line.contains("reloaded") {
            break;
        }
    }
    assert!(ask().contains(&text));
    signal("-TERM");
    assert!(server.wait().unwrap().success());
}
