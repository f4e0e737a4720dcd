//! What the end-to-end tests share; the tests themselves live in `tests/`.
//!
//! Agreement with the published implementation is checked twice. `golden/fmlm.safetensors` is in the repository: the weights of a
//! small two-time network and what the reference made of them, so the checks that need no more run in any clone. The full
//! fixtures are found in `../shared` beside the repository, or in the folder that `FLM_SHARED` names; without them
//! their tests say that they are skipped. [`parity`] is what both are checked by. The golden file is cut from the full fixtures by
//!
//! ```text
//! cargo run -p flm-tests --example golden
//! ```
//!
//! and a test checks, where the fixtures are, that it is still what they say.
//!
//! [`backend`] holds the checks that every backend must pass.

pub mod backend;
pub mod fixture;
pub mod golden;
pub mod gradients;
pub mod parity;
pub mod sentences;
