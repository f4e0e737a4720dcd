//! Atomic file writes, and the file layout of a run.

use crate::config::{Config, Overrides};
use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};

/// Returns the cache folder: `$FLM_CACHE`, or `.cache/flm` in the home folder, if there is one.
pub(crate) fn cache() -> Option<PathBuf> {
    match std::env::var_os("FLM_CACHE") {
        Some(root) => Some(PathBuf::from(root)),
        None => Some(std::env::home_dir()?.join(".cache/flm")),
    }
}

/// Writes a file atomically.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    Ok(flm_files::write(path, content)?)
}

/// Returns an error if `path` exists, unless it is a file and `force` allows its replacement.
pub(crate) fn free(path: &Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        return Err(CliError::input(format!(
            "{} exists already: choose another name, or add --force",
            path.display()
        )));
    }
    if path.is_dir() {
        return Err(CliError::input(format!(
            "{} is a folder, expected a file path",
            path.display()
        )));
    }
    Ok(())
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(CliError::io("read", path))
}

/// The kind of an output folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A single training run.
    Run,
    /// All stages of a quickstart.
    Quickstart,
}

/// A run folder: `config.toml`, `metrics.jsonl`, `losses.svg`, `checkpoints/`, `model/`.
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

    /// Returns the path of the stage durations, which only a quickstart has.
    pub(crate) fn times(&self) -> PathBuf {
        self.root.join("times.json")
    }

    /// Reads the configuration that the run was started with.
    pub(crate) fn saved(&self) -> Result<Config> {
        let path = self.config();
        let mut overrides = Overrides::new();
        overrides.file(&read(&path)?, &path.display().to_string())?;
        overrides.finish()
    }

    /// Writes the configuration of a new run.
    pub(crate) fn save(&self, config: &str) -> Result<()> {
        write(&self.config(), config.as_bytes())
    }

    /// Returns an error if the folder exists, unless `force` is set and it is of the same kind.
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
        let is_lock = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name() == ".lock")
        };
        if std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.all(is_lock)) {
            return Ok(());
        }
        let (name, reason) = match (self.foreign(), kind, self.times().is_file()) {
            (Some(reason), Kind::Run, _) => ("run", reason),
            (Some(reason), Kind::Quickstart, _) => ("quickstart", reason),
            (None, Kind::Run, true) => ("run", "it holds a quickstart".to_owned()),
            (None, Kind::Quickstart, false) => ("quickstart", "it holds no times.json".to_owned()),
            _ => return Ok(()),
        };
        Err(CliError::input(format!(
            "{root} is not the folder of a {name} ({reason}) and is not replaced"
        )))
    }

    /// Returns why the folder is not a run folder, or `None` if it is one. Other programs also use
    /// the name `config.toml`; a run's has every section and no unknown key.
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
        // A run's configuration has no section `data`.
        let missing =
            (all.keys()).find(|section| *section != "data" && !sections.contains_key(*section))?;
        Some(format!("{} has no section {missing}", path.display()))
    }

    /// Creates the folder. Files of an earlier run are removed, except the configuration, which
    /// [`save`](Self::save) replaces.
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
