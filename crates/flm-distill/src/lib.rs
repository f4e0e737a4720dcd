//! What a flow and its flow map are trained towards.
//!
//! A *flow* learns to denoise: [`FlowObjective`] scores D_τ(I_t) against the tokens. Its *flow map* learns to jump:
//! [`FlowMapObjective`] draws δ_{s,t} on the diagonal s = t to the denoiser (of a frozen teacher, or to the tokens: then it
//! distills itself) and off the diagonal by an [`OffDiagonal`] loss: [`Semigroup`], [`Lagrangian`], [`Eulerian`],
//! [`Ecld`] or [`Consistency`]. The recipe of two networks, of the paper's first version, stands beside it: [`ResidualObjective`], then [`ResidualStudent`].
//!
//! ```
//! use flm_distill::{FlowMapConfig, RowKind, flow_map_rows};
//! use rand::SeedableRng;
//!
//! let config = FlowMapConfig::default();
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! let rows = flow_map_rows(128, config.diagonal, config.boundary, config.midpoint, &mut rng);
//! assert_eq!(rows.iter().filter(|row| row.kind == RowKind::Diagonal).count(), 64);
//! ```
//!
//! The crate knows objectives and nothing of optimizers, data or files: the loop is `flm-train`'s. Times and noise are
//! passed in, so a loss can be pinned to golden numbers.

mod batch;
mod config;
pub mod cost;
mod distribution;
mod flow;
mod flow_map;
mod known;
mod losses;
mod off_diagonal;
mod references;
mod residual;
mod rows;
mod state;
mod weighting;

pub use batch::{Answer, TargetRows};
pub use config::{DenoiserSource, FlowMapConfig, FlowMapConfigError, Measure, TargetNetwork};
pub use distribution::{
    DistributionConfig, DistributionConfigError, DistributionLosses, DistributionObjective,
    DistributionRow,
};
pub use flow::{FlowObjective, Padding};
pub use flow_map::FlowMapObjective;
pub use known::known_positions;
pub use off_diagonal::*;
pub use residual::{ResidualObjective, ResidualStudent};
pub use rows::{Midpoint, RowKind, TimeRow, diagonal_rows, flow_map_rows};

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
