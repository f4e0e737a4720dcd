//! Samplers: from noise to a distribution over clean sequences.
//!
//! All samplers step on the grid of the schedule's [clock](crate::Clock), which is uniform in τ by
//! default, and evaluate a [`Denoiser`]. They keep the state in the denoiser's linear coordinates.
//! Every update is affine in the state, the mean of the distribution and the noise, so dense states
//! and projected ones h = xE give the same samples (`mathematics.md`, section 6). Each sampler
//! returns the last distribution, whose most likely tokens are the sample, and drops the state. A
//! denoiser may [steer](Denoiser::steer) the state before each evaluation.

use burn::tensor::{Tensor, backend::Backend};
use std::ops::ControlFlow;

use crate::Schedule;
use crate::flow_map::{EULER_GUARD, endpoint_weight};

/// A denoiser as samplers use it: evaluated at one pair of times for the whole batch.
pub trait Denoiser<B: Backend> {
    /// The prediction of the clean sequence, opaque to samplers.
    type TokenDistribution;

    /// Returns δ at `state` `[batch, length, width]` for network times `tau_s` → `tau_t`. The two
    /// are equal for a one-time flow.
    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> Self::TokenDistribution;

    /// Like [`denoise`](Self::denoise), with the prediction of the previous step as an extra input.
    ///
    /// The default ignores it. A denoiser that wraps another should forward this call.
    fn denoise_after(
        &self,
        _earlier: Option<&Self::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> Self::TokenDistribution {
        self.denoise(state, tau_s, tau_t)
    }

    /// Returns the distribution's mean in the state's coordinates, `[batch, length, width]`: D for
    /// dense states, D·E for projected ones.
    fn mean(&self, denoised: &Self::TokenDistribution) -> Tensor<B, 3>;

    /// Moves a state of network time `tau` before it is evaluated there.
    ///
    /// The default returns the state unchanged; [`RewardGuidance`](crate::guidance::RewardGuidance)
    /// moves it. A denoiser that wraps another should forward this call.
    fn steer(&self, state: Tensor<B, 3>, _tau: f64) -> Tensor<B, 3> {
        state
    }
}

/// An error in a sampler's settings.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// The number of steps is zero, so there is no distribution to return.
    #[error("a sampler needs at least 1 step, found 0")]
    NoSteps,
    /// γ is outside \[0, 1\], where the noise of a [`Jump`] has no valid scale.
    #[error("gamma must lie between 0 and 1, found {gamma}")]
    Gamma {
        /// The value given.
        gamma: f64,
    },
}

/// One evaluation, as passed to an observer: at the state of time `t`, before the state moves.
#[derive(Debug)]
pub struct Step<'a, Distribution> {
    /// Index of the step, from 0.
    pub index: usize,
    /// Network time of the state.
    pub tau: f64,
    /// The same in t.
    pub t: f64,
    /// Target network time of the evaluation; `tau` itself for Euler.
    pub tau_target: f64,
    /// The denoiser's prediction.
    pub distribution: &'a Distribution,
}

/// The answer of an observer: `()` continues, [`ControlFlow::Break`] makes the sampler return its
/// last distribution.
pub trait Answer {
    /// Returns `true` to end.
    fn ends(self) -> bool;
}

impl Answer for () {
    fn ends(self) -> bool {
        false
    }
}

impl Answer for ControlFlow<()> {
    fn ends(self) -> bool {
        self.is_break()
    }
}

