//! The model card: how a model came to be, for people (`README.md`) and for programs (`run.json`).

use crate::config::Config;
use crate::error::{CliError, Result};
use crate::files;
use crate::stages::sample;
use flm_data::Layout;
use flm_denoiser::{DitConfig, Family};
use flm_distill::ObjectiveKind;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// In a model folder: the card for programs.
pub(crate) const FILE: &str = "run.json";
/// Version of `run.json` that is written. Version 1 had no `tokenizer_hash`, version 2 no `evaluations`, up to version 3 every model was
/// made by a run, and up to version 4 in f32.
pub(crate) const FORMAT: u32 = 5;

/// The run that made a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) format_version: u32,
    /// "flow", "flow map", "residual flow map", or another family: "mdlm", "duo", "autoregressive".
    pub(crate) kind: String,
    pub(crate) command: String,
    pub(crate) flm_version: String,
    pub(crate) seed: u64,
    pub(crate) data_hash: String,
    pub(crate) data_source: String,
    /// Of the tokenizer that the model was trained with.
    #[serde(default)]
    pub(crate) tokenizer_hash: Option<String>,
    pub(crate) layout: Layout,
    pub(crate) steps: u64,
    /// Evaluations of the network that the steps took, as `flm_distill::cost` counts them.
    #[serde(default)]
    pub(crate) evaluations: Option<u64>,
    pub(crate) seconds: f64,
    /// What matrix products were made of.
    #[serde(default = "sample::single")]
    pub(crate) dtype: String,
    pub(crate) parameters: usize,
    pub(crate) validation_loss: Option<f64>,
}

impl Card {
    /// The card of a model folder that a run made; models from elsewhere have none.
    pub(crate) fn read(model: &Path) -> Result<Option<Self>> {
        parse(model)
    }

    /// The card for people.
    pub(crate) fn readme(&self, network: &DitConfig, config: &Config) -> Result<String> {
        let settings = config.of_run()?;
        let (title, what) = about(network);
        let loss = self.validation_loss.map_or_else(
            || "none: too few validation rows".to_owned(),
            // Of a flow map some rows may be squared distances.
            |loss| {
                let unit = if network.two_time { "" } else { " nats" };
                format!("{loss:.4}{unit} a token")
            },
        );
        let sample = match (network.family, network.two_time) {
            (Family::Autoregressive, _) => String::new(),
            (_, true) if config.distill.flow_map.objective == ObjectiveKind::Distribution => {
                format!(" --steps {}", config.distill.distribution.levels)
            }
            (_, true) => " --steps 4".to_owned(),
            _ => " --steps 128".to_owned(),
        };
        Ok(format!(
            "# {title}\n\n{what}\n\n\
             | | |\n| --- | --- |\n\
             | command | `{command}` |\n\
             | version | flm {version} |\n\
             | network | {blocks} blocks of width {width}, {heads} heads, {parameters} parameters |\n\
             | text | {vocab} tokens, {length} in a sequence |\n\
             | data | {source}, hash {hash} |\n\
             | steps | {steps} |\n\
             | network evaluations | {evaluations} |\n\
             | seconds | {seconds:.0} |\n\
             | matrix products | {dtype} |\n\
             | seed | {seed} |\n\
             | validation loss | {loss} |\n\n\
             The weights are the exponential moving average of the run. Try them:\n\n\
             ```console\n$ flm sample --model .{sample} --count 10\n```\n\n\
             ## Settings\n\n```toml\n{settings}```\n",
            command = self.command,
            version = self.flm_version,
            blocks = network.blocks,
            width = network.width,
            heads = network.heads,
            parameters = self.parameters,
            vocab = network.vocab_size,
            length = network.length,
            source = self.data_source,
            hash = self.data_hash,
            steps = self.steps,
            evaluations = self
                .evaluations
                .map_or_else(|| "not counted".to_owned(), |n| n.to_string()),
            seconds = self.seconds,
            dtype = self.dtype,
            seed = self.seed,
        ))
    }
}

/// What a network is, and what it does.
fn about(network: &DitConfig) -> (&'static str, &'static str) {
    match (network.family, network.residual, network.two_time) {
        (Family::Flow, true, _) => (
            "Residual flow map",
            "A residual flow map language model: a flow (in `denoiser`) and a second network beside it, which jump from noise to text in a few steps.",
        ),
        (Family::Flow, _, true) => (
            "Flow map",
            "A flow map language model: it jumps from noise to text in one step or a few.",
        ),
        (Family::Flow, _, _) => (
            "Flow",
            "A flow language model: it denoises noise to text in many small steps.",
        ),
        (Family::Mdlm, _, _) => (
            "Masked diffusion",
            "A masked diffusion language model (family `mdlm`): it fills blanks with tokens, some in each step.",
        ),
        (Family::Duo, _, _) => (
            "Uniform-state diffusion",
            "A uniform-state diffusion language model (family `duo`): it turns random tokens into text, some in each step.",
        ),
        (Family::Autoregressive, _, _) => (
            "Autoregression",
            "An autoregressive language model (family `autoregressive`): it writes one token after the other.",
        ),
    }
}

/// What is asked of the card of a model folder, if it has one.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(model: &Path) -> Result<Option<T>> {
    let path = model.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = files::read(&path)?;
    let wrong = |error: serde_json::Error| {
        CliError::input(format!("{} is not a model card: {error}", path.display()))
    };
    // The version first: what a later one changed should not look like a mistake.
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = serde_json::from_str(&text).map_err(wrong)?;
    if !(1..=FORMAT).contains(&format_version) {
        return Err(CliError::input(format!(
            "{} has format version {format_version}, but only versions up to {FORMAT} are known",
            path.display()
        )));
    }
    Ok(Some(serde_json::from_str(&text).map_err(wrong)?))
}
