use std::fs;

use burn_flex::Flex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;

use super::*;
use crate::judge::CausalScorer;
use crate::{GenPpl, Scorer};

const CONFIG: &str = r#"{
    "model_type": "gpt2", "activation_function": "gelu_new", "vocab_size": 11, "n_positions": 9,
    "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": null, "layer_norm_epsilon": 1e-5
}"#;

/// Returns the names and shapes of a model's tensors.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("wte.weight".to_owned(), vec![11, 8]),
        ("wpe.weight".to_owned(), vec![9, 8]),
    ];
    for i in 0..2 {
        for (name, shape) in [
            ("ln_1.weight", vec![8]),
            ("ln_1.bias", vec![8]),
            ("attn.c_attn.weight", vec![8, 24]),
            ("attn.c_attn.bias", vec![24]),
            ("attn.c_proj.weight", vec![8, 8]),
            ("attn.c_proj.bias", vec![8]),
            ("ln_2.weight", vec![8]),
            ("ln_2.bias", vec![8]),
            ("mlp.c_fc.weight", vec![8, 32]),
            ("mlp.c_fc.bias", vec![32]),
            ("mlp.c_proj.weight", vec![32, 8]),
            ("mlp.c_proj.bias", vec![8]),
        ] {
            shapes.push((format!("h.{i}.{name}"), shape));
        }
    }
    shapes.push(("ln_f.weight".to_owned(), vec![8]));
    shapes.push(("ln_f.bias".to_owned(), vec![8]));
    shapes
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensors() -> Tensors {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (shapes().into_iter())
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let values = (0..count).map(|_| rng.random_range(-0.5..0.5));
            (name, shape, values.collect())
        })
        .collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = (tensors.iter())
        .map(|(.., values)| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = (tensors.iter().zip(&bytes)).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn folder(config: &str, tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    write(&folder.path().join("model.safetensors"), tensors);
    folder
}

fn load(folder: &Path) -> Result<Gpt2<Flex>, String> {
    Gpt2::load(folder, &Default::default()).map_err(|error| {
        let place = folder.display().to_string();
        error.to_string().replace(&place, "folder")
    })
}

fn nats(model: &Gpt2<Flex>, tokens: &[[i64; 5]]) -> Vec<f32> {
    let data: Vec<i64> = tokens.iter().flatten().copied().collect();
    let tokens = burn::tensor::TensorData::new(data, [tokens.len(), 5]);
    let tokens = Tensor::<Flex, 2, Int>::from_data(tokens, &Default::default());
    model.nats(tokens).into_data().iter::<f32>().collect()
}

#[test]
fn the_distribution_sums_to_one_and_looks_back_only() {
    let home = folder(CONFIG, &tensors());
    let model = load(home.path()).unwrap();
    let all: Vec<[i64; 5]> = (0..11).map(|last| [3, 1, 4, 1, last]).collect();
    let found = nats(&model, &all);
    let total: f32 = found.chunks(4).map(|row| (-row[3]).exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    for row in found.chunks(4) {
        for (a, b) in row[..3].iter().zip(&found[..3]) {
            assert!((a - b).abs() < 1e-5);
        }
    }
    // The last token depends on the first.
    let other = nats(&model, &[[2, 1, 4, 1, 0]]);
    assert!((other[3] - found[3]).abs() > 1e-4);
}

#[test]
fn names_may_have_a_prefix_and_parts_a_list() {
    let home = folder(CONFIG, &tensors());
    let expected = nats(&load(home.path()).unwrap(), &[[1, 2, 3, 4, 5]]);
    let mut prefixed = tensors();
    for (name, ..) in &mut prefixed {
        name.insert_str(0, "transformer.");
    }
    prefixed.push(("transformer.h.0.attn.bias".to_owned(), vec![1], vec![1.0]));
    let wte = prefixed[0].clone();
    prefixed.push(("lm_head.weight".to_owned(), wte.1, wte.2));
    let again = folder(CONFIG, &prefixed);
    assert_eq!(
        nats(&load(again.path()).unwrap(), &[[1, 2, 3, 4, 5]]),
        expected
    );

    let parts = folder(CONFIG, &tensors());
    let mut first = tensors();
    let second = first.split_off(9);
    fs::remove_file(parts.path().join("model.safetensors")).unwrap();
    write(&parts.path().join("a.safetensors"), &first);
    write(&parts.path().join("b.safetensors"), &second);
    let index = r#"{"weight_map": {"wte.weight": "a.safetensors", "ln_f.bias": "b.safetensors"}}"#;
    let path = parts.path().join("model.safetensors.index.json");
    fs::write(&path, index).unwrap();
    assert_eq!(
        nats(&load(parts.path()).unwrap(), &[[1, 2, 3, 4, 5]]),
        expected
    );
    fs::write(&path, index.replace("a.safetensors", "../a.safetensors")).unwrap();
    assert!(
        load(parts.path())
            .unwrap_err()
            .contains("found ../a.safetensors")
    );
}

#[test]
fn faults_name_the_tensor_or_the_key() {
    let fault = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = tensors();
        change(&mut changed);
        load(folder(CONFIG, &changed).path()).unwrap_err()
    };
    assert_eq!(
        fault(&|tensors| drop(tensors.remove(4))),
        "folder: tensor h.0.attn.c_attn.weight of shape [8, 24] is missing"
    );
    assert_eq!(
        fault(&|tensors| tensors[4].1 = vec![24, 8]),
        "folder: tensor h.0.attn.c_attn.weight must have shape [8, 24], found [24, 8]"
    );
    assert_eq!(
        fault(&|tensors| tensors.push(("more".to_owned(), vec![1], vec![0.0]))),
        "folder: tensor more of shape [1] does not belong to this GPT-2 model"
    );
    assert_eq!(
        fault(&|tensors| tensors[3].2[1] = f32::NAN),
        "folder/model.safetensors: tensor h.0.ln_1.bias holds NaN; every value must be finite"
    );
    assert_eq!(
        fault(&|tensors| tensors.push(("lm_head.weight".to_owned(), vec![11, 8], vec![0.0; 88]))),
        "folder: tensor lm_head.weight differs from wte.weight, which it is tied to"
    );
    let setting = |from: &str, to: &str| {
        load(folder(&CONFIG.replace(from, to), &tensors()).path()).unwrap_err()
    };
    assert_eq!(
        setting("gelu_new", "relu"),
        "folder/config.json: activation_function must be gelu_new, as in GPT-2, found relu"
    );
    assert_eq!(
        setting("\"n_head\": 2", "\"n_head\": 3"),
        "folder/config.json: n_head must be a divisor of n_embd, found 3"
    );
    assert_eq!(
        setting("\"n_layer\": 2", "\"n_layer\": 16777216"),
        "folder: tensor h.2.ln_1.weight of shape [8] is missing"
    );
    assert!(setting("\"n_embd\": 8", "\"n_embd\": 16777216").contains("at most 2^32 numbers"));
    assert!(setting("\"n_layer\": 2,", "").contains("missing field `n_layer`"));
    let cut = folder(CONFIG, &tensors());
    let path = cut.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(
        load(cut.path())
            .unwrap_err()
            .contains("truncated or corrupt")
    );
}

/// Tokenizes the letters a to j; `.` is the end token.
fn letters(text: &str) -> Vec<u32> {
    let token = |c| "abcdefghij.".find(c).unwrap() as u32;
    text.chars().map(token).collect()
}

fn scorer(
    model: &Gpt2<Flex>,
    max_length: usize,
    batch: usize,
) -> CausalScorer<'_, Flex, Gpt2<Flex>> {
    let encode = Box::new(|text: &str| Ok(letters(text)));
    CausalScorer::new(
        model,
        encode,
        "letters",
        10,
        max_length,
        batch,
        Default::default(),
    )
    .unwrap()
}