/// Samples with a one-time denoiser in `steps` explicit Euler steps, uniform in the
/// schedule's [clock](crate::Clock).
///
/// `state` is x at t = 0: noise in the denoiser's coordinates, `[batch, length, width]`. The
/// denoiser is evaluated `steps` times, at the start of each step: τ = 0, 1/`steps`, … for an even
/// clock. Then v = (D − x)/(1 − t + [`EULER_GUARD`]) and x ← x + (t′ − t)·v. Returns the
/// distribution of the last evaluation; `observer` sees every evaluation.
///
/// # Errors
///
/// [`SamplerError::NoSteps`] if `steps` is zero.
pub fn euler<B: Backend, D: Denoiser<B>, A: Answer>(
    denoiser: &D,
    schedule: &Schedule,
    mut state: Tensor<B, 3>,
    steps: usize,
    mut observer: impl FnMut(Step<'_, D::TokenDistribution>) -> A,
) -> Result<D::TokenDistribution, SamplerError> {
    let taus = schedule.clock().grid(steps);
    let ts = schedule.ts_of_taus(&taus);
    let last = steps.checked_sub(1).ok_or(SamplerError::NoSteps)?;
    let (mut index, mut earlier) = (0, None);
    state = begin(state, ts[0]);
    loop {
        let (tau, t) = (taus[index], ts[index]);
        state = denoiser.steer(state, tau);
        let denoised = denoiser.denoise_after(earlier.as_ref(), state.clone(), tau, tau);
        let answer = observer(Step {
            index,
            tau,
            t,
            tau_target: tau,
            distribution: &denoised,
        });
        if index == last || answer.ends() {
            return Ok(denoised);
        }
        let share = (ts[index + 1] - t) / (1.0 - t + EULER_GUARD);
        state = state * (1.0 - share) + denoiser.mean(&denoised) * share;
        (index, earlier) = (index + 1, Some(denoised));
    }
}

/// Samples with a two-time denoiser in `steps` jumps, uniform in the schedule's
/// [clock](crate::Clock), with fresh noise after each jump.
///
/// At γ = 0 the sampler is the deterministic flow map. At γ = 1 every jump goes all the way to the
/// data and fresh noise takes the state back, as in consistency models. `state` is x at t = 0,
/// `[batch, length, width]`. `noise` must return fresh standard noise in the same coordinates and
/// shape (ε·E for projected states). It is called once after every jump but the last, and never if
/// γ = 0. The coefficients are those of [`Jump`]. The target of the last jump is exactly τ = 1.
/// Returns the distribution of the last jump; `observer` sees every one.
///
/// # Errors
///
/// [`SamplerError::NoSteps`] if `steps` is zero; [`SamplerError::Gamma`] if `gamma` is outside
/// \[0, 1\].
pub fn flow_map<B: Backend, D: Denoiser<B>, A: Answer>(
    denoiser: &D,
    schedule: &Schedule,
    mut state: Tensor<B, 3>,
    steps: usize,
    gamma: f64,
    mut noise: impl FnMut() -> Tensor<B, 3>,
    mut observer: impl FnMut(Step<'_, D::TokenDistribution>) -> A,
) -> Result<D::TokenDistribution, SamplerError> {
    if !(0.0..=1.0).contains(&gamma) {
        return Err(SamplerError::Gamma { gamma });
    }
    let taus = schedule.clock().grid(steps);
    let ts = schedule.ts_of_taus(&taus);
    let last = steps.checked_sub(1).ok_or(SamplerError::NoSteps)?;
    let (mut index, mut earlier) = (0, None);
    state = begin(state, ts[0]);
    loop {
        let (tau, t) = (taus[index], ts[index]);
        let jump = Jump::new(t, ts[index + 1], gamma);
        let tau_target = schedule.tau_of_t(jump.t_evaluated);
        state = denoiser.steer(state, tau);
        let denoised = denoiser.denoise_after(earlier.as_ref(), state.clone(), tau, tau_target);
        let answer = observer(Step {
            index,
            tau,
            t,
            tau_target,
            distribution: &denoised,
        });
        if index == last || answer.ends() {
            return Ok(denoised);
        }
        state = state * jump.state + denoiser.mean(&denoised) * jump.mean;
        if gamma > 0.0 {
            state = state + noise() * jump.noise;
        }
        (index, earlier) = (index + 1, Some(denoised));
    }
}

/// Samples with a denoiser in `steps` stochastic bridge steps, uniform in the
/// schedule's [clock](crate::Clock).
///
/// Each step takes a clean sequence x̂₁ that `endpoint` makes from the distribution: a draw or the
/// mean. The state then moves along the Gaussian bridge towards x̂₁: z ← a·z + b·x̂₁ + √v·ε
/// ([`Bridge`]). With an exact denoiser and drawn endpoints, the samples follow the distribution in
/// the limit of many steps, as for [`euler`]. Fresh noise replaces early decisions, so early errors
/// are forgotten.
///
/// `renewal` sets how much of the noise is replaced. [`Renewal::Bridge`] draws from the denoiser
/// D_t, so a two-time denoiser is evaluated on its diagonal, at equal times. [`Renewal::Full`]
/// keeps only the endpoint, so a two-time denoiser is evaluated at the target τ = 1. With an exact
/// flow map, full renewal draws from the distribution in any number of steps. `noise` must return
/// fresh standard noise in the state's coordinates. It is called after every step but the last.
///
/// # Errors
///
/// [`SamplerError::NoSteps`] if `steps` is zero.
#[allow(
    clippy::too_many_arguments,
    reason = "a state, its times, and what is drawn on the way"
)]
pub fn bridge<B: Backend, D: Denoiser<B>, A: Answer>(
    denoiser: &D,
    schedule: &Schedule,
    mut state: Tensor<B, 3>,
    steps: usize,
    renewal: Renewal,
    mut endpoint: impl FnMut(&D::TokenDistribution) -> Tensor<B, 3>,
    mut noise: impl FnMut() -> Tensor<B, 3>,
    mut observer: impl FnMut(Step<'_, D::TokenDistribution>) -> A,
) -> Result<D::TokenDistribution, SamplerError> {
    let taus = schedule.clock().grid(steps);
    let ts = schedule.ts_of_taus(&taus);
    let last = steps.checked_sub(1).ok_or(SamplerError::NoSteps)?;
    let (mut index, mut earlier) = (0, None);
    state = begin(state, ts[0]);
    loop {
        let (tau, t) = (taus[index], ts[index]);
        state = denoiser.steer(state, tau);
        let tau_target = match renewal {
            Renewal::Bridge => tau,
            Renewal::Full => 1.0,
        };
        let denoised = denoiser.denoise_after(earlier.as_ref(), state.clone(), tau, tau_target);
        let answer = observer(Step {
            index,
            tau,
            t,
            tau_target,
            distribution: &denoised,
        });
        if index == last || answer.ends() {
            return Ok(denoised);
        }
        let step = Bridge::new(t, ts[index + 1], renewal);
        state = state * step.state + endpoint(&denoised) * step.endpoint + noise() * step.noise;
        (index, earlier) = (index + 1, Some(denoised));
    }
}

/// Scales noise to the state (1−t)·x₀ at the clock's start time `t`, where the state has no signal.
fn begin<B: Backend>(state: Tensor<B, 3>, t: f64) -> Tensor<B, 3> {
    if t == 0.0 { state } else { state * (1.0 - t) }
}

/// How much of the state's noise a step of the [`bridge`] sampler replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// As much as the Gaussian bridge replaces.
    Bridge,
    /// All of it: the next state depends on the last one only through its endpoint.
    Full,
}

