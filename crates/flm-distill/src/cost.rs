//! What training costs, in evaluations of the network.
//!
//! Objectives differ in what a step of theirs computes, so they are compared at equal evaluations and not at equal steps. The unit is
//! one row through the network once. Teacher and student are of one size; a derivative along a direction costs two ([`JVP`]).

/// A Jacobian-vector product: value and tangent go through the same layers side by side.
pub const JVP: f64 = 2.0;
