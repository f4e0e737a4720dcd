//! Shared test utilities, and tests of all families.

mod learning;
pub(crate) mod toy;
