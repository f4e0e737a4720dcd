//! Settings from a preset, a file and single keys.

use crate::config::{Config, Overrides};
use crate::error::{CliError, Result};
use crate::presets;
use clap::Args;

/// Options that choose the settings.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Settings: a preset by name (`flm presets` lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) preset: Option<String>,
    /// Override a setting, as in `--set optimizer.lr=1e-3`; repeatable
    ///
    /// `flm presets defaults` shows all keys.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Returns the settings: defaults, overridden by the preset, overridden by `--set`.
pub(crate) fn settings(
    args: &SettingsArgs,
    default: Option<&str>,
    sections: &[&str],
) -> Result<Config> {
    let mut overrides = match args.preset.as_deref().or(default) {
        Some(preset) => presets::load(preset)?,
        None => Overrides::new(),
    };
    for assignment in &args.set {
        overrides.set(assignment, sections)?;
    }
    overrides.finish()
}

/// Returns an error if `--set` sets a key of a section that this command does not use. `elsewhere`
/// completes the message: where those settings come from.
pub(crate) fn reject_section(args: &SettingsArgs, section: &str, elsewhere: &str) -> Result<()> {
    let belongs = |assignment: &&String| {
        let key = assignment.trim_start().strip_prefix(section);
        key.is_some_and(|rest| rest.starts_with('.'))
    };
    match args.set.iter().find(belongs) {
        Some(assignment) => Err(CliError::input(format!(
            "--set {assignment}: the settings of [{section}] are {elsewhere}"
        ))),
        None => Ok(()),
    }
}
