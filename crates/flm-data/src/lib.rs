//! From text to batches of tokens.
//!
//! A flow language model is trained on rows of tokens, all of one length. This crate makes them,
//! once, and serves them:
//!
//! ```text
//! corpus ──> tokenizer ──> layout ──> data folder ──> order ──> batches
//! ```
//!
//! - A [`Corpus`] yields documents and can be read again from the start: text files, JSON lines,
//!   parquet and folders of them, compressed or not ([`FileCorpus`]), or whatever a function yields
//!   ([`FnCorpus`]). A [`TextMap`] changes each on its way.
//! - A [`TextTokenizer`] turns documents into tokens: closed vocabularies of words or characters,
//!   byte pairs learnt from the corpus, or any `tokenizer.json`.
//! - A [`Layout`] makes rows of them: one document a row, or packed blocks of an endless stream.
//! - [`prepare`] does all of this in a stream, in bounded memory, goes on where it was interrupted,
//!   and leaves a data folder that is complete or not there: `dataset.json` ([`DatasetMeta`]), `tokenizer.json`, and the rows in
//!   `train-00000.bin`, …, `validation-00000.bin`, … .
//! - A [`Dataset`] opens such a folder. The rows are mapped, not loaded; everything that could be wrong
//!   with the files is an error in one sentence.
//! - A [`BatchOrder`] says which rows make the batch of a step, as a pure function of a seed and
//!   the step.
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
//! Where a published data set comes from and how it is read is told by a [`Manifest`]: files, split, text column,
//! [`Detokenizer`], tokenizer, length and layout. The feature `fetch` adds the function of that name, which
//! downloads them; [`Manifest::take`] finds them in a copy that is there.
//!
//! What becomes of a batch is not known here: the crate has no tensors and no device.

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

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
