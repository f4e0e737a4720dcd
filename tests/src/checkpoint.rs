//! Checkpoints of the reference (`.ckpt`: a zip archive of a pickle and one file for each storage).

use crate::pickle::{self, Heap, Id, Value};
use burn::tensor::backend::Backend;
use burn_store::pytorch::lazy_data::LazyDataSource;
use flm_denoiser::{Dit, DitConfig, NamedTensor, apply_tensors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// The network of a checkpoint, with the averaged weights that the reference samples from.
///
/// # Errors
///
/// A sentence naming the file, and the tensor where it is one, if the checkpoint does not hold exactly the parameters of `config`.
pub fn load_ema<B: Backend>(path: &Path, config: &DitConfig) -> Result<Dit<B>, String> {
    let tensors = ema(path).map_err(|message| format!("{}: {message}", path.display()))?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let model = config
        .init(&mut rng, &B::Device::default())
        .map_err(|error| error.to_string())?;
    apply_tensors(model, path, tensors).map_err(|error| error.to_string())
}

/// The averaged weights: a list without names, in the order of the parameters, which is that of the live weights' dictionary
/// once its buffers are left out.
fn ema(path: &Path) -> Result<Vec<NamedTensor>, String> {
    let archive = Archive::open(path)?;
    let heap = &archive.heap;
    let live = heap.entries(heap.get(heap.root(), "state_dict")?)?;
    let shadow = heap.get(heap.get(heap.root(), "ema")?, "shadow_params")?;
    let Value::List(shadow) = heap.value(shadow) else {
        return Err("ema.shadow_params is not a list".to_owned());
    };

    let mut named = Vec::new();
    for (name, live) in live {
        let plain = name
            .strip_prefix("backbone.")
            .ok_or_else(|| format!("{name} is not of the backbone"))?;
        // A compiled module is wrapped in another.
        let plain = plain.strip_prefix("_orig_mod.").unwrap_or(plain);
        if plain != "rotary_emb.inv_freq" {
            named.push((plain.to_owned(), live));
        }
    }
    if named.len() != shadow.len() {
        return Err(format!(
            "{} parameters, but {} averaged weights",
            named.len(),
            shadow.len()
        ));
    }
    let pairs = named.into_iter().zip(shadow);
    pairs
        .map(|((name, live), shadow)| {
            let (shape, values) = archive
                .tensor(*shadow)
                .map_err(|message| format!("{name}: {message}"))?;
            let (expected, _) = archive
                .tensor(live)
                .map_err(|message| format!("{name}: {message}"))?;
            if shape != expected {
                return Err(format!(
                    "{name} has shape {expected:?}, its average {shape:?}"
                ));
            }
            Ok(NamedTensor {
                name,
                shape,
                values,
            })
        })
        .collect()
}

struct Archive {
    source: LazyDataSource,
    /// Folder of everything in the archive.
    folder: String,
    heap: Heap,
}

impl Archive {
    fn open(path: &Path) -> Result<Self, String> {
        let source = LazyDataSource::from_zip(path).map_err(|error| error.to_string())?;
        let keys = source.keys();
        let folder = keys
            .iter()
            .find_map(|key| key.split_once("/data/"))
            .ok_or("there are no storages")?
            .0
            .to_owned();
        let bytes = source
            .read(&format!("{folder}/data.pkl"))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            heap: pickle::read(&bytes)?,
            source,
            folder,
        })
    }

    /// Sizes and values of a tensor that fills its storage.
    fn tensor(&self, id: Id) -> Result<(Vec<usize>, Vec<f32>), String> {
        let Value::Tensor(storage, offset, shape, strides) = self.heap.value(id) else {
            return Err("it is not a tensor".to_owned());
        };
        let Value::Storage(kind, key) = self.heap.value(*storage) else {
            return Err("it has no storage".to_owned());
        };
        let mut contiguous = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            contiguous[i - 1] = contiguous[i] * shape[i];
        }
        if kind != "torch.FloatStorage" || offset != &[0] || strides != &contiguous {
            return Err(format!(
                "{kind} from {offset:?} in steps of {strides:?} is not read"
            ));
        }
        let bytes = self
            .source
            .read(&format!("{}/data/{key}", self.folder))
            .map_err(|error| error.to_string())?;
        let values: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let shape: Vec<usize> = shape
            .iter()
            .map(|size| usize::try_from(*size).unwrap_or(0))
            .collect();
        if values.len() != shape.iter().product::<usize>() {
            return Err(format!("shape {shape:?}, but {} values", values.len()));
        }
        Ok((shape, values))
    }
}
