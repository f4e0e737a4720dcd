//! Prepares a data folder from a corpus.

pub(crate) mod choice;
mod encode;
mod journal;
mod options;
mod rows;
mod text;

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

pub use options::{PrepareOptions, TokenizerSource, Validation};

use crate::dataset::{DatasetMeta, FORMAT_VERSION, META_FILE, SplitMeta, TOKENIZER_FILE};
use crate::tokenizer::{bpe, closed};
use crate::{Corpus, DataError, TextTokenizer};
use choice::Choice;
use encode::Encoder;
use flm_files::{Existing, Staging};
use journal::{JOURNAL_FILE, Journal, identity};
use rows::RowMaker;
use text::AllText;

/// The current pass of [`prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first pass over the corpus, which builds a vocabulary or counts the documents. It only
    /// runs if one of these is needed.
    Vocabulary,
    /// The pass that encodes the corpus and writes rows.
    Encoding,
}

/// The progress of [`prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The current pass.
    pub stage: Stage,
    /// Documents read in this pass. A resumed preparation reads the corpus from its first document.
    pub documents: u64,
    /// Bytes of text read in this pass.
    pub bytes: u64,
    /// Rows written, over both splits.
    pub rows: u64,
}

/// Prepares a data folder from a corpus.
///
/// The same corpus and options give identical bytes in every file, for any number of cores and
/// interruptions. Memory holds two batches of documents (4 MiB of text each, or one document if it
/// is larger) and the vocabulary, independent of the corpus size.
///
/// **Validation.** By default, a hash of the position selects one of every `1 / validation_share`
/// consecutive documents for validation. No document is in both splits: packed blocks contain the
/// documents of one split only. A continuous corpus ([`Corpus::is_continuous`]) has too few
/// documents for this, so its finished blocks are split in the same way. The validation split may
/// be empty if the corpus has fewer than `1 / validation_share` documents or blocks.
///
/// [`Validation::Last`] selects the last documents instead (of a continuous corpus, the last
/// files). Counting them takes an extra read-only pass, unless the vocabulary needs a pass anyway.
/// [`Validation::Corpus`] selects all of a second corpus, whose text also counts for the
/// vocabulary.
///
/// **The folder.** All files are written to a hidden folder next to `out`, which is renamed when it
/// is complete. An existing data folder is replaced only with `force`, and only at that point.
/// `force` never replaces a folder that is not a data folder. While one process prepares `out`,
/// another call for it returns an error.
///
/// **Interruptions.** If `progress`, the system (a full disk) or a kill signal stops the
/// preparation, the hidden folder `.NAME.preparing` stays next to `out`, with a journal of its
/// content. The same call resumes: it reads the documents that are already in the folder without
/// encoding them, and checks that they are unchanged. A call with other options or a changed corpus
/// starts over. Any other error, such as a fault in the corpus, leaves no files.
///
/// `progress` is called after every batch of documents and can stop the preparation.
///
/// # Errors
/// Returns any error of reading, encoding and writing; see [`DataError`].
pub fn prepare(
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    out: impl AsRef<Path>,
    force: bool,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<DatasetMeta, DataError> {
    options.check(corpus)?;
    let existing = if force {
        Existing::Replace
    } else {
        Existing::Refuse
    };
    let is_ours = |folder: &Path| folder.join(META_FILE).is_file();
    let mut staging = Staging::resumable(out.as_ref(), existing, is_ours)?;
    match fill(corpus, options, &staging, progress) {
        Ok(meta) => {
            staging.commit()?;
            Ok(meta)
        }
        Err(error) => {
            // Causes outside the corpus and the options may be gone on the next call.
            let transient = matches!(error, DataError::Cancelled | DataError::Io { .. });
            if transient && staging.path(Path::new(JOURNAL_FILE)).is_file() {
                staging.keep();
            }
            Err(error)
        }
    }
}

/// Writes all files of the folder.
fn fill(
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    staging: &Staging,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<DatasetMeta, DataError> {
    let folder = &staging.path(Path::new(""));
    let text = AllText::new(corpus, options);
    let given = match &options.tokenizer {
        TokenizerSource::File(path) => Some(TextTokenizer::load(path)?),
        TokenizerSource::Given(tokenizer) => Some(TextTokenizer::clone(tokenizer)),
        _ => None,
    };
    let identity = identity(corpus, options, given.as_ref())?;
    let (tokenizer, journal) = match take_up(folder, &identity) {
        Some(begun) => begun,
        None => {
            staging.clear()?;
            let (tokenizer, total) = first_pass(text, options, given, progress)?;
            tokenizer.save(folder.join(TOKENIZER_FILE))?;
            let journal = Journal::begin(identity, &tokenizer, total);
            (tokenizer, journal)
        }
    };
    let (validation_from, validation_share) = options.validation_meta();
    let mut meta = DatasetMeta {
        format_version: FORMAT_VERSION,
        source: corpus.describe(),
        tokenizer_hash: tokenizer.hash().to_owned(),
        vocabulary_size: tokenizer.vocab_size(),
        length: options.length,
        layout: options.layout,
        text_map: options.text_map.as_ref().map(|map| map.name().to_owned()),
        validation_from,
        validation_share,
        train: SplitMeta::default(),
        validation: SplitMeta::default(),
    };
    let choice = Choice::new(options, journal.total)?;
    let splits_blocks = corpus.is_continuous() && matches!(options.validation, Validation::Share);
    let mut maker = RowMaker::new(folder, &tokenizer, &meta, options, choice, splits_blocks);
    if let Err(reason) = maker.resume(journal.rows.clone()) {
        tracing::warn!(folder = %folder.display(), reason, "the earlier preparation is damaged");
        drop(maker);
        staging.clear()?;
        return fill(corpus, options, staging, progress);
    }
    let mut encoder = Encoder {
        tokenizer: &tokenizer,
        maker,
        journal,
        folder,
        checkpoint_bytes: options.checkpoint_bytes,
    };
    encoder.save(encoder.journal.read)?;
    (meta.train, meta.validation) = encoder.run(text, progress)?;
    if meta.train.rows == 0 {
        return Err(too_small(corpus, &meta));
    }
    if meta.validation.rows == 0 && options.wants_validation() {
        tracing::warn!(
            source = meta.source,
            "the corpus is too small for a validation row"
        );
    }
    for (name, content) in &options.extra {
        write_file(&folder.join(name), content)?;
    }
    write_meta(&meta, &folder.join(META_FILE))?;
    // The journal is removed last, so that a failure before this point can be resumed.
    let journal = folder.join(JOURNAL_FILE);
    fs::remove_file(&journal).map_err(DataError::io("remove", &journal))?;
    Ok(meta)
}

/// Returns the tokenizer and journal of an interrupted preparation with this identity, if they are
/// usable.
fn take_up(folder: &Path, identity: &str) -> Option<(TextTokenizer, Journal)> {
    let journal = Journal::read(folder, identity)?;
    let tokenizer = TextTokenizer::load(folder.join(TOKENIZER_FILE)).ok()?;
    (tokenizer.hash() == journal.tokenizer_hash).then_some((tokenizer, journal))
}

/// Builds the tokenizer unless it is given, and counts the documents if required.
fn first_pass(
    text: AllText<'_>,
    options: &PrepareOptions,
    given: Option<TextTokenizer>,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(TextTokenizer, Option<u64>), DataError> {
    // A callback for every piece would cost more than counting a short document.
    const EVERY: u64 = 1000;
    let mut counts = Progress {
        stage: Stage::Vocabulary,
        documents: 0,
        bytes: 0,
        rows: 0,
    };
    let mut pieces = 0;
    let pass = &mut |piece: &crate::Piece| {
        counts.documents += u64::from(piece.ends_document);
        counts.bytes += piece.text.len() as u64;
        pieces += 1;
        if pieces % EVERY == 0 {
            report(progress, &counts)?;
        }
        Ok(())
    };
    let counts_documents = matches!(options.validation, Validation::Last(_));
    let tokenizer = match (given, &options.tokenizer) {
        (Some(tokenizer), _) => {
            if counts_documents {
                for piece in text.corpus.pieces()? {
                    pass(&piece?)?;
                }
            }
            tokenizer
        }
        (None, TokenizerSource::TrainBpe(size)) => bpe::train(&text, *size, pass)?,
        (None, TokenizerSource::Chars) => closed::chars(&text, pass)?,
        (None, _) => closed::words(&text, pass)?,
    };
    Ok((tokenizer, counts_documents.then_some(counts.documents)))
}

fn report(
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    counts: &Progress,
) -> Result<(), DataError> {
    match progress(counts) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Cancelled),
    }
}

fn too_small(corpus: &dyn Corpus, meta: &DatasetMeta) -> DataError {
    let (train, validation) = (&meta.train, &meta.validation);
    let dropped = train.dropped_too_long + validation.dropped_too_long;
    if train.documents + validation.documents + dropped == 0 {
        return DataError::EmptyCorpus {
            corpus: corpus.describe(),
        };
    }
    DataError::TooSmall {
        corpus: corpus.describe(),
        tokens: [train, validation]
            .iter()
            .map(|split| split.tokens + split.dropped_tokens)
            .sum(),
        dropped,
        length: meta.length,
        layout: meta.layout.name(),
    }
}

fn write_meta(meta: &DatasetMeta, path: &Path) -> Result<(), DataError> {
    let bad = |source| DataError::BadMeta {
        path: path.to_path_buf(),
        source,
    };
    let mut json = serde_json::to_vec_pretty(meta).map_err(bad)?;
    json.push(b'\n');
    write_file(path, &json)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), DataError> {
    // An existing file is left from an interrupted preparation.
    let mut file = File::create(path).map_err(DataError::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(DataError::io("write", path))
}