/// The coefficients of one step of the [`bridge`] sampler from time t to s > t.
///
/// Given its endpoint x̂₁, the interpolant is a Gaussian process. I_s given I_t and x̂₁ has mean
/// a·I_t + b·x̂₁ and variance v, with a = (1−s)²t/((1−t)²s), b = (s−t)(s+t−2st)/(s(1−t)²),
/// v = (1−s)²(s−t)(s+t−2st)/(s²(1−t)²) (`mathematics.md`, section 5). At t = 0 the state has no
/// signal, so a = 0 and all noise is fresh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bridge {
    /// Coefficient of the state z.
    pub state: f64,
    /// Coefficient of the endpoint x̂₁.
    pub endpoint: f64,
    /// Coefficient of the fresh noise ε, √v.
    pub noise: f64,
}

impl Bridge {
    /// Returns the step from `t` to `s`, both in t, with 0 ≤ t < s ≤ 1.
    pub fn new(t: f64, s: f64, renewal: Renewal) -> Self {
        if renewal == Renewal::Full {
            return Self {
                state: 0.0,
                endpoint: s,
                noise: 1.0 - s,
            };
        }
        let past = 1.0 - t;
        let way = (s - t) * (s + t - 2.0 * s * t);
        Self {
            state: (1.0 - s).powi(2) * t / (past.powi(2) * s),
            endpoint: way / (s * past.powi(2)),
            noise: (1.0 - s) * way.sqrt() / (s * past),
        }
    }
}

