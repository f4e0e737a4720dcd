//! The `flm serve` command.

use crate::args::DeviceArgs;
use crate::device::{self, Job, Place};
use crate::error::{CliError, Result};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm::ModelFolder;
use flm_server::{Engine, Loaded, Settings, Source};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Serve models over HTTP, with a web page
///
/// The routes are those of the OpenAI API (/v1/models, /v1/completions), /v1/denoise, which reports
/// every step, /metrics, /healthz and /readyz. The page at / shows how a text is written. SIGHUP
/// loads the models again; SIGTERM finishes what runs.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  flm serve quickstart/fmlm quickstart/flm
  flm serve small=runs/small/model --port 80 --host 0.0.0.0 --api-keys keys.txt
  curl localhost:8080/v1/completions -d '{\"model\": \"fmlm\", \"prompt\": \"the old king\"}'")]
pub(crate) struct ServeArgs {
    /// Model folders or finished runs; NAME=DIR sets the name [default: the folder's name]
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Address to listen on; 0.0.0.0 accepts other machines
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Sequences drawn together
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = positive)]
    max_batch: usize,
    /// Sequences of a model that may wait; more get the status 429
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = positive)]
    queue: usize,
    /// Seconds in which a request must be answered
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = positive)]
    timeout: usize,
    /// Open connections; further ones wait
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = positive)]
    connections: usize,
    /// File of accepted API keys, one per line [default: no key is needed]
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Origin whose pages may call the server, such as https://example.org
    #[arg(long, value_name = "URL")]
    cors_origin: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let models = args.models.iter().map(|model| source(model));
    let models = models.collect::<Result<Vec<_>>>()?;
    for model in &models {
        ModelFolder::open(&model.path)?;
    }
    let settings = Settings {
        address: SocketAddr::new(args.host, args.port),
        max_batch: args.max_batch,
        queue: args.queue,
        timeout: Duration::from_secs(args.timeout as u64),
        connections: args.connections,
        keys: args.api_keys.as_deref().map_or(Ok(Vec::new()), keys)?,
        cors: args.cors_origin.clone(),
    };
    device::run(args.device, ServeJob { models, settings })
}

/// Reads `NAME=DIR` or `DIR`.
fn source(model: &str) -> Result<Source> {
    if let Some((name, path)) = model.split_once('=')
        && !Path::new(model).exists()
    {
        return Ok(Source {
            name: name.to_owned(),
            path: path.into(),
        });
    }
    let path = fs::canonicalize(model).map_err(CliError::io("open", Path::new(model)))?;
    // The model of a run is called as the run.
    let named = if path.ends_with("model") {
        path.parent().unwrap_or(&path)
    } else {
        &path
    };
    let name = named.file_name().unwrap_or(named.as_os_str());
    Ok(Source {
        name: name.to_string_lossy().into_owned(),
        path: model.into(),
    })
}

/// Reads the keys of a file, one per line.
fn keys(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(CliError::io("read", path))?;
    let keys: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect();
    if keys.is_empty() {
        return Err(CliError::input(format!(
            "{} has no API key, expected one per line",
            path.display()
        )));
    }
    Ok(keys)
}

struct ServeJob {
    models: Vec<Source>,
    settings: Settings,
}

impl Job for ServeJob {
    type Output = ();

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<()> {
        let (device, execution, side_by_side) =
            (place.device.clone(), place.execution, place.side_by_side);
        let load = move |source: &Source| -> flm::Result<Arc<dyn Engine>> {
            let folder = ModelFolder::open(&source.path)?.named(&source.name);
            let model = folder
                .load::<B::InnerBackend>(&device)?
                .with_execution(execution);
            Ok(Arc::new(Loaded::new(model, side_by_side)))
        };
        let names: Vec<&str> = self.models.iter().map(|model| &*model.name).collect();
        let names = names.join(", ");
        let ready = move |address| eprintln!("serving {names} at http://{address}");
        Ok(flm_server::serve(self.settings, self.models, load, ready)?)
    }
}
