//! The model card, `README.md`.

use crate::config::Config;
use crate::error::Result;
use flm::Card;
use flm_denoiser::{DitConfig, Family};

/// Formats the model card of a trained model.
pub(super) fn readme(card: &Card, network: &DitConfig, config: &Config) -> Result<String> {
    let run = card.training.clone().unwrap_or_default();
    let settings = config.of_run()?;
    let (title, what) = about(network);
    let loss = run.validation_loss.map_or_else(
        || "none: too few validation rows".to_owned(),
        // A flow map's loss has no unit: some rows may be squared distances.
        |loss| {
            let unit = if network.two_time { "" } else { " nats" };
            format!("{loss:.4}{unit} per token")
        },
    );
    Ok(format!(
        "# {title}\n\n{what}\n\n\
             | | |\n| --- | --- |\n\
             | command | `{command}` |\n\
             | version | flm {version} |\n\
             | network | {blocks} blocks of width {width}, {heads} heads, {parameters} parameters |\n\
             | text | vocabulary of {vocab} tokens, {length} tokens per sequence |\n\
             | data | {source}, hash {hash} |\n\
             | steps | {steps} |\n\
             | network evaluations | {evaluations} |\n\
             | seconds | {seconds:.0} |\n\
             | matrix products | {dtype} |\n\
             | seed | {seed} |\n\
             | validation loss | {loss} |\n\n\
             The weights are the exponential moving average of the run. Try them:\n\n\
             ```console\n$ flm sample --model .\n```\n\n\
             ## Settings\n\n```toml\n{settings}```\n",
        command = card.command,
        version = card.flm_version,
        blocks = network.blocks,
        width = network.width,
        heads = network.heads,
        parameters = card.parameters,
        vocab = network.vocab_size,
        length = network.length,
        source = run.data_source,
        hash = run.data_hash,
        steps = run.steps,
        evaluations = run.evaluations,
        seconds = run.seconds,
        dtype = run.dtype,
        seed = run.seed,
    ))
}

/// Returns the title and the description of a network.
fn about(network: &DitConfig) -> (&'static str, &'static str) {
    match (network.family, network.residual, network.two_time) {
        (Family::Flow, true, _) => (
            "Residual flow map",
            "A residual flow map language model: a flow (in `denoiser`) and a second network, which together jump from noise to text in a few steps.",
        ),
        (Family::Flow, _, true) => (
            "Flow map",
            "A flow map language model: it jumps from noise to text in one or a few steps.",
        ),
        (Family::Flow, _, _) => (
            "Flow",
            "A flow language model: it turns noise into text in many small steps.",
        ),
        (Family::Mdlm, _, _) => (
            "Masked diffusion",
            "A masked diffusion language model (family `mdlm`): it fills in masked tokens, several per step.",
        ),
        (Family::Duo, _, _) => (
            "Uniform-state diffusion",
            "A uniform-state diffusion language model (family `duo`): it turns random tokens into text, several per step.",
        ),
        (Family::Autoregressive, _, _) => (
            "Autoregressive model",
            "An autoregressive language model (family `autoregressive`): it writes one token after another.",
        ),
    }
}
