//! Runs the program in a temporary folder.
#![allow(dead_code, reason = "each test file uses a part of it")]

use assert_cmd::Command;
use std::path::{Path, PathBuf};

/// Settings that train a network in a second.
pub(crate) const TINY: [&str; 12] = [
    "model.width=16",
    "model.blocks=1",
    "model.heads=2",
    "model.cond_dim=8",
    "train.steps=4",
    "train.batch=8",
    "train.micro_batch=4",
    "train.optimizer.warmup=2",
    "distill.train.steps=3",
    "distill.train.batch=8",
    "distill.train.micro_batch=4",
    "distill.train.optimizer.warmup=2",
];

/// A temporary folder in which commands run.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns the program with these words as arguments.
    pub(crate) fn flm(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flm"));
        command
            .current_dir(self.0.path())
            .args(words.split_whitespace());
        command.env_remove("RUST_LOG");
        command
    }

    /// Same as [`flm`](Self::flm), with tiny settings.
    pub(crate) fn tiny(&self, words: &str) -> Command {
        let mut command = self.flm(words);
        for setting in TINY {
            command.args(["--set", setting]);
        }
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Prepares a data folder of grammar sentences.
    pub(crate) fn data(&self, name: &str, sentences: usize) {
        let words =
            format!("data prepare --input grammar --count {sentences} --length 24 --out {name}");
        self.flm(&words).assert().success();
    }

    /// Returns all names in the folder, including hidden ones.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs a command that must fail with a one-line error and leave the folder unchanged; returns
    /// the error.
    pub(crate) fn refused(&self, mut command: Command) -> String {
        let before = contents(self.0.path());
        let output = command.assert().code(2).get_output().clone();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let message = stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect::<Vec<_>>();
        assert_eq!(message.len(), 1, "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(stderr.ends_with(&format!("{}\n", message[0])), "{stderr}");
        assert!(
            contents(self.0.path()) == before,
            "something was changed: {stderr}"
        );
        message[0].trim_start_matches("error: ").to_owned()
    }
}

/// Returns everything below a folder: files with their content, folders with none.
pub(crate) fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            if path.is_dir() {
                open.push(path);
                found.push((name, Vec::new()));
            } else {
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
