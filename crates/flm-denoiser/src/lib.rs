//! The transformer denoiser of a flow language model.
mod block;
mod config;
mod dit;
mod dropout;
mod embed;
mod head;
mod init;

pub use block::Block;
pub use config::{ConfigError, DitConfig};
pub use dit::Dit;
pub use dropout::Dropout;
pub use embed::{TimeEmbed, VocabEmbed};
pub use head::{Belief, OutputLayer, Prediction};
