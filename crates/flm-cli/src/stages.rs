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

/// What generators of the command line are for; `flm-train` has the numbers below 100, `flm` 103, 104, 106, 110 and 112. 101 is its too, so that a network starts alike in both. Never reuse one.
pub(crate) mod purpose {
    pub(crate) const CORPUS: u64 = 100;
    pub(crate) const INITIALIZATION: u64 = 101;
    pub(crate) const SECOND_TIME: u64 = 102;
    pub(crate) const REFERENCE: u64 = 105;
    pub(crate) const HOLE: u64 = 107;
    pub(crate) const PERFECT: u64 = 108;
    pub(crate) const CORRUPTED: u64 = 111;
    pub(crate) const CONTROLS: u64 = 113;
    pub(crate) const AUXILIARY: u64 = 114;
    pub(crate) const MAUVE: u64 = 115;
}
