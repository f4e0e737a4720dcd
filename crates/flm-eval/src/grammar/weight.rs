//! Number types for derivation weights: plain and logarithmic.

use super::expand::Alternative;

/// A weight, multiplied along a derivation and added over derivations.
pub(super) trait Weight: Copy {
    const NONE: Self;
    const ONE: Self;

    /// Converts a natural logarithm into a weight.
    fn from_log(log: f64) -> Self;

    /// Returns the probability of an alternative given its node.
    fn of(alternative: &Alternative) -> Self;

    fn times(self, other: Self) -> Self;

    fn plus(self, other: Self) -> Self;

    /// Divides by a nonzero factor.
    fn over(self, factor: Self) -> Self;

    fn is_none(self) -> bool;

    /// Returns the ratio of this weight to `whole` as a plain number.
    fn share(self, whole: Self) -> f64;

    /// Returns the natural logarithm of the weight.
    fn ln(self) -> f64;
}

/// A weight stored as a plain number: fast, but underflows to zero below about 10⁻³⁰⁰.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Linear(pub(super) f64);

impl Weight for Linear {
    const NONE: Self = Self(0.0);
    const ONE: Self = Self(1.0);

    fn from_log(log: f64) -> Self {
        Self(log.exp())
    }

    fn of(alternative: &Alternative) -> Self {
        Self(alternative.p)
    }

    fn times(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    fn over(self, factor: Self) -> Self {
        Self(self.0 / factor.0)
    }

    fn is_none(self) -> bool {
        self.0 == 0.0
    }

    fn share(self, whole: Self) -> f64 {
        self.0 / whole.0
    }

    fn ln(self) -> f64 {
        self.0.ln()
    }
}

/// A weight stored as its logarithm, which never underflows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Log(pub(super) f64);

impl Log {
    /// Returns the weight of a known word: 1 if it matches and 0 otherwise.
    pub(super) fn of_match(is_there: bool) -> Self {
        if is_there { Self::ONE } else { Self::NONE }
    }
}

impl Weight for Log {
    const NONE: Self = Self(f64::NEG_INFINITY);
    const ONE: Self = Self(0.0);

    fn from_log(log: f64) -> Self {
        Self(log)
    }

    fn of(alternative: &Alternative) -> Self {
        Self(alternative.log_p)
    }

    fn times(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    fn plus(self, other: Self) -> Self {
        if self.is_none() {
            return other;
        }
        Self(log_add(self.0, other.0))
    }

    fn over(self, factor: Self) -> Self {
        Self(self.0 - factor.0)
    }

    fn is_none(self) -> bool {
        self.0 == f64::NEG_INFINITY
    }

    fn share(self, whole: Self) -> f64 {
        (self.0 - whole.0).exp()
    }

    fn ln(self) -> f64 {
        self.0
    }
}

/// Returns ln(eᵃ + eᵇ) without underflow.
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    large + (small - large).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_add_neither_overflows_nor_underflows() {
        assert!((log_add(-1000.0, -1000.0) - (2.0_f64.ln() - 1000.0)).abs() < 1e-12);
        assert_eq!(log_add(-1.0, -1e6), -1.0);
    }
}
