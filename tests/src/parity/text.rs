//! Text: detokenizers, packing, and generative perplexity.

use super::{LOSS, Line, Verdict, numbers};
use crate::fixture::flat;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use flm_data::{
    Dataset, Detokenizer, FnCorpus, Layout, PrepareOptions, TextTokenizer, TokenizerSource,
};
use flm_eval::judge::{Causal, CausalScorer, Gpt2};
use flm_eval::{GenPpl, mean_unigram_entropy};
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

/// GPT-2's end token.
const EOS: u32 = 50_256;
/// Tolerance for entropies, which the reference sums in f32.
const ENTROPY: f64 = 1e-6;

/// The content of `gen_ppl.json`.
#[derive(Deserialize)]
struct Scores {
    texts: Vec<String>,
    encoded: Vec<Vec<u32>>,
    nll_per_token: Vec<Vec<f32>>,
    max_length: usize,
    batch_size: usize,
    gen_ppl: f64,
    entropy_tokens: Vec<Vec<u32>>,
    entropy_nats: f64,
}

/// The content of `data.json`.
#[derive(Deserialize)]
struct Data {
    lm1b: Vec<[String; 2]>,
    wikitext: Vec<[String; 2]>,
    ptb: Vec<[String; 2]>,
    lambada: Vec<[String; 2]>,
    lm1b_wrap: Wrapped,
    owt_wrap: Wrapped,
}

#[derive(Deserialize)]
struct Wrapped {
    documents: Vec<String>,
    block_size: usize,
    packed: Vec<Vec<u32>>,
}

/// Compares everything in a folder of `gen_ppl.json`, `tiny-gpt2/` and `data.json`.
///
/// Checks that need a tokenizer are skipped if `tokenizers` does not have it.
///
/// # Errors
///
/// A message if a file is missing or invalid.
pub fn text<B: Backend>(folder: &Path, tokenizers: &Path) -> Result<Vec<Line>, String> {
    let scores: Scores = read(&folder.join("gen_ppl.json"))?;
    let data: Data = read(&folder.join("data.json"))?;
    let tokenizer = |name: &str| {
        let path = tokenizers.join(name).join("tokenizer.json");
        path.is_file()
            .then(|| TextTokenizer::load(path).map_err(|error| error.to_string()))
            .transpose()
    };
    let (gpt2, bert) = (tokenizer("gpt2")?, tokenizer("bert-base-uncased")?);
    let mut lines = scored::<B>(&scores, &folder.join("tiny-gpt2"), gpt2.as_ref())?;
    for (detokenizer, pairs) in [
        (Detokenizer::Lm1b, &data.lm1b),
        (Detokenizer::Wikitext, &data.wikitext),
        (Detokenizer::Ptb, &data.ptb),
        (Detokenizer::Lambada, &data.lambada),
    ] {
        let same = |[text, expected]: &[String; 2]| detokenizer.apply(text) == *expected;
        lines.push(counted(
            detokenizer.name(),
            pairs.len(),
            pairs.iter().filter(|pair| !same(pair)).count(),
        ));
    }
    for (name, wrapped, tokenizer) in [
        ("lm1b_wrap.packed", &data.lm1b_wrap, bert),
        ("owt_wrap.packed", &data.owt_wrap, gpt2),
    ] {
        lines.push(match tokenizer {
            Some(tokenizer) => packed(name, wrapped, tokenizer)?,
            None => skipped(name),
        });
    }
    Ok(lines)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fault(&error))?;
    serde_json::from_str(&text).map_err(|error| fault(&error))
}

fn counted(name: &str, count: usize, wrong: usize) -> Line {
    Line {
        name: name.to_owned(),
        verdict: Verdict::Tokens {
            count,
            wrong,
            ties: 0,
        },
    }
}

fn skipped(name: &str) -> Line {
    Line {
        name: name.to_owned(),
        verdict: Verdict::Skipped("its tokenizer is missing"),
    }
}

