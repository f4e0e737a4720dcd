//! The reference's parameter names, and their variants in files.

use super::ReferenceError;
use std::path::Path;

/// Prefix of the network's names in a training checkpoint.
pub(super) const BACKBONE: &str = "backbone.";
/// Part of the parameter names of compiled modules.
const COMPILED: &str = "_orig_mod.";

/// A tensor: its name, its shape, and a handle to read it.
type Listed<T> = (String, Vec<usize>, T);

/// The tensors of a file.
pub(super) struct Sorted<T> {
    /// The network's tensors, by the reference's names.
    pub(super) network: Vec<Listed<T>>,
    /// Names of the teacher's tensors.
    pub(super) left_out: Vec<String>,
}

/// Separates the network's tensors from a teacher's.
///
/// # Errors
///
/// [`ReferenceError::Unreadable`] for a tensor that belongs to neither.
pub(super) fn sort<T>(path: &Path, tensors: Vec<Listed<T>>) -> Result<Sorted<T>, ReferenceError> {
    let of_a_training = (tensors.iter()).any(|(name, ..)| name.starts_with(BACKBONE));
    let mut sorted = Sorted {
        network: Vec::new(),
        left_out: Vec::new(),
    };
    for (name, shape, tensor) in tensors {
        if name.starts_with("teacher") || name.starts_with("diag_teacher") {
            sorted.left_out.push(name);
            continue;
        }
        let plain = match name.strip_prefix(BACKBONE) {
            Some(plain) => plain,
            None if !of_a_training => &name,
            None => {
                return Err(ReferenceError::Unreadable {
                    path: path.to_path_buf(),
                    reason: "belongs neither to the network (backbone.) nor to a teacher"
                        .to_owned(),
                    name,
                });
            }
        };
        sorted
            .network
            .push((plain.replace(COMPILED, ""), shape, tensor));
    }
    Ok(sorted)
}
