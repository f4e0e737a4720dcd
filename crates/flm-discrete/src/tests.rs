//! What the crate's tests share, and tests of all its families.

mod learning;
pub(crate) mod toy;
