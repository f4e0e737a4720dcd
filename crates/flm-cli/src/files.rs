//! Files that appear whole or not at all, and what they are called in a run.

use crate::config::{Config, Overrides};
use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};

/// Where what can be made or fetched again is kept: `$FLM_CACHE`, or `.cache/flm` of the home folder, if there is one.
pub(crate) fn cache() -> Option<PathBuf> {
    match std::env::var_os("FLM_CACHE") {
        Some(root) => Some(PathBuf::from(root)),
        None => Some(std::env::home_dir()?.join(".cache/flm")),
    }
}

/// Writes a file that appears whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    Ok(flm_files::write(path, content)?)
}

/// Refuses a place for a new file where one is, unless it may be replaced.
pub(crate) fn free(path: &Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        return Err(CliError::input(format!(
            "{} exists already: choose another name, or add --force",
            path.display()
        )));
    }
    if path.is_dir() {
        return Err(CliError::input(format!(
            "{} is a folder, expected a place for a file",
            path.display()
        )));
    }
    Ok(())
}

/// Reads a text.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(CliError::io("read", path))
}

/// What a folder of ours is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One training.
    Run,
    /// All stages of a quickstart.
    Quickstart,
}

/// A run's folder: `config.toml`, `metrics.jsonl`, `losses.svg`, `checkpoints/`, `model/`.
#[derive(Clone, Debug)]
pub(crate) struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    pub(crate) fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    pub(crate) fn losses(&self) -> PathBuf {
        self.root.join("losses.svg")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Of a quickstart: how long its stages took. No other run has it.
    pub(crate) fn times(&self) -> PathBuf {
        self.root.join("times.json")
    }

    /// The configuration that the run was started with.
    pub(crate) fn saved(&self) -> Result<Config> {
        let path = self.config();
        let mut overrides = Overrides::new();
        overrides.file(&read(&path)?, &path.display().to_string())?;
        overrides.finish()
    }

    /// Writes the configuration of a run that starts.
    pub(crate) fn save(&self, config: &str) -> Result<()> {
        write(&self.config(), config.as_bytes())
    }

    /// Refuses a place that is taken, unless it is of the same kind and `force` says that it may go.
    pub(crate) fn check_free(&self, force: bool, kind: Kind) -> Result<()> {
        let root = self.root.display();
        if !self.root.exists() {
            return Ok(());
        }
        if !force {
            return Err(CliError::input(format!(
                "{root} exists already: choose another folder, add --resume to continue it, or --force to replace it"
            )));
        }
        if std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(());
        }
        let (name, reason) = match (self.foreign(), kind, self.times().is_file()) {
            (Some(reason), Kind::Run, _) => ("run", reason),
            (Some(reason), Kind::Quickstart, _) => ("quickstart", reason),
            (None, Kind::Run, true) => ("run", "it is a quickstart's".to_owned()),
            (None, Kind::Quickstart, false) => ("quickstart", "it holds no times.json".to_owned()),
            _ => return Ok(()),
        };
        Err(CliError::input(format!(
            "{root} is not the folder of a {name} ({reason}) and is not replaced"
        )))
    }

    /// Why the folder is none of ours, if it is not. Many folders hold some config.toml: ours has every section and no other key.
    fn foreign(&self) -> Option<String> {
        let path = self.config();
        if !path.is_file() {
            return Some("it holds no config.toml".to_owned());
        }
        if let Err(error) = self.saved() {
            return Some(error.to_string());
        }
        let sections: toml::Table = toml::from_str(&read(&path).ok()?).ok()?;
        let all = toml::Table::try_from(Config::default()).ok()?;
        // A run has no section `data`.
        let missing =
            (all.keys()).find(|section| *section != "data" && !sections.contains_key(*section))?;
        Some(format!("{} has no section {missing}", path.display()))
    }

    /// Makes the folder anew; what a former run left there goes, but for its configuration, which [`save`](Self::save) replaces.
    pub(crate) fn create(&self) -> Result<()> {
        for path in [self.checkpoints(), self.model()] {
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(CliError::io("remove", &path))?;
            }
        }
        for path in [self.metrics(), self.losses()] {
            if path.exists() {
                std::fs::remove_file(&path).map_err(CliError::io("remove", &path))?;
            }
        }
        std::fs::create_dir_all(&self.root).map_err(CliError::io("create", &self.root))
    }
}
