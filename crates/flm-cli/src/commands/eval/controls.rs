//! Control samples, which a good metric ranks last.

use crate::error::{CliError, Result};
use crate::files;
use crate::purpose;
use clap::Args;
use flm_data::{Dataset, Layout};
use flm_simplex::stream::generator;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::path::PathBuf;

/// Write control samples that a good metric must rank last
///
/// Writes three files from the training rows: `unigrams.jsonl` has words drawn independently,
/// `shuffled.jsonl` has training rows in random word order, `repeated.jsonl` repeats one training
/// row. Evaluate them by `flm eval OUT`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example: flm eval controls --data data --count 1000 --out nonsense")]
pub(crate) struct ControlsArgs {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Samples per file
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) count: usize,
    /// Random seed
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
}

/// A line of a sample file.
#[derive(Serialize)]
struct Line {
    text: String,
    tokens: Vec<u32>,
}

/// Writes the three files and returns their paths.
pub(crate) fn controls(args: &ControlsArgs) -> Result<Vec<PathBuf>> {
    if args.count == 0 {
        return Err(CliError::input(
            "the number of samples must be at least 1, found 0",
        ));
    }
    let dataset = Dataset::open(&args.data)?;
    let rows = Rows(&dataset);
    let mut rng = generator(args.seed, purpose::CONTROLS, 0, 0);
    let repeated = rows.row(&mut rng)?;
    type Draw<'a> = dyn FnMut(&mut ChaCha8Rng) -> Result<Vec<u32>> + 'a;
    let mut unigrams = |rng: &mut ChaCha8Rng| {
        let length = rows.row(rng)?.len();
        (0..length).map(|_| rows.token(rng)).collect()
    };
    let mut shuffled = |rng: &mut ChaCha8Rng| {
        let mut row = rows.row(rng)?;
        row.shuffle(rng);
        Ok(row)
    };
    let mut repeat = |_: &mut ChaCha8Rng| Ok(repeated.clone());
    let draws: [(&str, &mut Draw<'_>); 3] = [
        ("unigrams", &mut unigrams),
        ("shuffled", &mut shuffled),
        ("repeated", &mut repeat),
    ];
    let path = |name: &str| args.out.join(format!("{name}.jsonl"));
    for (name, _) in &draws {
        files::free(&path(name), args.force)?;
    }
    std::fs::create_dir_all(&args.out).map_err(CliError::io("create", &args.out))?;
    let mut written = Vec::new();
    for (name, draw) in draws {
        let mut lines = String::new();
        for _ in 0..args.count {
            let tokens = draw(&mut rng)?;
            let text = flm::text_of(&tokens, dataset.tokenizer(), dataset.meta().layout)?;
            lines += &serde_json::to_string(&Line { text, tokens })?;
            lines.push('\n');
        }
        files::write(&path(name), lines.as_bytes())?;
        written.push(path(name));
    }
    Ok(written)
}

/// Training rows; rows of one document are cut before their end token.
struct Rows<'a>(&'a Dataset);

impl Rows<'_> {
    fn row(&self, rng: &mut ChaCha8Rng) -> Result<Vec<u32>> {
        let train = self.0.train();
        let mut row = train.row(rng.random_range(0..train.rows()))?;
        if self.0.meta().layout == Layout::Rows {
            let end = self.0.tokenizer().eos_id();
            row.truncate(
                row.iter()
                    .position(|&token| token == end)
                    .unwrap_or(row.len()),
            );
        }
        Ok(row)
    }

    /// Draws a token with its frequency in the corpus.
    fn token(&self, rng: &mut ChaCha8Rng) -> Result<u32> {
        loop {
            let place = rng.random_range(0..self.0.train().length());
            if let Some(token) = self.row(rng)?.get(place) {
                return Ok(*token);
            }
        }
    }
}
