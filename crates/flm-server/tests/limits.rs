//! Limits, faults and hostile clients.

mod support;

use flm::{Sample, SampleOptions};
use flm_server::{About, Engine, Settings, Source, Watch};
use serde_json::json;
use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use support::{Server, answer_of, read, save_flow};

/// A model that waits until it is released; it panics at seed 13.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    batches: AtomicUsize,
    rows: AtomicUsize,
}

impl Gate {
    fn release(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

struct Slow(Arc<Gate>, About);

impl Engine for Slow {
    fn about(&self) -> &About {
        &self.1
    }

    fn check(&self, _: &SampleOptions) -> flm::Result<()> {
        Ok(())
    }

    fn sample(&self, requests: &[SampleOptions], _: &dyn Watch) -> flm::Result<Vec<Vec<Sample>>> {
        assert!(requests.iter().all(|request| request.seed != 13), "unlucky");
        let mut open = self.0.open.lock().unwrap();
        while !*open {
            open = self.0.changed.wait(open).unwrap();
        }
        drop(open);
        self.0.batches.fetch_add(1, Ordering::Relaxed);
        let sample = |text: String| Sample {
            text,
            tokens: vec![7, 1],
            condition: None,
        };
        Ok(requests
            .iter()
            .map(|request| {
                self.0.rows.fetch_add(request.count, Ordering::Relaxed);
                vec![sample(request.seed.to_string()); request.count]
            })
            .collect())
    }

    fn decode(&self, tokens: &[u32]) -> flm::Result<String> {
        Ok("x".repeat(tokens.len()))
    }

    fn token(&self, _: u32) -> String {
        "x".to_owned()
    }
}

fn slow(settings: Settings) -> (Server, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let shared = Arc::clone(&gate);
    let models = vec![Source {
        name: "slow".to_owned(),
        path: "slow".into(),
    }];
    let server = Server::start(settings, models, move |_| {
        let about = About {
            kind: "flow",
            length: 2,
            vocabulary: 8,
            parameters: 0,
            layout: flm::Layout::Rows,
            default_steps: Some(4),
            has_frames: false,
            weights: String::new(),
            end: 1,
            padding: 0,
        };
        Ok(Arc::new(Slow(Arc::clone(&shared), about)))
    });
    (server, gate)
}

#[test]
fn a_full_queue_answers_429_and_the_rest_is_batched() {
    let (server, gate) = slow(Settings {
        max_batch: 8,
        queue: 16,
        ..Settings::default()
    });
    let statuses = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 20..60 {
            let (server, statuses) = (&server, &statuses);
            scope.spawn(move || {
                let (status, answer) = server.post("/v1/denoise", &json!({"seed": seed}));
                if status == 200 {
                    assert_eq!(answer["samples"][0]["text"], seed.to_string());
                }
                statuses.lock().unwrap().push(status);
            });
        }
        // At most one batch runs and the queue waits; the rest is refused before the gate opens.
        let end = Instant::now() + Duration::from_secs(20);
        while statuses.lock().unwrap().len() < 40 - 8 - 16 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        gate.release();
    });
    let statuses = statuses.into_inner().unwrap();
    let of = |status| statuses.iter().filter(|&&found| found == status).count();
    assert_eq!(of(200) + of(429), 40, "{statuses:?}");
    assert!((17..=24).contains(&of(200)), "{statuses:?}");
    assert_eq!(gate.rows.load(Ordering::Relaxed), of(200));
    assert!(gate.batches.load(Ordering::Relaxed) <= 4);

    let answer = ureq::get(&server.url("/metrics"))
        .call()
        .unwrap()
        .into_string()
        .unwrap();
    assert!(answer.contains("status=\"429\""), "{answer}");
}

#[test]
fn a_slow_model_answers_504_and_a_panic_500_and_the_server_goes_on() {
    let (server, gate) = slow(Settings {
        timeout: Duration::from_millis(300),
        ..Settings::default()
    });
    let (status, answer) = server.post("/v1/denoise", &json!({"seed": 1}));
    assert_eq!(status, 504, "{answer}");
    gate.release();
    let (status, answer) = server.post("/v1/denoise", &json!({"seed": 13}));
    assert_eq!(
        (status, &answer["error"]["message"]),
        (500, &json!("internal error"))
    );
    let (status, _) = server.post("/v1/denoise", &json!({"seed": 2}));
    assert_eq!(status, 200);
}

#[test]
fn shutdown_finishes_what_runs() {
    let (mut server, gate) = slow(Settings::default());
    let url = server.url("/v1/denoise");
    let running = std::thread::spawn(move || read(ureq::post(&url).send_string("{\"seed\": 4}")));
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        ureq::get(&server.url("/healthz")).call().is_err(),
        "new connections are refused"
    );
    gate.release();
    let (status, answer) = running.join().unwrap();
    assert_eq!((status, &answer["samples"][0]["text"]), (200, &json!("4")));
    server.join();
}

