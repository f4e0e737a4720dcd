//! Errors of tensors that do not match the parameters of a network.

use std::path::PathBuf;

/// An error for tensors that do not match the parameters of a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// A parameter of the network has no tensor.
    #[error("{}: tensor {name} of shape {expected:?} is missing", file.display())]
    Missing {
        /// The origin of the tensors.
        file: PathBuf,
        /// The parameter.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
    /// A tensor does not match any parameter of the network.
    #[error("{}: tensor {name} of shape {found:?} does not match any parameter of this network", file.display())]
    Extra {
        /// The origin of the tensors.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A name occurs twice.
    #[error("{}: tensor {name} occurs twice", file.display())]
    Repeated {
        /// The origin of the tensors.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor and its parameter have different shapes.
    #[error("{}: tensor {name} must have shape {expected:?}, found {found:?}", file.display())]
    Shape {
        /// The origin of the tensors.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// The number of values does not match the shape.
    #[error("{}: tensor {name} of shape {shape:?} has {found} values", file.display())]
    Count {
        /// The origin of the tensors.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of its values.
        found: usize,
    },
    /// The file is far too small for the network.
    #[error("{} has {held} bytes, too few for a network of {described} parameters", file.display())]
    Far {
        /// The origin of the tensors.
        file: PathBuf,
        /// Number of parameters of the network.
        described: u128,
        /// Size of the file in bytes.
        held: u64,
    },
    /// A value is infinite or not a number.
    #[error("{}: tensor {name} holds {found} at position {position}; every value must be finite", file.display())]
    NotFinite {
        /// The origin of the tensors.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Index of the first such value in row order.
        position: usize,
        /// The value.
        found: f32,
    },
}
