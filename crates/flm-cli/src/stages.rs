//! The stages of making a model, shared by the single commands and the quickstart.

pub(crate) mod bound;
pub(crate) mod controls;
pub(crate) mod convert;
pub(crate) mod curve;
pub(crate) mod datasets;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod frontier;
pub(crate) mod infill;
pub(crate) mod inspect;
pub(crate) mod law;
pub(crate) mod perfect;
pub(crate) mod prepare;
pub(crate) mod reward;
pub(crate) mod sample;
pub(crate) mod score;
pub(crate) mod train;

/// Purposes of generators. `flm-objective` has the numbers below 100, `flm` 101 to 104, 106, 110, 112 and 114. A number is never used for anything else.
pub(crate) mod purpose {
    pub(crate) const CORPUS: u64 = 100;
    pub(crate) const REFERENCE: u64 = 105;
    pub(crate) const HOLE: u64 = 107;
    pub(crate) const PERFECT: u64 = 108;
    pub(crate) const CORRUPTED: u64 = 111;
    pub(crate) const CONTROLS: u64 = 113;
    pub(crate) const MAUVE: u64 = 115;
}
