//! The coefficients of a jump in two halves, and the reason why the state is not among them.
//!
//! Let c_s = 1 − s + ε, with ε the [guard](EULER_GUARD) of the published code, and let
//! α = (u−s)/(t−s) and β = 1 − α be the halves' shares of the way:
//!
//! - b_s = (D_s − x)/c_s, and b_{s,u} = b_s + ½(u−s)·g_{s,u}, so X_{s,u} = x + (u−s)·b_{s,u};
//! - b_{u,t} = (D_u(X_{s,u}) − X_{s,u})/c_u + ½(t−u)·g_{u,t}(X_{s,u});
//! - b̂ = α·b_{s,u} + β·b_{u,t} = κ·b_{s,u} + β·(D_u − x)/c_u + ½β(t−u)·g_{u,t},
//!   κ = α − β(u−s)/c_u.
//!
//! In x + (1−s)·b̂ the state x has the coefficient 1 − (1−s)·(κ/c_s + β/c_u). Because
//! c_s − (u−s) = c_u, the bracket is (α + β)/c_s, and the coefficient is ε/c_s, which only the
//! guard makes nonzero. This remainder, at most 1e-5/(1−s) of the state, is left out, because it
//! alone would need the state V wide. The difference to the published losses is at most 7e-5 of a
//! row's loss. Everything else is the published formula, guards included.

use crate::rows::TimeRow;
use flm_simplex::Schedule;
use flm_simplex::flow_map::{EULER_GUARD, endpoint_weight};

/// The coefficients of a jump. They are differences of times that may be close, so they are
/// computed in f64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    /// Of D_s in X_{s,u}; the state has the rest.
    pub(super) share: f64,
    /// Of g_{s,u} in X_{s,u}.
    pub(super) bend: f64,
    /// Of D_s in x + (1−s)·b̂ − D_s.
    pub(super) clean: f64,
    /// Of D_u in the same sum.
    pub(super) there: f64,
    /// Of g_{s,u} in the same sum.
    pub(super) first: f64,
    /// Of g_{u,t} in the same sum.
    pub(super) last: f64,
    /// Of g_{s,t} where it is compared with that sum: ½(t−s)(1−s).
    pub(super) scale: f64,
    /// Of δ_{s,t} in X_{s,t}, for a flow map of one network: (t−s)/(1−s).
    pub(super) end: f64,
}

impl Jump {
    /// Returns the coefficients of the jump from s over u to t.
    pub(super) fn new(s: f64, u: f64, t: f64) -> Self {
        let guarded = |time: f64| 1.0 - time + EULER_GUARD;
        // One half each, the limit for a jump of zero length.
        let alpha = if t > s { (u - s) / (t - s) } else { 0.5 };
        let beta = 1.0 - alpha;
        let kappa = alpha - beta * (u - s) / guarded(u);
        let left = 1.0 - s;
        Self {
            share: (u - s) / guarded(s),
            bend: 0.5 * (u - s).powi(2),
            clean: left / guarded(s) * kappa - 1.0,
            there: left * beta / guarded(u),
            first: 0.5 * left * (u - s) * kappa,
            last: 0.5 * left * beta * (t - u),
            scale: 0.5 * (t - s) * left,
            end: endpoint_weight(s, t),
        }
    }

    /// Returns the coefficients of each row.
    pub(super) fn of_rows(rows: &[TimeRow], schedule: &Schedule) -> Vec<Self> {
        let time = |tau: f64| schedule.t_of_tau(tau);
        rows.iter()
            .map(|row| Self::new(time(row.tau_s), time(row.tau_u), time(row.tau_t)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_cancels_but_for_the_guard() {
        // One coordinate, with answers that do not depend on the state: the published formula, step
        // by step.
        let [clean, there, first, last] = [0.3, 0.8, -2.0, 1.5];
        for (s, u, t) in [
            (0.0, 0.6, 1.0),
            (0.2, 0.25, 0.9),
            (0.7, 0.7 + 1e-7, 0.7 + 3e-7),
            (0.5, 0.999, 1.0),
        ] {
            let jump = Jump::new(s, u, t);
            for x in [0.0, 1.0, -3.0] {
                let velocity = (clean - x) / (1.0 - s + 1e-5) + 0.5 * (u - s) * first;
                let middle = x + (u - s) * velocity;
                let second = (there - middle) / (1.0 - u + 1e-5) + 0.5 * (t - u) * last;
                let average = ((u - s) * velocity + (t - u) * second) / (t - s);
                let published = x + (1.0 - s) * average - clean;
                let ours =
                    jump.clean * clean + jump.there * there + jump.first * first + jump.last * last;
                let left_out = 1e-5 / (1.0 - s + 1e-5) * x;
                // Differences in f64, divided by a way of at least 3e-7.
                assert!(
                    (published - ours - left_out).abs() < 1e-8,
                    "{s} {u} {t} {x}: {published} {ours}"
                );
            }
        }
    }

    #[test]
    fn no_way_at_all_is_finite() {
        let jump = Jump::new(1.0, 1.0, 1.0);
        assert_eq!((jump.share, jump.there, jump.scale), (0.0, 0.0, 0.0));
        assert_eq!(jump.clean, -1.0);
    }
}