/// Compares per-token losses and perplexity by GPT-2, and the unigram entropy.
fn scored<B: Backend>(
    scores: &Scores,
    gpt2: &Path,
    tokenizer: Option<&TextTokenizer>,
) -> Result<Vec<Line>, String> {
    let device = B::Device::default();
    let model = Gpt2::<B>::load(gpt2, &device).map_err(|error| error.to_string())?;
    let counts = [
        scores.texts.len(),
        scores.encoded.len(),
        scores.nll_per_token.len(),
    ];
    if counts.iter().any(|count| *count != counts[0]) {
        return Err(format!(
            "gen_ppl.json has {} texts, {} encodings and {} rows of losses, expected equal counts",
            counts[0], counts[1], counts[2]
        ));
    }
    let mut lines = Vec::new();
    for (i, (tokens, expected)) in scores.encoded.iter().zip(&scores.nll_per_token).enumerate() {
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let tokens = TensorData::new(ids, [1, tokens.len()]);
        let nats = model.nats(Tensor::<B, 2, Int>::from_data(tokens, &device));
        lines.push(Line {
            name: format!("gen_ppl.nll_per_token.{i}"),
            verdict: numbers(&flat(nats), expected, LOSS),
        });
    }
    lines.push(match tokenizer {
        Some(tokenizer) => {
            let reading = tokenizer.clone().reading_specials();
            let same = |(text, expected): &(&String, &Vec<u32>)| {
                reading.encode(text).is_ok_and(|found| found == **expected)
            };
            let pairs = || scores.texts.iter().zip(&scores.encoded);
            let wrong = pairs().filter(|pair| !same(pair)).count();
            counted("gen_ppl.encoded", scores.texts.len(), wrong)
        }
        None => skipped("gen_ppl.encoded"),
    });
    // Encodes by looking up the pinned tokens, so that no tokenizer is needed.
    let known: HashMap<&str, &Vec<u32>> = (scores.texts.iter())
        .map(String::as_str)
        .zip(&scores.encoded)
        .collect();
    let encode = Box::new(|text: &str| Ok(known.get(text).copied().cloned().unwrap_or_default()));
    let scorer = CausalScorer::new(
        &model,
        encode,
        "pinned",
        EOS,
        scores.max_length,
        scores.batch_size,
        device,
    )
    .map_err(|error| error.to_string())?;
    let found = GenPpl::of(&scorer, &scores.texts).map_err(|error| error.to_string())?;
    let relative = |found: f64, expected: f64| (found / expected - 1.0).abs();
    lines.push(Line {
        name: "gen_ppl.gen_ppl".to_owned(),
        verdict: Verdict::Numbers {
            error: relative(found.perplexity, scores.gen_ppl),
            tolerance: LOSS,
        },
    });
    let entropy = mean_unigram_entropy(&scores.entropy_tokens).unwrap_or(f64::NAN);
    lines.push(Line {
        name: "gen_ppl.entropy_nats".to_owned(),
        verdict: Verdict::Numbers {
            error: relative(entropy, scores.entropy_nats),
            tolerance: ENTROPY,
        },
    });
    Ok(lines)
}

/// Compares the packed blocks of the documents.
fn packed(name: &str, wrapped: &Wrapped, tokenizer: TextTokenizer) -> Result<Line, String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = home.path().join("data");
    let documents = wrapped.documents.clone();
    let corpus = FnCorpus::new(name, move || documents.clone().into_iter().map(Ok));
    let mut options = PrepareOptions::new(
        TokenizerSource::Given(Box::new(tokenizer)),
        wrapped.block_size,
    );
    options.layout = Layout::Packed;
    options.validation_share = 0.0;
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    flm_data::prepare(&corpus, &options, &out, false, go_on).map_err(|error| error.to_string())?;
    let data = Dataset::open(&out).map_err(|error| error.to_string())?;
    let found: Vec<Vec<u32>> = (0..data.train().rows())
        .map(|row| data.train().row(row).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let differ = (found.iter().zip(&wrapped.packed)).filter(|(a, b)| a != b);
    let wrong = differ.count() + found.len().abs_diff(wrapped.packed.len());
    Ok(counted(name, wrapped.packed.len(), wrong))
}
