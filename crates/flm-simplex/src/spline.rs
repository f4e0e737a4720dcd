//! Cubic splines with the not-a-knot end condition.
//!
//! The reference tabulates its schedule with this spline, so matching its times to the last digits
//! requires the same one. It is twice continuously differentiable. Its third derivative is also
//! continuous at the second and the second-to-last knot.

/// A cubic spline through `(x, y)`, stored as values and slopes at the knots.
#[derive(Clone, Debug)]
pub(crate) struct CubicSpline {
    x: Vec<f64>,
    y: Vec<f64>,
    slope: Vec<f64>,
}

impl CubicSpline {
    /// Fits the spline. `x` must be strictly increasing and as long as `y`, with at least
    /// four knots.
    pub(crate) fn not_a_knot(x: Vec<f64>, y: Vec<f64>) -> Self {
        debug_assert!(x.len() == y.len() && x.len() >= 4 && x.is_sorted());
        let slope = knot_slopes(&x, &y);
        Self { x, y, slope }
    }

    /// Returns the value at `at`; outside the knots the outermost cubic is extrapolated.
    pub(crate) fn value(&self, at: f64) -> f64 {
        let (i, u, c2, c3) = self.piece(at);
        self.y[i] + u * (self.slope[i] + u * (c2 + u * c3))
    }

    /// Returns the first derivative at `at`.
    pub(crate) fn derivative(&self, at: f64) -> f64 {
        let (i, u, c2, c3) = self.piece(at);
        self.slope[i] + u * (2.0 * c2 + u * 3.0 * c3)
    }

    /// Returns the index of the interval that holds `at`, the offset into it, and its quadratic and
    /// cubic coefficients.
    fn piece(&self, at: f64) -> (usize, f64, f64, f64) {
        let knots = self.x.len();
        let i = self
            .x
            .partition_point(|&knot| knot <= at)
            .clamp(1, knots - 1)
            - 1;
        let width = self.x[i + 1] - self.x[i];
        let secant = (self.y[i + 1] - self.y[i]) / width;
        let bend = (self.slope[i] + self.slope[i + 1] - 2.0 * secant) / width;
        let c2 = (secant - self.slope[i]) / width - bend;
        (i, at - self.x[i], c2, bend / width)
    }
}

/// Returns the slopes at the knots: solves a tridiagonal system by elimination without pivoting.
///
/// The inner rows require a continuous second derivative and are diagonally dominant. The first and
/// last rows are the not-a-knot condition, and eliminating the first leaves a dominant second row.
/// So no pivot is needed, even when neighbouring intervals differ by ten orders of magnitude, as
/// they do near τ = 1.
fn knot_slopes(x: &[f64], y: &[f64]) -> Vec<f64> {
    let n = x.len();
    let width: Vec<f64> = x.windows(2).map(|w| w[1] - w[0]).collect();
    let secant: Vec<f64> = (0..n - 1).map(|i| (y[i + 1] - y[i]) / width[i]).collect();

    let (mut lower, mut diagonal, mut upper, mut right) =
        (vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let (h0, h1) = (width[0], width[1]);
    diagonal[0] = h1;
    upper[0] = h0 + h1;
    right[0] = ((h0 + 2.0 * upper[0]) * h1 * secant[0] + h0 * h0 * secant[1]) / upper[0];
    for i in 1..n - 1 {
        lower[i] = width[i];
        diagonal[i] = 2.0 * (width[i - 1] + width[i]);
        upper[i] = width[i - 1];
        right[i] = 3.0 * (width[i] * secant[i - 1] + width[i - 1] * secant[i]);
    }
    let (g1, g0) = (width[n - 3], width[n - 2]);
    diagonal[n - 1] = g1;
    lower[n - 1] = g0 + g1;
    right[n - 1] =
        (g0 * g0 * secant[n - 3] + (2.0 * lower[n - 1] + g0) * g1 * secant[n - 2]) / lower[n - 1];

    for i in 1..n {
        let factor = lower[i] / diagonal[i - 1];
        diagonal[i] -= factor * upper[i - 1];
        right[i] -= factor * right[i - 1];
    }
    let mut slope = right;
    slope[n - 1] /= diagonal[n - 1];
    for i in (0..n - 1).rev() {
        slope[i] = (slope[i] - upper[i] * slope[i + 1]) / diagonal[i];
    }
    slope
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uneven on purpose: the inverse schedule has knots far closer on one side than on the other.
    const KNOTS: [f64; 6] = [0.0, 0.1, 0.15, 0.7, 0.9, 2.0];

    #[test]
    fn a_cubic_is_reproduced_exactly_inside_and_outside_the_knots() {
        let cubic = |x: f64| 2.0 - x + 3.0 * x * x - 0.5 * x * x * x;
        let slope = |x: f64| -1.0 + 6.0 * x - 1.5 * x * x;
        let spline = CubicSpline::not_a_knot(KNOTS.to_vec(), KNOTS.map(cubic).to_vec());
        for x in [-0.3, 0.0, 0.05, 0.3, 0.7, 1.1, 2.0, 2.2] {
            // Six knots and values of order ten: a few hundred roundings at most.
            assert!((spline.value(x) - cubic(x)).abs() < 1e-12, "value at {x}");
            assert!(
                (spline.derivative(x) - slope(x)).abs() < 1e-12,
                "slope at {x}"
            );
        }
    }

    #[test]
    fn agrees_with_scipy_on_values_that_are_no_cubic() {
        // scipy.interpolate.CubicSpline(x, sin(3 x)) at 0.4 and 1.5, and its derivative at 0.4.
        let spline =
            CubicSpline::not_a_knot(KNOTS.to_vec(), KNOTS.map(|x| (3.0 * x).sin()).to_vec());
        assert!((spline.value(0.4) - SCIPY[0]).abs() < 1e-12);
        assert!((spline.value(1.5) - SCIPY[1]).abs() < 1e-12);
        assert!((spline.derivative(0.4) - SCIPY[2]).abs() < 1e-12);
    }

    const SCIPY: [f64; 3] = [0.9063920678376457, -1.231647451385259, 1.03997901597929];
}
