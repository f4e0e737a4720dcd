//! The web page: built by npm, and tested in Chromium.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// The models to show.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of a flow of the grammar
    flow: PathBuf,
    /// Folder of its flow map
    map: PathBuf,
    /// Write screenshots to this folder
    #[arg(long, value_name = "DIR")]
    shots: Option<PathBuf>,
    /// An `flm` to use, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    flm: Option<PathBuf>,
}

const PAGE: &str = "crates/flm-server/page";
const BUILT: [&str; 2] = ["dist/page.js", "dist/trace.js"];

/// Builds the page, checks that the built files are those checked in, and tests it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let page = Path::new(PAGE);
    let read = || BUILT.map(|file| std::fs::read(page.join(file)).unwrap_or_default());
    let before = read();
    for command in ["ci --silent", "run --silent check", "run --silent build"] {
        let words = command.split(' ');
        let npm = duct::cmd("npm", words).dir(page).run();
        npm.with_context(|| format!("npm {command} failed"))?;
    }
    ensure!(
        before == read(),
        "{PAGE}/dist was not built from its source: commit the new files"
    );
    let flm = arguments
        .flm
        .clone()
        .map_or_else(crate::pipeline::build, Ok)?;
    let full = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
    };
    let mut words = vec![PathBuf::from("test/page.test.mjs")];
    words.extend([full(&arguments.flow)?, full(&arguments.map)?]);
    if let Some(shots) = &arguments.shots {
        words.push(full(shots)?);
    }
    let test = duct::cmd("node", words).dir(page).env("FLM", full(&flm)?);
    test.run().context("the page failed its test")?;
    Ok(())
}
