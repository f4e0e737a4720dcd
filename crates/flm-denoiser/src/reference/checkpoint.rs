//! Lightning checkpoints: parameters, their averages and training state.

use super::archive::Archive;
use super::pickle::{Id, Value};
use super::sizes::ROTARY;
use super::{ReferenceError, Settings, Weights, names};
use crate::NamedTensor;
use std::path::{Path, PathBuf};

pub(super) struct Checkpoint {
    path: PathBuf,
    archive: Archive,
    /// The network's tensors, in file order.
    live: Vec<(String, Vec<usize>, Id)>,
    /// The averages, if any: a list without names.
    averages: Option<Vec<Id>>,
    /// Whether the file is only a dictionary of tensors, as written
    /// by `torch.save(model.state_dict())`.
    one_set: bool,
}

impl Checkpoint {
    /// Opens a checkpoint, and returns it with the names of the teacher's tensors.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<String>), ReferenceError> {
        let fault = |reason| ReferenceError::Checkpoint {
            path: path.to_path_buf(),
            reason,
        };
        // Reports the I/O error of a file that cannot be opened, instead of a zip error.
        drop(std::fs::File::open(path).map_err(ReferenceError::io("read", path))?);
        let archive = Archive::open(path).map_err(fault)?;
        let heap = &archive.heap;
        let of_a_training = heap.get(heap.root(), "state_dict");
        let state = of_a_training.unwrap_or(heap.root());
        let entries = heap.entries(state).map_err(fault)?;
        let mut listed = Vec::with_capacity(entries.len());
        for (name, id) in entries {
            let shape = archive
                .shape(id)
                .map_err(|reason| unreadable(path, name, reason))?;
            listed.push((name.to_owned(), shape.to_vec(), id));
        }
        let sorted = names::sort(path, listed)?;
        let averages = match heap.get(heap.root(), "ema") {
            Some(ema) => heap.get(ema, "shadow_params"),
            None => None,
        };
        let averages = averages.and_then(|list| match heap.value(list) {
            Value::List(ids) | Value::Tuple(ids) => Some(ids.clone()),
            _ => None,
        });
        let checkpoint = Self {
            path: path.to_path_buf(),
            live: sorted.network,
            averages,
            one_set: of_a_training.is_none(),
            archive,
        };
        Ok((checkpoint, sorted.left_out))
    }

    pub(super) fn settings(&self) -> Settings {
        Settings::of_pickle(&self.archive.heap)
    }

    pub(super) fn has_averages(&self) -> bool {
        self.averages.is_some()
    }

    pub(super) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        (self.live.iter())
            .map(|(name, shape, _)| (name.clone(), shape.clone()))
            .collect()
    }

    /// Returns the tensors of the network.
    pub(super) fn tensors(&self, weights: Weights) -> Result<Vec<NamedTensor>, ReferenceError> {
        match (weights, self.one_set) {
            (Weights::Live, true) => Err(ReferenceError::OneSet {
                path: self.path.clone(),
            }),
            (Weights::Live, false) | (Weights::Averaged, true) => (self.live.iter())
                .map(|(name, _, id)| self.read(name, *id))
                .collect(),
            (Weights::Averaged, false) => self.averaged(),
        }
    }

    /// Reads the averages. They are in the order of the parameters, which is the file's order
    /// without the tensors that are not parameters.
    fn averaged(&self) -> Result<Vec<NamedTensor>, ReferenceError> {
        let Some(averages) = &self.averages else {
            return Err(ReferenceError::NoAverages {
                path: self.path.clone(),
            });
        };
        let is_parameter = |(name, ..): &&(String, Vec<usize>, Id)| name != ROTARY;
        let parameters = self.live.iter().filter(is_parameter).count();
        if parameters != averages.len() {
            return Err(ReferenceError::Averages {
                path: self.path.clone(),
                parameters,
                averages: averages.len(),
            });
        }
        let mut averages = averages.iter();
        let mut tensors = Vec::with_capacity(self.live.len());
        for (name, shape, id) in &self.live {
            if name == ROTARY {
                tensors.push(self.read(name, *id)?);
                continue;
            }
            let id = averages.next().expect("the counts were compared");
            let average = self.read(name, *id)?;
            if average.shape != *shape {
                return Err(unreadable(
                    &self.path,
                    name,
                    format!("has shape {shape:?}, its average {:?}", average.shape),
                ));
            }
            tensors.push(average);
        }
        Ok(tensors)
    }

    fn read(&self, name: &str, id: Id) -> Result<NamedTensor, ReferenceError> {
        let (shape, values) = self
            .archive
            .tensor(id)
            .map_err(|reason| unreadable(&self.path, name, reason))?;
        Ok(NamedTensor {
            name: name.to_owned(),
            shape,
            values,
        })
    }
}

fn unreadable(path: &Path, name: &str, reason: String) -> ReferenceError {
    ReferenceError::Unreadable {
        path: path.to_path_buf(),
        name: name.to_owned(),
        reason,
    }
}
