//! The `flm presets` command.

use super::print;
use crate::error::Result;
use crate::presets;
use clap::Args;

/// List the presets, or show one as TOML; `flm presets defaults` shows all settings
#[derive(Debug, Args)]
pub(crate) struct PresetsArgs {
    /// Preset to show
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

pub(crate) fn run(args: &PresetsArgs) -> Result<()> {
    match &args.name {
        None => {
            let width = presets::list()
                .map(|(name, _)| name.len())
                .max()
                .unwrap_or(0);
            print(
                &presets::list()
                    .map(|(name, line)| format!("{name:width$}  {line}\n"))
                    .collect::<String>(),
            )
        }
        Some(name) if name == "defaults" => print(&presets::defaults()),
        Some(name) => match presets::text(name) {
            Some(text) => print(text),
            // The error names the nearest preset.
            None => presets::load(name).map(drop),
        },
    }
}
