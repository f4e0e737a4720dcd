//! From a corpus to a data folder.

mod rows;
mod staging;

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::dataset::{DatasetMeta, FORMAT_VERSION, META_FILE, SplitMeta, TOKENIZER_FILE};
use crate::tokenizer::{bpe, closed};
use crate::{Corpus, DataError, Layout, TextTokenizer, pieces};
use rows::RowMaker;
use staging::Staging;

/// Where the tokenizer of a data folder comes from.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    /// The closed vocabulary of all words of the corpus: [`TextTokenizer::words`].
    Words,
    /// The closed vocabulary of all characters of the corpus: [`TextTokenizer::chars`].
    Chars,
    /// Byte pairs learnt from the corpus, this many tokens: [`TextTokenizer::train_bpe`].
    TrainBpe(usize),
    /// A `tokenizer.json`: [`TextTokenizer::load`].
    File(PathBuf),
    /// One that is there already.
    Given(Box<TextTokenizer>),
}

/// How to make a data folder.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
    /// Tokens in a row.
    pub length: usize,
    /// What a row holds.
    pub layout: Layout,
    /// The share of documents to set apart for validation, at least 0 and below 1; of blocks, if
    /// the corpus is continuous. See [`prepare`].
    pub validation_share: f64,
    /// The most rows in one shard.
    pub rows_per_shard: u64,
    /// Further files of the folder, name and content: they appear with the rest of it.
    pub extra: Vec<(String, Vec<u8>)>,
}

impl PrepareOptions {
    /// One document a row, two documents in a hundred for validation, 65,536 rows a shard (16 MiB
    /// for 128 tokens of 16 bits).
    pub fn new(tokenizer: TokenizerSource, length: usize) -> Self {
        Self {
            tokenizer,
            length,
            layout: Layout::Rows,
            validation_share: 0.02,
            rows_per_shard: 1 << 16,
            extra: Vec::new(),
        }
    }

    fn check(&self, corpus: &dyn Corpus) -> Result<(), DataError> {
        self.layout.check_length(self.length)?;
        if u32::try_from(self.length).is_err() {
            return Err(DataError::LengthTooLarge {
                length: self.length,
            });
        }
        if !(0.0..1.0).contains(&self.validation_share) {
            return Err(DataError::BadShare {
                found: self.validation_share,
            });
        }
        if self.rows_per_shard == 0 {
            return Err(DataError::BadShardSize);
        }
        if corpus.is_continuous() && self.layout == Layout::Rows {
            return Err(DataError::WholeNeedsPacking);
        }
        Ok(())
    }
}

/// What [`prepare`] is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first pass over the corpus, which gathers a vocabulary. Not every tokenizer needs it.
    Vocabulary,
    /// The pass that encodes the corpus and writes rows.
    Encoding,
}

/// How far [`prepare`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The pass.
    pub stage: Stage,
    /// Documents read in this pass.
    pub documents: u64,
    /// Bytes of text read in this pass.
    pub bytes: u64,
    /// Rows written, of both splits.
    pub rows: u64,
}

/// Makes a data folder of a corpus.
///
/// The same corpus and options give the same bytes in every file, on any number of cores. Memory
/// holds a batch of documents (4 MiB of text, or one document if it is larger) and the
/// vocabulary, however large the corpus is.
///
/// **Validation.** Among every `1 / validation_share` documents in a row, a hash of their place
/// chooses one for validation. No document is in both splits: packed blocks are made of the documents
/// of one split. A continuous corpus ([`Corpus::is_continuous`]) has too few documents for this;
/// there the finished blocks are split in the same way. A corpus of fewer than `1 /
/// validation_share` documents or blocks may have an empty validation split.
///
/// **The folder.** Everything is written to a hidden folder beside `out`, which is renamed once it
/// is complete; whatever fails before that leaves nothing behind. An existing data folder is only replaced with `force`, and only then. `force` replaces
/// nothing that is not a data folder.
///
/// `progress` is called after every batch of documents and can stop the preparation.
///
/// # Errors
/// Anything that reading, encoding and writing can meet; see [`DataError`].
pub fn prepare(
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    out: impl AsRef<Path>,
    force: bool,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<DatasetMeta, DataError> {
    options.check(corpus)?;
    let staging = Staging::begin(out.as_ref(), force)?;
    let tokenizer = make_tokenizer(corpus, &options.tokenizer, progress)?;
    tokenizer.save(staging.path().join(TOKENIZER_FILE))?;
    let mut meta = DatasetMeta {
        format_version: FORMAT_VERSION,
        source: corpus.describe(),
        tokenizer_hash: tokenizer.hash().to_owned(),
        vocabulary_size: tokenizer.vocab_size(),
        length: options.length,
        layout: options.layout,
        validation_share: options.validation_share,
        train: SplitMeta::default(),
        validation: SplitMeta::default(),
    };
    let maker = RowMaker::new(
        staging.path(),
        &tokenizer,
        &meta,
        options,
        corpus.is_continuous(),
    );
    (meta.train, meta.validation) = encode(corpus, &tokenizer, maker, progress)?;
    if meta.train.rows == 0 {
        return Err(too_small(corpus, &meta));
    }
    if meta.validation.rows == 0 && options.validation_share > 0.0 {
        tracing::warn!(
            source = meta.source,
            "the corpus is too small for a validation row"
        );
    }
    for (name, content) in &options.extra {
        write_file(&staging.path().join(name), content)?;
    }
    write_meta(&meta, &staging.path().join(META_FILE))?;
    staging.commit()?;
    Ok(meta)
}

fn make_tokenizer(
    corpus: &dyn Corpus,
    source: &TokenizerSource,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<TextTokenizer, DataError> {
    // A call for every piece would cost more than counting a short document does.
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
    match source {
        TokenizerSource::Words => closed::words(corpus, pass),
        TokenizerSource::Chars => closed::chars(corpus, pass),
        TokenizerSource::TrainBpe(size) => bpe::train(corpus, *size, pass),
        TokenizerSource::File(path) => TextTokenizer::load(path),
        TokenizerSource::Given(tokenizer) => Ok(TextTokenizer::clone(tokenizer)),
    }
}

fn encode(
    corpus: &dyn Corpus,
    tokenizer: &TextTokenizer,
    mut maker: RowMaker<'_>,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(SplitMeta, SplitMeta), DataError> {
    let mut counts = Progress {
        stage: Stage::Encoding,
        documents: 0,
        bytes: 0,
        rows: 0,
    };
    for batch in pieces::batches(corpus.pieces()?) {
        let batch = batch?;
        let texts: Vec<&str> = batch.iter().map(|piece| piece.text.as_str()).collect();
        for (piece, tokens) in batch.iter().zip(tokenizer.encode_batch(&texts)?) {
            maker.push(&tokens, piece.ends_document)?;
            counts.documents += u64::from(piece.ends_document);
            counts.bytes += piece.text.len() as u64;
        }
        counts.rows = maker.rows();
        report(progress, &counts)?;
    }
    maker.finish()
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
    let mut file = File::create_new(path).map_err(DataError::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(DataError::io("write", path))
}
