//! A server in a thread, and requests to it.
#![allow(dead_code, reason = "each test file uses its part")]

use flm::backend::{Autodiff, Flex};
use flm::denoiser::folder::Existing;
use flm::{DitConfig, Layout, Model, ModelFolder, Rows, TextTokenizer, TrainConfig, Trainer};
use flm_server::{Engine, Loaded, Settings, Source};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running server; stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start<L>(settings: Settings, models: Vec<Source>, load: L) -> Self
    where
        L: Fn(&Source) -> flm::Result<Arc<dyn Engine>> + Send + Sync + 'static,
    {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (sender, receiver) = mpsc::channel();
        let settings = Settings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..settings
        };
        let thread = std::thread::spawn(move || {
            let ready = |address| sender.send(address).unwrap();
            let stop = async {
                let _ = stopped.await;
            };
            flm_server::serve_until(settings, models, load, ready, stop).unwrap();
        });
        Self {
            address: receiver.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Serves models from their folders.
    pub(crate) fn of_folders(settings: Settings, models: &[(&str, &Path)]) -> Self {
        let source = |&(name, path): &(&str, &Path)| Source {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        Self::start(settings, models.iter().map(source).collect(), |source| {
            let folder = ModelFolder::open(&source.path)?.named(&source.name);
            Ok(Arc::new(Loaded::new(
                folder.load::<Flex>(&Default::default())?,
                2,
            )))
        })
    }

    /// Asks the server to stop.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the server has stopped.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends JSON; returns the status and the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = ureq::post(&self.url(path)).send_string(&body.to_string());
        read(answer)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let answer = ureq::get(&self.url(path)).call().unwrap();
        answer.into_string().unwrap()
    }

    /// The events of a stream: name and data.
    pub(crate) fn events(&self, path: &str, body: &Value) -> Vec<(String, Value)> {
        let answer = ureq::post(&self.url(path)).send_string(&body.to_string());
        let text = answer.unwrap().into_string().unwrap();
        let event = |text: &str| {
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ")?;
            let value = serde_json::from_str(data).unwrap_or_else(|_| data.into());
            Some((field("event: ").unwrap_or_default().to_owned(), value))
        };
        text.split("\n\n").filter_map(event).collect()
    }

    /// Sends bytes; returns what comes back until the server closes or two seconds pass.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        answer_of(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

pub(crate) fn answer_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        bytes.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn read(answer: Result<ureq::Response, ureq::Error>) -> (u16, Value) {
    let answer = match answer {
        Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
        Err(error) => panic!("no answer: {error}"),
    };
    let status = answer.status();
    let text = answer.into_string().unwrap_or_default();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub(crate) const LENGTH: usize = 8;
const TEXTS: [&str; 4] = ["a b c", "b a", "a a b", "b c a b"];

/// Saves a small flow, trained for a few steps.
pub(crate) fn save_flow(folder: &Path) -> Model<Flex> {
    let words = TextTokenizer::from_words(["a", "b", "c"]).unwrap();
    let rows = Rows::from_texts(words, Layout::Rows, LENGTH, &TEXTS).unwrap();
    let config = DitConfig::new(rows.tokenizer().vocab_size(), rows.length(), 16, 1, 2);
    let settings = TrainConfig {
        steps: 20,
        batch: 4,
        micro_batch: 4,
        ..Default::default()
    };
    let trainer = Trainer::<Autodiff<Flex>, _>::flow(config, &rows, settings, &Default::default());
    let trained = trainer.unwrap().train().unwrap();
    trained.model.save(folder, Existing::Refuse).unwrap();
    Model::load(folder, &Default::default()).unwrap()
}

/// Saves a masked diffusion with random weights.
pub(crate) fn save_masked(folder: &Path) -> Model<Flex> {
    let words = TextTokenizer::from_words(["a", "b", "c"]).unwrap();
    let config = DitConfig {
        family: flm::denoiser::Family::Mdlm,
        ..DitConfig::new(words.vocab_size(), LENGTH, 16, 1, 2)
    };
    let mut rng = flm::simplex::stream::generator(0, 0, 0, 0);
    let network = config.init::<Flex>(&mut rng, &Default::default()).unwrap();
    let card = flm::Card::new("mdlm", Layout::Rows, config.parameter_count() as u64);
    let model = Model::new(network, config, words, card).unwrap();
    model.save(folder, Existing::Refuse).unwrap();
    Model::load(folder, &Default::default()).unwrap()
}
