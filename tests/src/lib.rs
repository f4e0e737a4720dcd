//! Code shared by the end-to-end tests, which live in `tests/`.
//!
//! [`parity`] checks agreement with the published implementation on two sets of fixtures:
//!
//! - `golden/fmlm.safetensors` is in the repository. It holds the weights of a small two-time
//!   network and the reference's results for them, so its checks run in any clone.
//! - The full fixtures are in `../shared` beside the repository, or in the folder `FLM_SHARED`.
//!   Tests that need them print that they are skipped if they are missing.
//!
//! This command extracts the golden file from the full fixtures:
//!
//! ```text
//! cargo run -p flm-tests --example golden
//! ```
//!
//! Where the fixtures exist, a test checks that the golden file still matches them.
//!
//! [`backend`] holds the checks that every backend must pass.

pub mod backend;
pub mod fixture;
pub mod golden;
pub mod gradients;
pub mod parity;
pub mod sentences;
