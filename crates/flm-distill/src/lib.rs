//! Training objectives of flows and flow maps.
//!
//! A *flow* learns to denoise: [`FlowObjective`] scores D_τ(I_t) against the tokens. Its *flow map*
//! learns to jump: [`FlowMapObjective`] trains δ_{s,t}. On the diagonal s = t the target is the
//! denoiser of a frozen teacher, or the tokens in self-distillation. Off the diagonal the target
//! comes from an [`OffDiagonal`] loss: [`Semigroup`], [`Lagrangian`], [`Eulerian`], [`Ecld`],
//! [`Consistency`] or [`Path`].
//!
//! [`DistributionObjective`] matches distributions instead of trajectories. The recipe with two
//! networks from the paper's first version is [`ResidualObjective`], then [`ResidualStudent`].
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
//! The crate contains no optimizers, data or files; the training loop is in `flm-train`. Times and
//! noise are arguments, so tests can pin a loss to golden numbers.

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

/// Compiles the snippets of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
