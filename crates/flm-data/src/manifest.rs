//! Where a data set comes from and how it is read: one TOML file for each.

mod check;
mod error;
mod local;
mod raw;
mod source;

use std::fs;
use std::path::Path;

#[cfg(feature = "fetch")]
pub(crate) use check::is_inside;
#[cfg(feature = "fetch")]
pub(crate) use error::list;
pub use error::{ManifestError, Wanted};
pub use local::DataFiles;
#[cfg(feature = "fetch")]
pub(crate) use local::{candidates, hex, sha256};
#[cfg(feature = "fetch")]
pub(crate) use source::HUB;
pub use source::{RepoKind, Source, SourceFile};

use crate::{Detokenizer, Layout, TextUnit};

/// The version of the format that this library reads.
pub const MANIFEST_VERSION: u32 = 1;

/// The manifests that come with the program.
const BUILTIN: [(&str, &str); 10] = [
    ("lm1b", include_str!("../datasets/lm1b.toml")),
    ("openwebtext", include_str!("../datasets/openwebtext.toml")),
    ("text8", include_str!("../datasets/text8.toml")),
    ("wikitext-2", include_str!("../datasets/wikitext-2.toml")),
    (
        "wikitext-103",
        include_str!("../datasets/wikitext-103.toml"),
    ),
    ("ptb", include_str!("../datasets/ptb.toml")),
    ("tinystories", include_str!("../datasets/tinystories.toml")),
    (
        "tiny-shakespeare",
        include_str!("../datasets/tiny-shakespeare.toml"),
    ),
    ("fineweb-edu", include_str!("../datasets/fineweb-edu.toml")),
    ("gsm8k", include_str!("../datasets/gsm8k.toml")),
];

/// What is to be known about a data set: where its files are, how they are read, and which tokenizer, length and layout are
/// usual for it.
///
/// ```
/// use flm_data::{Layout, Manifest, SplitRule};
///
/// let manifest = Manifest::builtin("openwebtext")?;
/// assert_eq!(manifest.split, SplitRule::Last(100_000));
/// assert_eq!((manifest.length, manifest.layout), (1024, Layout::Packed));
/// # Ok::<(), flm_data::ManifestError>(())
/// ```
///
/// A file of one's own looks like those in `datasets/`; unknown keys are refused:
///
/// ```
/// # use flm_data::Manifest;
/// let text = r#"
///     format = 1
///     title = "Letters of my aunt"
///     license = "mine"
///     page = "https://example.org/letters"
///     split = { share = 0.02 }   # or "files", or { last = 1000 }
///     column = "text"            # of Parquet and JSON lines files
///     unit = "lines"             # of text files; or "whole", or "glosses"
///     detokenizer = "none"
///     tokenizer = { name = "bpe:8000" }
///     length = 128
///     layout = "packed"
///
///     [[train]]
///     url = "https://example.org/letters/all.txt"
/// "#;
/// let manifest = Manifest::parse(text, "letters")?;
/// assert_eq!(manifest.train[0].file_name(), "all.txt");
/// # Ok::<(), flm_data::ManifestError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the data set is called here: the name of its manifest, and of its folder in the cache.
    pub name: String,
    /// What it is called elsewhere.
    pub title: String,
    /// The licence of the text, or what is known of it.
    pub license: String,
    /// A page that describes it.
    pub page: String,
    /// The files to train on; at least one.
    pub train: Vec<SourceFile>,
    /// The files to validate on; none unless the rule is [`SplitRule::Files`].
    pub validation: Vec<SourceFile>,
    /// Which documents are for validation.
    pub split: SplitRule,
    /// The column of Parquet files and the field of JSON lines that holds the text.
    pub column: String,
    /// What a document is in a text file.
    pub unit: TextUnit,
    /// What makes ordinary text of it.
    pub detokenizer: Detokenizer,
    /// The usual tokenizer.
    pub tokenizer: ManifestTokenizer,
    /// Tokens in a row.
    pub length: usize,
    /// What a row holds.
    pub layout: Layout,
}

/// Which documents are for validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SplitRule {
    /// Those of files of their own.
    Files,
    /// The last ones, this many.
    Last(u64),
    /// A share of all, above 0 and below 1, in whole millionths.
    Share(f64),
}

/// The tokenizer that is usual for a data set.
#[derive(Debug, Clone, PartialEq)]
pub enum ManifestTokenizer {
    /// All words of the corpus.
    Words,
    /// All characters of the corpus.
    Chars,
    /// Byte pairs learnt from the corpus, this many tokens.
    Bpe(usize),
    /// A published one.
    Published {
        /// What it is called: `gpt2`, `bert-base-uncased`.
        name: String,
        /// Its `tokenizer.json`.
        file: SourceFile,
    },
}

impl ManifestTokenizer {
    /// The name in the manifest: `words`, `chars`, `bpe:N` or that of a published tokenizer.
    pub fn name(&self) -> String {
        match self {
            Self::Words => "words".to_owned(),
            Self::Chars => "chars".to_owned(),
            Self::Bpe(size) => format!("bpe:{size}"),
            Self::Published { name, .. } => name.clone(),
        }
    }

    /// Where it comes from, if it is a published one.
    pub fn file(&self) -> Option<&SourceFile> {
        match self {
            Self::Published { file, .. } => Some(file),
            _ => None,
        }
    }
}

impl Manifest {
    /// The names of the manifests that come with the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The text of a manifest that comes with the program, comments included.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Some(text)
    }

    /// A manifest that comes with the program.
    ///
    /// # Errors
    /// [`ManifestError::UnknownName`], which lists those there are.
    pub fn builtin(name: &str) -> Result<Self, ManifestError> {
        let text = Self::builtin_text(name).ok_or_else(|| ManifestError::UnknownName {
            found: name.to_owned(),
            known: Self::builtin_names().collect::<Vec<_>>().join(", "),
        })?;
        Self::parse(text, name)
    }

    /// Reads a manifest from a file; the data set is called as the file is, without its ending.
    ///
    /// # Errors
    /// When the file cannot be read, or as [`parse`](Self::parse).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|source| ManifestError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        raw::parse(&text, &name, &path.display().to_string())
    }

    /// Reads a manifest from its text; `name` is that of the data set.
    ///
    /// # Errors
    /// One that names the manifest and the key at fault.
    pub fn parse(text: &str, name: &str) -> Result<Self, ManifestError> {
        raw::parse(text, name, name)
    }

    /// The splits that have files, and their folders' names: train, then validation.
    pub(crate) fn splits(&self) -> [(&'static str, &[SourceFile]); 2] {
        use crate::dataset::{TRAIN, VALIDATION};
        [(TRAIN, &self.train), (VALIDATION, &self.validation)]
    }
}
