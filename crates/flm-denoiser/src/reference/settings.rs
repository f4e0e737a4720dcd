//! The settings stored in the reference's files.

use super::pickle::{Heap, Id, Value};
use serde_json::{Map, Value as Json};

/// Limits on settings, which have a few hundred values in small dictionaries of a few levels. A
/// pickle can contain one dictionary many times in another, and so on, which grows exponentially.
const MOST_VALUES: usize = 1_000;
const DEEPEST: usize = 16;
const MOST_ENTRIES: usize = 10_000;

/// The reference's settings that the import uses, by the keys of its configuration files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `algo.name`, such as `flm` or `fmlm`.
    pub algorithm: Option<String>,
    /// `model.length`, the sequence length in tokens.
    pub length: Option<usize>,
    /// `model.n_heads`.
    pub heads: Option<usize>,
    /// `model.dropout`.
    pub dropout: Option<f64>,
    /// `data.tokenizer_name_or_path`.
    pub tokenizer: Option<String>,
    /// Number of training steps, from a checkpoint.
    pub step: Option<u64>,
    /// Decay of the averages, from a checkpoint.
    pub decay: Option<f64>,
}

impl Settings {
    /// Reads a `config.json`, whose settings may be nested in `config`.
    pub(super) fn of_json(json: &Json) -> Self {
        let config = match json.get("config") {
            Some(inner @ Json::Object(_)) => inner,
            _ => json,
        };
        let text = |place| config.pointer(place)?.as_str().map(str::to_owned);
        let count = |place| usize::try_from(config.pointer(place)?.as_u64()?).ok();
        Self {
            algorithm: text("/algo/name"),
            length: count("/model/length"),
            heads: count("/model/n_heads"),
            dropout: config.pointer("/model/dropout").and_then(Json::as_f64),
            tokenizer: text("/data/tokenizer_name_or_path"),
            step: None,
            decay: None,
        }
    }

    /// Reads a Lightning checkpoint: its `hyper_parameters`, its step and the decay of
    /// its averages.
    pub(super) fn of_pickle(heap: &Heap) -> Self {
        let root = heap.root();
        let parameters = heap.get(root, "hyper_parameters");
        let json = parameters.map_or(Json::Null, |id| {
            plain(heap, id, DEEPEST, &mut { MOST_VALUES })
        });
        let step = heap
            .get(root, "global_step")
            .and_then(|id| match heap.value(id) {
                Value::Int(step) => u64::try_from(*step).ok(),
                _ => None,
            });
        let decay = heap
            .get(root, "ema")
            .and_then(|ema| heap.get(ema, "decay"))
            .and_then(|id| match heap.value(id) {
                Value::Float(decay) => Some(*decay),
                _ => None,
            });
        Self {
            step,
            decay,
            ..Self::of_json(&json)
        }
    }
}

/// Unwraps a value. The state of an omegaconf object has a dictionary's entries in `_content`, and
/// a value in `_val`. Beyond `depth` levels or `left` values, the result is null.
fn plain(heap: &Heap, id: Id, depth: usize, left: &mut usize) -> Json {
    let (Some(depth), Some(fewer)) = (depth.checked_sub(1), left.checked_sub(1)) else {
        return Json::Null;
    };
    *left = fewer;
    match heap.value(id) {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Object(_, Some(state)) => {
            let inner = (heap.get(*state, "_content")).or_else(|| heap.get(*state, "_val"));
            inner.map_or(Json::Null, |inner| plain(heap, inner, depth, left))
        }
        Value::Dict(pairs) if pairs.len() <= MOST_ENTRIES => {
            let mut found = Map::new();
            // Keep only the keys that are used.
            for key in WANTED {
                if let Some(value) = heap.get(id, key) {
                    found.insert(key.to_owned(), plain(heap, value, depth, left));
                }
            }
            Json::Object(found)
        }
        _ => Json::Null,
    }
}

/// Keys on the path to a setting.
const WANTED: [&str; 9] = [
    "config",
    "algo",
    "model",
    "data",
    "name",
    "length",
    "n_heads",
    "dropout",
    "tokenizer_name_or_path",
];
