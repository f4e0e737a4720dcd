//! Purposes of generators.
//!
//! `flm-objective` has the numbers below 100, `flm` 101 to 104, 106, 110, 112 and 114. A number is never used for anything else.

pub(crate) const CORPUS: u64 = 100;
pub(crate) const REFERENCE: u64 = 105;
pub(crate) const HOLE: u64 = 107;
pub(crate) const PERFECT: u64 = 108;
pub(crate) const CORRUPTED: u64 = 111;
pub(crate) const CONTROLS: u64 = 113;
pub(crate) const MAUVE: u64 = 115;
