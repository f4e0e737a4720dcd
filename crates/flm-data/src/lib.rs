//! Turns text into batches of tokens.
//!
//! A flow language model trains on rows of tokens of one fixed length. This crate prepares these
//! rows once and then serves them:
//!
//! ```text
//! corpus ──> tokenizer ──> layout ──> data folder ──> order ──> batches
//! ```
//!
//! - A [`Corpus`] yields documents and can be read again from the start. [`FileCorpus`] reads text
//!   files, JSON lines, parquet and folders of them, compressed or not. [`FnCorpus`] takes
//!   documents from a function. A [`TextMap`] transforms each document.
//! - A [`TextTokenizer`] encodes documents as tokens: closed vocabularies of words or characters,
//!   byte pairs learned from the corpus, or any `tokenizer.json`.
//! - A [`Layout`] arranges tokens in rows: one document per row, or packed blocks of a continuous
//!   stream.
//! - [`prepare`] runs all of this as a stream, in bounded memory, and resumes after an
//!   interruption. It writes a complete data folder or none: `dataset.json` ([`DatasetMeta`]),
//!   `tokenizer.json`, and the rows in `train-00000.bin`, …, `validation-00000.bin`, … .
//! - A [`Dataset`] opens such a folder. It maps the rows into memory instead of loading them. Any
//!   fault in the files is a one-sentence error.
//! - A [`BatchOrder`] gives the rows of the batch at a step, as a pure function of a seed and the
//!   step.
//!
//! ```
//! use std::ops::ControlFlow;
//! use flm_data::{BatchOrder, Dataset, FnCorpus, PrepareOptions, TokenizerSource, prepare};
//!
//! let corpus = FnCorpus::new("the cat's days", || {
//!     (0..100).map(|day| Ok(format!("on day {day} the cat slept")))
//! });
//! let folder = tempfile::tempdir().unwrap();
//! let out = folder.path().join("cat");
//!
//! let options = PrepareOptions::new(TokenizerSource::Words, 8);
//! prepare(&corpus, &options, &out, false, &mut |_| ControlFlow::Continue(()))?;
//!
//! let data = Dataset::open(&out)?;
//! assert_eq!((data.train().rows(), data.validation().rows()), (98, 2));
//! let order = BatchOrder::new(1, data.train().rows())?;
//! let batch = data.train().batch(&order.batch(0, 4))?;
//! assert_eq!(batch.len(), 4 * 8);
//! let text = data.tokenizer().decode(&batch[..8])?;
//! assert!(text.starts_with("on day ") && text.ends_with(" the cat slept"));
//! # Ok::<(), flm_data::DataError>(())
//! ```
//!
//! A [`Manifest`] describes a published data set: its files, split, text column, [`Detokenizer`],
//! tokenizer, length and layout. The feature `fetch` adds a function `fetch`, which downloads these
//! files; [`Manifest::take`] finds them in a local copy.
//!
//! The crate has no tensors and no devices; the caller converts the batches.

mod corpus;
mod dataset;
mod detokenizer;
mod error;
#[cfg(feature = "fetch")]
mod fetch;
mod guard;
mod layout;
mod manifest;
mod mix;
mod order;
mod pieces;
mod prepare;
mod shard;
mod text_map;
mod tokenizer;

pub use corpus::{Corpus, Documents, FileCorpus, FnCorpus, Piece, Pieces, TextUnit};
pub use dataset::{
    Dataset, DatasetMeta, FORMAT_VERSION, META_FILE, Split, SplitMeta, TOKENIZER_FILE,
    ValidationFrom,
};
pub use detokenizer::{Detokenizer, UnknownDetokenizer};
pub use error::DataError;
#[cfg(feature = "fetch")]
pub use fetch::{FetchError, FetchOptions, FetchProgress, fetch};
pub use layout::Layout;
pub use manifest::{
    DataFiles, MANIFEST_VERSION, Manifest, ManifestError, ManifestTokenizer, RepoKind, Source,
    SourceFile, SplitRule, Wanted,
};
pub use order::BatchOrder;
pub use prepare::{PrepareOptions, Progress, Stage, TokenizerSource, Validation, prepare};
pub use shard::{ShardInfo, ShardMeta};
pub use text_map::TextMap;
pub use tokenizer::{BOS, EOS, MINIMUM_BPE_VOCABULARY, PAD, TextTokenizer};

/// Compiles the code blocks of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
