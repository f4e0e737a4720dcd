//! Purposes of random generators.
//!
//! `flm-objective` has the numbers below 100, `flm` 101 to 104, 106, 110, 112 and 114, `flm-study`
//! 107, 108 and 115. A number is never reused for another purpose.

pub(crate) const CORPUS: u64 = 100;
pub(crate) const REFERENCE: u64 = 105;
pub(crate) const CORRUPTED: u64 = 111;
pub(crate) const CONTROLS: u64 = 113;
