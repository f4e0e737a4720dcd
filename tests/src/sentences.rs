//! Data sets of sentences from the built-in grammar.

use flm_data::{Dataset, FnCorpus, PrepareOptions, TokenizerSource};
use flm_eval::Grammar;
use rand::SeedableRng;
use std::ops::ControlFlow;
use std::path::Path;

/// Prepares `count` sentences of seed 0 as rows of `length` word tokens in `folder/data`.
///
/// # Panics
///
/// If the data set cannot be written.
pub fn prepare(folder: &Path, count: usize, length: usize) -> Dataset {
    let corpus = FnCorpus::new("grammar", || {
        let grammar = Grammar::small_english();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let sentences: Vec<_> = (0..count)
            .map(|_| Ok(grammar.sample_sentence(&mut rng)))
            .collect();
        sentences.into_iter()
    });
    let options = PrepareOptions::new(TokenizerSource::Words, length);
    let out = folder.join("data");
    flm_data::prepare(&corpus, &options, &out, false, &mut |_| {
        ControlFlow::Continue(())
    })
    .expect("rows of sentences");
    Dataset::open(&out).expect("the rows that were prepared")
}