/// The coefficients of one jump of the flow-map sampler from time t to t′ with noise γ.
///
/// With σ = 1−t′, σ̃ = σ√(1−γ²) and t̃ = 1−σ̃, the flow map jumps *past* t′ to t̃. Fresh noise of
/// scale γσ then restores the level σ, since σ̃² + γ²σ² = σ². Written out (`mathematics.md`,
/// section 5): z ← (1−t̃)/(1−t)·z + (t̃−t)/(1−t)·D, then z ← z + (σ̃−σ)·D + γσ·ε. The two are
/// merged into one affine update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jump {
    /// t̃, the target time of δ_{t,t̃}.
    pub t_evaluated: f64,
    /// Coefficient of the state z.
    pub state: f64,
    /// Coefficient of the distribution's mean D.
    pub mean: f64,
    /// Coefficient of the fresh noise ε.
    pub noise: f64,
}

impl Jump {
    /// Returns the jump from `t` to `t_next`, both in t, with `gamma` in \[0, 1\].
    pub fn new(t: f64, t_next: f64, gamma: f64) -> Self {
        let sigma = 1.0 - t_next;
        let sigma_evaluated = sigma * (1.0 - gamma * gamma).sqrt();
        let t_evaluated = 1.0 - sigma_evaluated;
        let endpoint = endpoint_weight(t, t_evaluated);
        Self {
            t_evaluated,
            state: 1.0 - endpoint,
            mean: endpoint + (sigma_evaluated - sigma),
            noise: gamma * sigma,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;
    use burn_flex::Flex;
    use std::cell::RefCell;

    /// Predicts all ones. Records the times of each evaluation and the largest entry of each state.
    #[derive(Default)]
    struct Ones(RefCell<Vec<(f64, f64)>>, RefCell<Vec<f32>>);

    impl Denoiser<Flex> for Ones {
        type TokenDistribution = Tensor<Flex, 3>;

        fn denoise(
            &self,
            state: Tensor<Flex, 3>,
            tau_s: f64,
            tau_t: f64,
        ) -> Self::TokenDistribution {
            self.0.borrow_mut().push((tau_s, tau_t));
            self.1.borrow_mut().push(state.clone().max().into_scalar());
            state.ones_like()
        }

        fn mean(&self, denoised: &Self::TokenDistribution) -> Tensor<Flex, 3> {
            denoised.clone()
        }
    }

    fn zeros() -> Tensor<Flex, 3> {
        Tensor::zeros([1, 2, 3], &Default::default())
    }

    #[test]
    fn euler_asks_at_the_start_of_each_step() {
        let (denoiser, schedule) = (Ones::default(), Schedule::new(3).unwrap());
        let mut seen = Vec::new();
        euler(&denoiser, &schedule, zeros(), 4, |step| {
            seen.push((step.index, step.tau, step.t))
        })
        .unwrap();
        let asked: Vec<(f64, f64)> = [0.0, 0.25, 0.5, 0.75].map(|tau| (tau, tau)).to_vec();
        assert_eq!(*denoiser.0.borrow(), asked);
        for (i, (index, tau, t)) in seen.into_iter().enumerate() {
            assert_eq!(
                (index, tau, t),
                (i, asked[i].0, schedule.t_of_tau(asked[i].0))
            );
        }
    }

    #[test]
    fn a_clock_says_where_steps_are_and_where_noise_begins() {
        let clock = Clock::new(vec![0.2, 0.3, 1.0]).unwrap();
        let (denoiser, schedule) = (Ones::default(), Schedule::new(3).unwrap());
        let schedule = schedule.with_clock(clock);
        let state = || Tensor::ones([1, 2, 3], &Default::default());
        euler(&denoiser, &schedule, state(), 4, |_| ()).unwrap();
        flow_map(&denoiser, &schedule, state(), 4, 0.0, zeros, |_| ()).unwrap();
        let (renewal, endpoint) = (Renewal::Bridge, Clone::clone);
        bridge(
            &denoiser,
            &schedule,
            state(),
            4,
            renewal,
            endpoint,
            zeros,
            |_| (),
        )
        .unwrap();
        let asked = denoiser.0.into_inner();
        for (found, expected) in asked.iter().zip([0.2, 0.25, 0.3, 0.65].repeat(3)) {
            assert!((found.0 - expected).abs() < 1e-12, "{asked:?}");
        }
        // All three samplers start from scaled noise.
        let largest = denoiser.1.into_inner();
        let scale = 1.0 - schedule.t_of_tau(0.2);
        for first in [largest[0], largest[4], largest[8]] {
            assert!((f64::from(first) - scale).abs() < 1e-6, "{first} {scale}");
        }
    }

    /// Predicts one more than at the previous step.
    struct Counting;

    impl Denoiser<Flex> for Counting {
        type TokenDistribution = Tensor<Flex, 3>;

        fn denoise(&self, state: Tensor<Flex, 3>, _: f64, _: f64) -> Self::TokenDistribution {
            state.ones_like()
        }

        fn denoise_after(
            &self,
            earlier: Option<&Self::TokenDistribution>,
            state: Tensor<Flex, 3>,
            tau_s: f64,
            tau_t: f64,
        ) -> Self::TokenDistribution {
            let now = self.denoise(state, tau_s, tau_t);
            earlier.map_or(now.clone(), |earlier| earlier.clone() + now)
        }

        fn mean(&self, denoised: &Self::TokenDistribution) -> Tensor<Flex, 3> {
            denoised.clone()
        }
    }

    #[test]
    fn every_sampler_tells_what_the_step_before_believed() {
        let schedule = Schedule::new(3).unwrap();
        let denoised = [
            euler(&Counting, &schedule, zeros(), 5, |_| ()).unwrap(),
            flow_map(&Counting, &schedule, zeros(), 5, 0.5, zeros, |_| ()).unwrap(),
            bridge(
                &Counting,
                &schedule,
                zeros(),
                5,
                Renewal::Bridge,
                Clone::clone,
                zeros,
                |_| (),
            )
            .unwrap(),
        ];
        for denoised in denoised {
            assert_eq!(denoised.max().into_scalar(), 5.0);
        }
    }

    #[test]
    fn the_flow_map_asks_for_the_time_beyond_the_step_and_ends_at_one() {
        let schedule = Schedule::new(3).unwrap();
        for gamma in [0.0, 0.6, 1.0] {
            let denoiser = Ones::default();
            let mut draws = 0;
            let noise = || {
                draws += 1;
                zeros()
            };
            flow_map(&denoiser, &schedule, zeros(), 3, gamma, noise, |_| ()).unwrap();
            assert_eq!(draws, if gamma > 0.0 { 2 } else { 0 });
            for (i, (tau_s, tau_t)) in denoiser.0.into_inner().into_iter().enumerate() {
                let sigma = 1.0 - schedule.t_of_tau((i + 1) as f64 / 3.0);
                let expected = schedule.tau_of_t(1.0 - sigma * (1.0 - gamma * gamma).sqrt());
                assert_eq!((tau_s, tau_t), (i as f64 / 3.0, expected), "γ = {gamma}");
                if i == 2 {
                    assert_eq!(tau_t, 1.0);
                }
            }
        }
    }

    #[test]
    fn a_jump_without_noise_is_the_flow_map_and_with_all_of_it_starts_afresh() {
        let (t, t_next) = (0.3, 0.8);
        let plain = Jump::new(t, t_next, 0.0);
        // Values of order one in f64, with a few roundings each.
        let close = |a: f64, b: f64| (a - b).abs() < 1e-15;
        assert!(
            close(plain.t_evaluated, t_next)
                && close(plain.state, 0.2 / 0.7)
                && close(plain.mean, 0.5 / 0.7)
        );
        assert_eq!(plain.noise, 0.0);
        let fresh = Jump::new(t, t_next, 1.0);
        assert_eq!((fresh.t_evaluated, fresh.state), (1.0, 0.0));
        assert!(close(fresh.mean, t_next) && close(fresh.noise, 1.0 - t_next));
    }

    #[test]
    fn a_jump_lands_on_the_interpolant_at_its_time() {
        // If z = (1−t)·x₀ + t·x₁ and D = x₁, then z′ must have signal t′·x₁ and noise
        // variance (1−t′)².
        for (t, t_next, gamma) in [
            (0.0, 0.4, 0.8),
            (0.3, 0.8, 0.5),
            (0.3, 0.8, 0.0),
            (0.9, 1.0, 0.7),
        ] {
            let jump = Jump::new(t, t_next, gamma);
            let signal = jump.state * t + jump.mean;
            let variance = (jump.state * (1.0 - t)).powi(2) + jump.noise.powi(2);
            assert!(
                (signal - t_next).abs() < 1e-14,
                "signal {signal}, t′ = {t_next}"
            );
            assert!(
                (variance - (1.0 - t_next).powi(2)).abs() < 1e-14,
                "variance {variance}, t′ = {t_next}"
            );
        }
    }

    #[test]
    fn a_bridge_lands_on_the_interpolant_at_its_time() {
        // From the state t·x₁ + (1−t)·x₀ and the endpoint x₁: signal s·x₁ and noise
        // variance (1−s)².
        for (t, s) in [(0.0, 0.4), (0.3, 0.8), (0.05, 0.06), (0.9, 1.0)] {
            for renewal in [Renewal::Bridge, Renewal::Full] {
                let step = Bridge::new(t, s, renewal);
                let signal = step.state * t + step.endpoint;
                let variance = (step.state * (1.0 - t)).powi(2) + step.noise.powi(2);
                assert!((signal - s).abs() < 1e-14, "signal {signal}, s = {s}");
                assert!(
                    (variance - (1.0 - s).powi(2)).abs() < 1e-14,
                    "variance {variance}, s = {s}"
                );
            }
        }
    }

    #[test]
    fn two_steps_of_a_bridge_to_one_end_are_one() {
        // With x̂₁ fixed the process is Markov, so the steps t → u → s compose.
        let (t, u, s) = (0.2, 0.5, 0.7);
        let [first, second, whole] =
            [(t, u), (u, s), (t, s)].map(|(t, s)| Bridge::new(t, s, Renewal::Bridge));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-14, "{a} {b}");
        close(second.state * first.state, whole.state);
        close(
            second.state * first.endpoint + second.endpoint,
            whole.endpoint,
        );
        let variance = (second.state * first.noise).powi(2) + second.noise.powi(2);
        close(variance, whole.noise.powi(2));
    }

    #[test]
    fn bad_settings_are_named() {
        let (denoiser, schedule) = (Ones::default(), Schedule::new(3).unwrap());
        let message =
            |result: Result<Tensor<Flex, 3>, SamplerError>| result.unwrap_err().to_string();
        assert_eq!(
            message(euler(&denoiser, &schedule, zeros(), 0, |_| ())),
            "a sampler needs at least 1 step, found 0"
        );
        assert_eq!(
            message(flow_map(
                &denoiser,
                &schedule,
                zeros(),
                0,
                0.0,
                zeros,
                |_| ()
            )),
            "a sampler needs at least 1 step, found 0"
        );
        for gamma in [-0.1, 1.5, f64::NAN] {
            assert_eq!(
                message(flow_map(
                    &denoiser,
                    &schedule,
                    zeros(),
                    1,
                    gamma,
                    zeros,
                    |_| ()
                )),
                format!("gamma must lie between 0 and 1, found {gamma}")
            );
        }
        assert!(
            denoiser.0.borrow().is_empty(),
            "bad settings must fail before any evaluation"
        );
    }
}