#[test]
fn what_counts_is_what_the_reference_counts() {
    let home = folder(CONFIG, &tensors());
    let model = load(home.path()).unwrap();
    let texts = ["abcde.f.", "abc", "", "a", ".ab"];
    let found = scorer(&model, 9, 2).score(&texts).unwrap();
    // The longest text counts all but the first token and the second end token. A text that just
    // stops counts its letters after the first and its end. The empty text counts nothing. A text
    // that starts with an end token counts the rest without the padding.
    let counts: Vec<usize> = found.iter().map(|scored| scored.tokens).collect();
    assert_eq!(counts, [6, 3, 0, 1, 2]);
    // The second text, computed from the model directly.
    let whole = nats(&model, &[[0, 1, 2, 10, 10]]);
    let expected: f32 = whole[..3].iter().sum();
    assert!((found[1].nats - f64::from(expected)).abs() < 1e-4);
    // Batching does not change the result.
    for batch in [1, 3, 5] {
        let again = scorer(&model, 9, batch).score(&texts).unwrap();
        for (a, b) in again.iter().zip(&found) {
            assert_eq!(a.tokens, b.tokens);
            assert!((a.nats - b.nats).abs() < 1e-4);
        }
    }
    // Truncated to four tokens, the first two texts are the longest and pay for no padding.
    let cut = scorer(&model, 4, 2)
        .score(&["abcde.f.", "abcd", "ab"])
        .unwrap();
    assert_eq!(
        cut.iter().map(|scored| scored.tokens).collect::<Vec<_>>(),
        [3, 3, 2]
    );
}

#[test]
fn features_are_what_the_head_sees_at_the_last_token() {
    let home = folder(CONFIG, &tensors());
    let model = load(home.path()).unwrap();
    let texts = ["abcd", "ab", ""];
    let together = scorer(&model, 9, 3).features(&texts).unwrap();
    // An empty text is its end token alone.
    for (tokens, found) in [vec![0_i64, 1, 2, 3], vec![0, 1], vec![10]]
        .into_iter()
        .zip(together)
    {
        let last = (tokens.len() - 1) * 8;
        let shape = [1, tokens.len()];
        let tokens = burn::tensor::TensorData::new(tokens, shape);
        let tokens = Tensor::<Flex, 2, Int>::from_data(tokens, &Default::default());
        let hidden: Vec<f32> = model.hidden(tokens).into_data().iter::<f32>().collect();
        assert_eq!(found.len(), 8);
        for (found, expected) in found.iter().zip(&hidden[last..]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

#[test]
fn a_scorer_says_who_it_is_and_what_it_cannot() {
    let home = folder(CONFIG, &tensors());
    let model = load(home.path()).unwrap();
    let scorer = scorer(&model, 9, 2);
    assert_eq!(
        scorer.identity(),
        format!("gpt2-2x8-{:.16}-letters-9", model.hash())
    );
    let figure = GenPpl::of(&scorer, &["abc", "ab"]).unwrap();
    assert_eq!((figure.samples, figure.tokens), (2, 4));
    let encode = || Box::new(|_: &str| Ok(vec![11]));
    let long = CausalScorer::new(&model, encode(), "x", 10, 10, 2, Default::default());
    assert_eq!(
        long.err().unwrap().to_string(),
        "the maximum text length must be from 2 to 9 tokens, found 10"
    );
    let other = CausalScorer::new(&model, encode(), "x", 10, 9, 2, Default::default()).unwrap();
    let error = other.score(&["x"]).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.to_string(),
        "token 11 is not in the vocabulary of 11: the tokenizer is for another model"
    );
}
