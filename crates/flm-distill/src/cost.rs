//! What training costs, in evaluations of the network.
//!
//! Objectives differ in what a step of theirs computes, so they are compared at equal evaluations and not at equal steps. The unit is
//! one row through the network once. Teacher and student are of one size; a derivative along a direction costs two ([`JVP`]).

/// A pass back through the network costs as much as two forward: one for the gradient of the inputs, one for that of the weights.
pub const BACKWARD: f64 = 2.0;

/// A row forward and back: what every row of training costs, before its target.
pub const TRAINED: f64 = 1.0 + BACKWARD;

/// A Jacobian-vector product: value and tangent go through the same layers side by side.
pub const JVP: f64 = 2.0;
