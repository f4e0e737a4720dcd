//! Inference of a network's sizes from the shapes of its tensors.

use super::{Hints, Kind, ReferenceError, Settings};
use crate::{DitConfig, NamedTensor};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Prefix of the tensors that only a two-time network has.
pub(super) const SECOND_TIME: &str = "sigma_map_prime.";
/// Prefix of the tensors of a learned loss weight.
const LOSS_WEIGHT: &str = "learnable_loss_weighting.";
/// The rotary frequencies 10,000^(−2i/w) for a head of width w, constants that the reference saves.
pub(super) const ROTARY: &str = "rotary_emb.inv_freq";

/// Returns the configuration of the network with these tensor names and shapes.
pub(super) fn infer(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    settings: &Settings,
    hints: &Hints,
    kind: Kind,
) -> Result<DitConfig, ReferenceError> {
    let by_name: HashMap<&str, &[usize]> = shapes
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();
    let matrix = |name: &'static str| match by_name.get(name) {
        Some([rows, columns]) => Ok([*rows, *columns]),
        Some(other) => Err(ReferenceError::Unreadable {
            path: path.to_path_buf(),
            name: name.to_owned(),
            reason: format!("must be a matrix, found shape {other:?}"),
        }),
        None => Err(ReferenceError::NoNetwork {
            path: path.to_path_buf(),
            name,
        }),
    };
    let [vocab_size, width] = matrix("vocab_embed.embedding")?;
    let [cond_dim, _] = matrix("sigma_map.mlp.2.weight")?;
    let [hidden, _] = matrix("blocks.0.mlp.0.weight")?;
    let has = |prefix| by_name.keys().any(|name| name.starts_with(prefix));
    let blocks: BTreeSet<&str> = (by_name.keys())
        .filter_map(|name| name.strip_prefix("blocks.")?.split('.').next())
        .collect();

    // There are half as many rotary frequencies as the width of a head.
    let rotated = by_name.get(ROTARY).and_then(|shape| match shape {
        [half] => width.checked_div(2 * half),
        _ => None,
    });
    let told = |key, told: Option<usize>, given: Option<usize>| match (told, given) {
        (Some(found), Some(given)) if found != given => Err(ReferenceError::Contradiction {
            path: path.to_path_buf(),
            key,
            found,
            given,
        }),
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => Err(ReferenceError::Untold {
            path: path.to_path_buf(),
            key,
        }),
    };
    let length = told("length", settings.length, hints.length)?;
    let heads = told("heads", rotated.or(settings.heads), hints.heads)?;
    let config = DitConfig::new(vocab_size, length, width, blocks.len(), heads);
    Ok(DitConfig {
        cond_dim,
        // If this does not divide evenly, a later check reports the tensor's shape.
        mlp_ratio: (hidden / width.max(1)).max(1),
        two_time: has(SECOND_TIME),
        loss_weight: has(LOSS_WEIGHT),
        residual: kind == Kind::Residual,
        dropout: settings.dropout.unwrap_or(config.dropout),
        ..config
    })
}

/// Removes the rotary frequencies from the tensors and checks that they match the network.
pub(super) fn check_rotary(
    path: &Path,
    tensors: &mut Vec<NamedTensor>,
    config: &DitConfig,
) -> Result<(), ReferenceError> {
    let Some(place) = tensors.iter().position(|tensor| tensor.name == ROTARY) else {
        return Ok(());
    };
    let found = tensors.remove(place);
    let expected = frequencies(config);
    // They are computed in f32 and may be saved in 16 bits; bf16 has a relative error of 2⁻⁸. With
    // another base, they differ by far more from the second frequency on.
    let near = |(found, expected): (&f32, &f32)| (found / expected - 1.0).abs() < 5e-3;
    if found.values.len() == expected.len() && found.values.iter().zip(&expected).all(near) {
        return Ok(());
    }
    Err(ReferenceError::Unreadable {
        path: path.to_path_buf(),
        name: found.name,
        reason: format!(
            "must hold the {} rotary frequencies of base {}, found other values",
            expected.len(),
            config.rope_base
        ),
    })
}

/// The rotary frequencies of a head.
pub(super) fn frequencies(config: &DitConfig) -> Vec<f32> {
    let head = config.width / config.heads;
    (0..head / 2)
        .map(|i| config.rope_base.powf(-2.0 * i as f64 / head as f64) as f32)
        .collect()
}
