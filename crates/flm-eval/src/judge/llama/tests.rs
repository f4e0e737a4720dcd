use std::fs;

use burn::tensor::TensorData;
use burn_flex::Flex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;

use super::*;
use crate::judge::gguf::tests::Writer;

const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_act": "silu", "vocab_size": 11, "max_position_embeddings": 9, "hidden_size": 8,
    "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": true
}"#;

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Returns tensors by their Hugging Face names, and the GGUF names in the same order.
fn tensors() -> (Tensors, Vec<String>) {
    let mut names = vec![("embed_tokens", "token_embd", vec![11, 8])];
    names.push(("norm", "output_norm", vec![8]));
    let of_block = [
        ("input_layernorm", "attn_norm", vec![8]),
        ("self_attn.q_proj", "attn_q", vec![8, 8]),
        ("self_attn.k_proj", "attn_k", vec![4, 8]),
        ("self_attn.v_proj", "attn_v", vec![4, 8]),
        ("self_attn.o_proj", "attn_output", vec![8, 8]),
        ("post_attention_layernorm", "ffn_norm", vec![8]),
        ("mlp.gate_proj", "ffn_gate", vec![12, 8]),
        ("mlp.up_proj", "ffn_up", vec![12, 8]),
        ("mlp.down_proj", "ffn_down", vec![8, 12]),
    ];
    let mut all: Vec<(String, String, Vec<usize>)> = (names.into_iter())
        .map(|(hub, gguf, shape)| (format!("model.{hub}"), gguf.to_owned(), shape))
        .collect();
    for i in 0..2 {
        all.extend(of_block.iter().map(|(hub, gguf, shape)| {
            let hub = format!("model.layers.{i}.{hub}");
            (hub, format!("blk.{i}.{gguf}"), shape.clone())
        }));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut tensors = Vec::new();
    let mut in_gguf = Vec::new();
    for (hub, gguf, shape) in all {
        let count = shape.iter().product();
        let values = (0..count).map(|_| rng.random_range(-0.8..0.8)).collect();
        tensors.push((format!("{hub}.weight"), shape, values));
        in_gguf.push(format!("{gguf}.weight"));
    }
    (tensors, in_gguf)
}

fn folder(config: &str, tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<u8>> = tensors.iter().map(|(.., values)| bytes(values)).collect();
    let views = tensors.iter().zip(&all).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    let path = folder.path().join("model.safetensors");
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    folder
}

fn load(config: &str, tensors: &Tensors) -> Result<Llama<Flex>, String> {
    let folder = folder(config, tensors);
    Llama::load(folder.path(), &Default::default()).map_err(|error| {
        let place = folder.path().display().to_string();
        error.to_string().replace(&place, "folder")
    })
}

fn nats(model: &Llama<Flex>, tokens: &[[i64; 5]]) -> Vec<f32> {
    let data: Vec<i64> = tokens.iter().flatten().copied().collect();
    let tokens = TensorData::new(data, [tokens.len(), 5]);
    let tokens = Tensor::<Flex, 2, Int>::from_data(tokens, &Default::default());
    model.nats(tokens).into_data().iter::<f32>().collect()
}

#[test]
fn the_distribution_sums_to_one_and_looks_back_only() {
    let model = load(CONFIG, &tensors().0).unwrap();
    let all: Vec<[i64; 5]> = (0..11).map(|last| [3, 1, 4, 1, last]).collect();
    let found = nats(&model, &all);
    let total: f32 = found.chunks(4).map(|row| (-row[3]).exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    for row in found.chunks(4) {
        for (a, b) in row[..3].iter().zip(&found[..3]) {
            assert!((a - b).abs() < 1e-5);
        }
    }
    let other = nats(&model, &[[2, 1, 4, 1, 0]]);
    assert!((other[3] - found[3]).abs() > 1e-4);
    // Order matters, although no position embedding is added.
    let turned = nats(&model, &[[1, 3, 4, 1, 0]]);
    assert!((turned[3] - found[3]).abs() > 1e-5);
}

/// Compares with a scalar implementation of the architecture.
#[test]
fn it_is_the_published_architecture() {
    let (tensors, _) = tensors();
    let model = load(CONFIG, &tensors).unwrap();
    let tokens = [3_usize, 1, 4, 1, 5];
    let of = |name: &str| -> Vec<f64> {
        let found = tensors.iter().find(|(found, ..)| found == name).unwrap();
        found.2.iter().map(|x| f64::from(*x)).collect()
    };
    let map = |weight: &[f64], x: &[f64]| -> Vec<f64> {
        let rows = weight.chunks_exact(x.len());
        rows.map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
            .collect()
    };
    let norm = |weight: &[f64], x: &[f64]| -> Vec<f64> {
        let square: f64 = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (square + 1e-5).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    };
    let turn = |x: &[f64], position: usize| -> Vec<f64> {
        let angle = |i: usize| position as f64 * 100_f64.powf(-(i as f64) / 2.0);
        let turned = |i: usize| {
            let (sin, cos) = angle(i % 2).sin_cos();
            if i < 2 {
                x[i] * cos - x[i + 2] * sin
            } else {
                x[i] * cos + x[i - 2] * sin
            }
        };
        (0..4).map(turned).collect()
    };
    let embedding = of("model.embed_tokens.weight");
    let mut x: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&id| embedding[id * 8..][..8].to_vec())
        .collect();
    for i in 0..2 {
        let of = |name: &str| of(&format!("model.layers.{i}.{name}.weight"));
        let seen: Vec<Vec<f64>> = x.iter().map(|x| norm(&of("input_layernorm"), x)).collect();
        let part =
            |name: &str| -> Vec<Vec<f64>> { seen.iter().map(|x| map(&of(name), x)).collect() };
        let (q, k, v) = (
            part("self_attn.q_proj"),
            part("self_attn.k_proj"),
            part("self_attn.v_proj"),
        );
        for at in 0..5 {
            let mut mixed = Vec::new();
            for head in 0..2 {
                let query = turn(&q[at][head * 4..][..4], at);
                let scores: Vec<f64> = (0..=at)
                    .map(|to| {
                        let key = turn(&k[to], to);
                        query.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>() / 2.0
                    })
                    .collect();
                let total: f64 = scores.iter().map(|score| score.exp()).sum();
                mixed.extend((0..4).map(|j| {
                    let terms = scores.iter().zip(&v);
                    terms
                        .map(|(score, v)| score.exp() / total * v[j])
                        .sum::<f64>()
                }));
            }
            let out = map(&of("self_attn.o_proj"), &mixed);
            x[at].iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
        for x in &mut x {
            let seen = norm(&of("post_attention_layernorm"), x);
            let (gate, up) = (
                map(&of("mlp.gate_proj"), &seen),
                map(&of("mlp.up_proj"), &seen),
            );
            let inner: Vec<f64> = (gate.iter().zip(&up))
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            let out = map(&of("mlp.down_proj"), &inner);
            x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
    }
    let expected: Vec<f64> = (x.iter().zip(&tokens[1..]))
        .map(|(x, &next)| {
            let logits = map(&embedding, &norm(&of("model.norm.weight"), x));
            logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[next]
        })
        .collect();
    let found = nats(&model, &[[3, 1, 4, 1, 5]]);
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-4,
            "{found} {expected}"
        );
    }
}

/// Reorders rows to GGUF's layout, in which adjacent entries of a head rotate as a pair.
fn in_pairs(values: &[f32], head_width: usize) -> Vec<f32> {
    let head = |rows: &[f32]| -> Vec<f32> {
        let row = |place: usize| {
            let from = place / 2 + place % 2 * (head_width / 2);
            rows[from * 8..][..8].to_vec()
        };
        (0..head_width).flat_map(row).collect()
    };
    values.chunks_exact(head_width * 8).flat_map(head).collect()
}

#[test]
fn a_gguf_file_holds_the_same_model() {
    let (tensors, in_gguf) = tensors();
    let expected = nats(&load(CONFIG, &tensors).unwrap(), &[[3, 1, 4, 1, 5]]);
    let mut writer = Writer::default()
        .text("general.architecture", "llama")
        .size("llama.context_length", 9)
        .size("llama.embedding_length", 8)
        .size("llama.feed_forward_length", 12)
        .size("llama.block_count", 2)
        .size("llama.attention.head_count", 2)
        .size("llama.attention.head_count_kv", 1)
        .number("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .number("llama.rope.freq_base", 100.0);
    for ((_, shape, values), name) in tensors.iter().zip(&in_gguf) {
        let turns = name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight");
        let values = if turns {
            in_pairs(values, 4)
        } else {
            values.clone()
        };
        writer = writer.tensor(name, shape, &values);
    }
    let file = writer.read().unwrap();
    let model = Llama::<Flex>::from_gguf(&file, &Default::default()).unwrap();
    assert_eq!(model.name(), "llama-2x8");
    let found = nats(&model, &[[3, 1, 4, 1, 5]]);
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn faults_name_the_tensor_or_the_key() {
    let (whole, _) = tensors();
    let fault = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = whole.clone();
        change(&mut changed);
        load(CONFIG, &changed).unwrap_err()
    };
    assert_eq!(
        fault(&|tensors| drop(tensors.remove(3))),
        "folder: tensor layers.0.self_attn.q_proj.weight of shape [8, 8] is missing"
    );
    assert_eq!(
        fault(&|tensors| tensors.push(("model.more".to_owned(), vec![1], vec![0.0]))),
        "folder: tensor more of shape [1] does not belong to this Llama model"
    );
    assert_eq!(
        fault(&|tensors| tensors.push(("lm_head.weight".to_owned(), vec![11, 8], vec![0.0; 88]))),
        "folder: tensor lm_head.weight differs from embed_tokens.weight, which it is tied to"
    );
    let setting = |from: &str, to: &str| load(&CONFIG.replace(from, to), &whole).unwrap_err();
    assert_eq!(
        setting("\"llama\"", "\"mistral\""),
        "folder/config.json: model_type must be llama, found mistral"
    );
    assert_eq!(
        setting("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3"),
        "folder/config.json: num_key_value_heads must be a divisor of the number of heads, found 3"
    );
    assert_eq!(
        setting(
            "\"rms_norm_eps\": 1e-5,",
            "\"rms_norm_eps\": 1e-5, \"rope_scaling\": {\"factor\": 2.0},"
        ),
        "folder/config.json: rope_scaling must be null, found {\"factor\":2.0}"
    );
    // An untied model has its own output head.
    let mut own = whole.clone();
    own.push(("lm_head.weight".to_owned(), vec![11, 8], vec![0.0; 88]));
    let untied = load(&CONFIG.replace("true", "false"), &own).unwrap();
    let found = nats(&untied, &[[3, 1, 4, 1, 5]]);
    assert!(found.iter().all(|nats| (nats - 11_f32.ln()).abs() < 1e-5));
}
