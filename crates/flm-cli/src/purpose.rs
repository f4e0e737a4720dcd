//! Purposes of generators.
//!
//! `flm-objective` has the numbers below 100, `flm` 101 to 104, 106, 110, 112 and 114, `flm-study` 107 and 108. A number is never used for anything else.

pub(crate) const CORPUS: u64 = 100;
pub(crate) const REFERENCE: u64 = 105;
pub(crate) const CORRUPTED: u64 = 111;
pub(crate) const CONTROLS: u64 = 113;
pub(crate) const MAUVE: u64 = 115;