#[test]
fn a_key_is_needed_where_there_are_keys() {
    let (server, gate) = slow(Settings {
        keys: vec!["one".to_owned(), "two".to_owned()],
        ..Settings::default()
    });
    gate.release();
    for (header, status) in [
        (None, 401),
        (Some("Bearer"), 401),
        (Some("Bearer "), 401),
        (Some("Bearer three"), 401),
        (Some("one"), 401),
        (Some("Bearer one"), 200),
        (Some("Bearer two"), 200),
    ] {
        let request = ureq::get(&server.url("/v1/models"));
        let request = match header {
            Some(value) => request.set("Authorization", value),
            None => request,
        };
        assert_eq!(read(request.call()).0, status, "{header:?}");
    }
    assert_eq!(server.get("/healthz"), "ok\n");
}

#[test]
fn other_origins_are_refused_unless_allowed() {
    let preflight = |server: &Server| {
        server.raw(
            b"OPTIONS /v1/models HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\
              access-control-request-method: GET\r\nconnection: close\r\n\r\n",
        )
    };
    let from = |server: &Server, origin: &str| {
        let request = ureq::get(&server.url("/v1/models")).set("Origin", origin);
        read(request.call()).0
    };
    let (server, _) = slow(Settings::default());
    assert!(!preflight(&server).contains("access-control-allow-origin"));
    assert_eq!(from(&server, "https://a.example"), 403);
    assert_eq!(from(&server, &server.url("")), 200);
    let (server, _) = slow(Settings {
        cors: Some("https://a.example".to_owned()),
        ..Settings::default()
    });
    assert!(preflight(&server).contains("access-control-allow-origin: https://a.example"));
    assert_eq!(from(&server, "https://a.example"), 200);
    assert_eq!(from(&server, "https://b.example"), 403);
}

#[test]
fn hostile_clients_get_errors_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let flow = folder.path().join("flow");
    save_flow(&flow);
    let server = Server::of_folders(Settings::default(), &[("flow", &flow)]);
    let post = |length: usize, body: &[u8]| {
        let mut request = format!("POST /v1/denoise HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        request
    };
    let deep = format!("{{\"prompt\": {}", "[".repeat(100_000));
    let deep = String::from_utf8(post(deep.len(), deep.as_bytes())).unwrap();
    let deep = deep.replacen("/v1/denoise", "/v1/completions", 1);
    let large = vec![b' '; 2 << 20];
    for (name, bytes, expected) in [
        ("invalid UTF-8", post(9, b"{\"prompt\xff"), "400"),
        ("deep JSON", deep.into_bytes(), "recursion limit exceeded"),
        ("a large body", post(large.len(), &large), "413"),
        ("a body of 10 GB", post(10 << 30, b"{}"), "413"),
        (
            "not JSON",
            post(3, b"abc"),
            "the body is not a valid request",
        ),
        ("two values", post(4, b"{}{}"), "trailing characters"),
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n".to_vec(),
            "400",
        ),
        (
            "a huge header",
            [
                b"GET / HTTP/1.1\r\nx: ".as_slice(),
                &vec![b'a'; 1 << 20],
                b"\r\n\r\n",
            ]
            .concat(),
            "431",
        ),
    ] {
        let answer = server.raw(&bytes);
        assert!(answer.contains(expected), "{name}: {answer:.300}");
    }
    // Half of a request, half-closed streams, a stream that nobody reads, clients that vanish.
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut half = server.connect();
        half.write_all(&post(100, b"{\"n\": ")).unwrap();
        let mut closed = server.connect();
        closed
            .write_all(&post(30, b"{\"stream\": true, \"steps\": 20 }"))
            .unwrap();
        closed.shutdown(Shutdown::Write).unwrap();
        let mut gone = server.connect();
        gone.write_all(&post(39, b"{\"stream\": true, \"steps\": 500, \"n\": 9 }"))
            .unwrap();
        drop(gone);
        silent.push((half, closed));
    }
    let (_, closed) = &mut silent[0];
    // A client that closes its side is gone: its connection ends.
    let start = Instant::now();
    answer_of(closed);
    assert!(start.elapsed() < Duration::from_secs(1));
    let (status, answer) = server.post("/v1/denoise", &json!({"seed": 1, "steps": 2}));
    assert_eq!(status, 200, "{answer}");
    drop(silent);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = server.get("/metrics");
        // The connection that asks is open.
        if metrics.contains("flm_connections 1\n")
            && metrics.contains("flm_queue_rows{model=\"flow\"} 0")
        {
            break;
        }
        assert!(Instant::now() < end, "{metrics}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
