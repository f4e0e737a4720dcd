//! The cost of training, in evaluations of the network.
//!
//! Steps of different objectives cost different amounts, so objectives are compared at equal
//! evaluations and not at equal steps. The unit is one row through the network once. Teacher and
//! student have the same size. A derivative along a direction costs two evaluations ([`JVP`]).

/// The cost of a Jacobian-vector product: value and tangent go through the same layers side by
/// side.
pub const JVP: f64 = 2.0;
