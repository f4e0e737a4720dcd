//! Preparation of a data folder from a corpus.

use crate::config::{DataSettings, tokenizer_source};
use crate::error::{CliError, Result};
use crate::progress::{Progress, thousands};
use crate::purpose;
use crate::stop;
use flm_data::{
    Corpus, DataError, DatasetMeta, Detokenizer, FileCorpus, FnCorpus, PrepareOptions, Stage,
    TextMap, TextTokenizer, TokenizerSource,
};
use flm_eval::Grammar;
use flm_simplex::stream::generator;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Prepares a data folder.
pub(crate) fn prepare(settings: &DataSettings, out: &Path, force: bool) -> Result<DatasetMeta> {
    let mut options = PrepareOptions::new(tokenizer(&settings.tokenizer)?, settings.length);
    options.layout = settings.layout;
    options.validation_share = settings.validation_share;
    if settings.is_grammar() {
        let grammar = Arc::new(Grammar::small_english());
        if matches!(options.tokenizer, TokenizerSource::Words) {
            // All words of the grammar, including those that no drawn sentence uses.
            let tokenizer = TextTokenizer::from_words(grammar.words().iter().cloned())?;
            options.tokenizer = TokenizerSource::Given(Box::new(tokenizer));
        }
        options
            .extra
            .push((flm_study::GRAMMAR_FILE.to_owned(), grammar.source().into()));
        write(
            &sentences(settings, &grammar),
            settings.sentences,
            &options,
            out,
            force,
        )
    } else {
        let corpus = FileCorpus::open(&settings.source)?
            .unit(settings.text_unit())
            .field(&settings.column);
        options.text_map = text_map(settings.detokenizer);
        write(&corpus, 0, &options, out, force)
    }
}

/// Returns the tokenizer for `words`, `chars`, `bpe:N` or the path of a `tokenizer.json`.
pub(super) fn tokenizer(name: &str) -> Result<TokenizerSource> {
    match tokenizer_source(name)? {
        TokenizerSource::File(path) => padded(&path),
        other => Ok(other),
    }
}

/// Loads a published tokenizer; adds a padding token if it has none, as the paper's code does.
pub(super) fn padded(path: &Path) -> Result<TokenizerSource> {
    let tokenizer = TextTokenizer::load(path)?.with_padding()?;
    Ok(TokenizerSource::Given(Box::new(tokenizer)))
}

/// Returns the text map of a detokenizer; `None` for [`Detokenizer::None`].
pub(super) fn text_map(detokenizer: Detokenizer) -> Option<TextMap> {
    let map = move |text: &str| detokenizer.apply(text).into_owned();
    (detokenizer != Detokenizer::None).then(|| TextMap::new(detokenizer.name(), map))
}

fn sentences(settings: &DataSettings, grammar: &Arc<Grammar>) -> impl Corpus + use<> {
    let (count, seed, grammar) = (settings.sentences, settings.seed, Arc::clone(grammar));
    FnCorpus::new(
        format!("small-English grammar, {count} sentences, seed {seed}"),
        move || {
            let grammar = Arc::clone(&grammar);
            let mut rng = generator(seed, purpose::CORPUS, 0, 0);
            (0..count).map(move |_| Ok::<_, DataError>(grammar.sample_sentence(&mut rng)))
        },
    )
}

pub(super) fn write(
    corpus: &dyn Corpus,
    documents: u64,
    options: &PrepareOptions,
    out: &Path,
    force: bool,
) -> Result<DatasetMeta> {
    let progress = Progress::new("corpus", documents);
    let prepared = flm_data::prepare(corpus, options, out, force, &mut |at| {
        let stage = match at.stage {
            Stage::Vocabulary => "building the vocabulary",
            Stage::Encoding => "encoding",
        };
        progress.update(
            at.documents,
            &format!("{stage}  {} bytes", thousands(at.bytes as f64)),
        );
        if stop::asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let meta = prepared.map_err(|error| match error {
        DataError::OutputExists { .. } => CliError::input(format!(
            "{} exists already: choose another folder, or add --force to replace it",
            out.display()
        )),
        other => other.into(),
    })?;
    let dropped = meta.train.dropped_too_long + meta.validation.dropped_too_long;
    let dropped = match dropped {
        0 => String::new(),
        count => format!(" · dropped {count} documents that are too long"),
    };
    progress.finish(&format!(
        "{} · {} tokens · {} + {} rows of {}{dropped}",
        meta.source, meta.vocabulary_size, meta.train.rows, meta.validation.rows, meta.length
    ));
    let lost = meta.train.dropped_too_long + meta.validation.dropped_too_long;
    let documents = meta.train.documents + meta.validation.documents + lost;
    if lost * 10 > documents {
        eprintln!(
            "warning: {lost} of {documents} documents do not fit into rows of {} tokens and are left out: use --pack, or a larger --length",
            meta.length
        );
    }
    Ok(meta)
}
