//! What can be wrong with tensors that should be the parameters of a network.

use std::path::PathBuf;

/// Why tensors are not the parameters of a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// A parameter of the network has no tensor.
    #[error("{}: tensor {name} of shape {expected:?} is missing", file.display())]
    Missing {
        /// Where the tensors come from.
        file: PathBuf,
        /// The parameter.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
    /// A tensor belongs to no parameter of the network.
    #[error("{}: tensor {name} of shape {found:?} belongs to no parameter of this network", file.display())]
    Extra {
        /// Where the tensors come from.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A name occurs twice.
    #[error("{}: tensor {name} occurs twice", file.display())]
    Repeated {
        /// Where the tensors come from.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than its parameter.
    #[error("{}: tensor {name} must have shape {expected:?}, found {found:?}", file.display())]
    Shape {
        /// Where the tensors come from.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has more or fewer values than its shape says.
    #[error("{}: tensor {name} of shape {shape:?} has {found} values", file.display())]
    Count {
        /// Where the tensors come from.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of its values.
        found: usize,
    },
    /// There is far less in a file than the network has.
    #[error("{} has {held} bytes, but a network of {described} parameters is described", file.display())]
    Far {
        /// Where the tensors come from.
        file: PathBuf,
        /// Parameters of the network.
        described: u128,
        /// Bytes of the file.
        held: u64,
    },
    /// A value is infinite or not a number.
    #[error("{}: tensor {name} holds {found} at position {position}; every value must be finite", file.display())]
    NotFinite {
        /// Where the tensors come from.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Index of the first such value in row order.
        position: usize,
        /// The value.
        found: f32,
    },
}
