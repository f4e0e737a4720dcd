//! Manifests: one TOML file per data set with its sources and how to read them.

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

/// The version of the manifest format that this library reads.
pub const MANIFEST_VERSION: u32 = 1;

/// The built-in manifests.
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

/// The description of a data set: its files, how to read them, and its usual tokenizer, length and
/// layout.
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
/// A custom manifest has the same form as the files in `datasets/`. Unknown keys are errors:
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
    /// The name of the manifest, and of the data set's folder in the cache.
    pub name: String,
    /// The full name of the data set.
    pub title: String,
    /// The licence of the text, as far as it is known.
    pub license: String,
    /// A web page that describes the data set.
    pub page: String,
    /// The training files; at least one.
    pub train: Vec<SourceFile>,
    /// The validation files; empty unless the rule is [`SplitRule::Files`].
    pub validation: Vec<SourceFile>,
    /// The rule that selects the validation documents.
    pub split: SplitRule,
    /// The column of parquet files or the field of JSON lines with the text.
    pub column: String,
    /// The unit of a text file that makes one document.
    pub unit: TextUnit,
    /// The detokenizer that restores ordinary text.
    pub detokenizer: Detokenizer,
    /// The usual tokenizer.
    pub tokenizer: ManifestTokenizer,
    /// The number of tokens in a row.
    pub length: usize,
    /// The content of a row.
    pub layout: Layout,
}

/// A rule that selects the validation documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SplitRule {
    /// The documents in separate validation files.
    Files,
    /// This many documents at the end of the corpus.
    Last(u64),
    /// A fraction of all documents, above 0 and below 1, in whole millionths.
    Share(f64),
}

/// The usual tokenizer of a data set.
#[derive(Debug, Clone, PartialEq)]
pub enum ManifestTokenizer {
    /// All words of the corpus.
    Words,
    /// All characters of the corpus.
    Chars,
    /// Byte pairs learned from the corpus, with this many tokens.
    Bpe(usize),
    /// A published tokenizer.
    Published {
        /// Its name, such as `gpt2` or `bert-base-uncased`.
        name: String,
        /// Its `tokenizer.json`.
        file: SourceFile,
    },
}

impl ManifestTokenizer {
    /// Returns the name in the manifest: `words`, `chars`, `bpe:N` or the name of a published
    /// tokenizer.
    pub fn name(&self) -> String {
        match self {
            Self::Words => "words".to_owned(),
            Self::Chars => "chars".to_owned(),
            Self::Bpe(size) => format!("bpe:{size}"),
            Self::Published { name, .. } => name.clone(),
        }
    }

    /// Returns the source of a published tokenizer.
    pub fn file(&self) -> Option<&SourceFile> {
        match self {
            Self::Published { file, .. } => Some(file),
            _ => None,
        }
    }
}

impl Manifest {
    /// Returns the names of the built-in manifests.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Returns the text of a built-in manifest, comments included.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Some(text)
    }

    /// Returns a built-in manifest.
    ///
    /// # Errors
    /// Returns [`ManifestError::UnknownName`], which lists the known names.
    pub fn builtin(name: &str) -> Result<Self, ManifestError> {
        let text = Self::builtin_text(name).ok_or_else(|| ManifestError::UnknownName {
            found: name.to_owned(),
            known: Self::builtin_names().collect::<Vec<_>>().join(", "),
        })?;
        Self::parse(text, name)
    }

    /// Reads a manifest from a file. The data set is named after the file, without its extension.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or the errors of [`parse`](Self::parse).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|source| ManifestError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        raw::parse(&text, &name, &path.display().to_string())
    }

    /// Parses a manifest; `name` is the name of the data set.
    ///
    /// # Errors
    /// Returns an error that names the manifest and the faulty key.
    pub fn parse(text: &str, name: &str) -> Result<Self, ManifestError> {
        raw::parse(text, name, name)
    }

    /// Returns the splits with their folder names and files: train, then validation.
    pub(crate) fn splits(&self) -> [(&'static str, &[SourceFile]); 2] {
        use crate::dataset::{TRAIN, VALIDATION};
        [(TRAIN, &self.train), (VALIDATION, &self.validation)]
    }
}
