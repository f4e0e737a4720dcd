//! The transformer denoiser of a flow language model.
mod block;
mod config;
mod dit;
mod dropout;
mod embed;
pub mod folder;
mod head;
mod init;
mod noise;
mod sampling;
mod tensors;

pub use block::Block;
pub use config::{ConfigError, DitConfig};
pub use dit::Dit;
pub use dropout::Dropout;
pub use embed::{TimeEmbed, VocabEmbed};
pub use noise::Noise;
pub use head::{Belief, OutputLayer, Prediction};
pub use sampling::{Sampling, TemperatureError};
pub use tensors::{NamedTensor, TensorError, apply_tensors, named_tensors};
