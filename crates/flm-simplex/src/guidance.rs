//! Guidance: denoisers combined with others, for any sampler (`mathematics.md`, section 5).
//!
//! *Autoguidance* ([`Autoguidance`]) extrapolates from a weaker denoiser through a stronger one,
//! away from the errors of the weaker one: b = b_weak + η·(b_strong − b_weak). The velocity
//! b = (D − x)/(1 − t) is affine in D and the weights sum to one, so the same combination holds for
//! the distributions: D = D_weak + η·(D_strong − D_weak). It also holds for the average velocity of
//! a flow map and its δ. For η > 1, D sums to one at each position but may have negative entries.
//! It then lies off the simplex, and its largest entry is still the sampled token.
//!
//! *Reward guidance* ([`RewardGuidance`]) moves the state itself before each evaluation,
//! z ← z + λ·∇_z r(X_{t,1}(z)). A [`Steer`] computes the gradient.

use burn::tensor::{Tensor, backend::Backend};

use crate::sampler::Denoiser;

/// Distributions that can be combined affinely.
pub trait Blend {
    /// Returns `weight`·self + (1 − `weight`)·other; bit-identical to self where `weight` is 1.
    fn blend(self, other: Self, weight: f64) -> Self;
}

impl<B: Backend, const D: usize> Blend for Tensor<B, D> {
    fn blend(self, other: Self, weight: f64) -> Self {
        // Two products, so that nothing is rounded at 1.
        self * weight + other * (1.0 - weight)
    }
}

/// Autoguidance: D_weak + η·(D_strong − D_weak), of two denoisers with the same state coordinates.
///
/// η = 0 gives the weak denoiser and η = 1 the strong one, bit for bit. η > 1 moves away from the
/// weak one. Each evaluation calls both denoisers once. The guided distribution is also the
/// sampler's result.
///
/// ```
/// use burn_flex::Flex;
/// use flm_simplex::{Schedule, guidance::Autoguidance, distribution::DiscreteDistribution, noise::gaussian, sampler};
/// use rand::SeedableRng;
///
/// // The letters agree four times in five (strong) or half of the time (weak).
/// let words = vec![vec![0, 0], vec![1, 1], vec![0, 1], vec![1, 0]];
/// let strong = DiscreteDistribution::new(2, words.clone(), &[0.4, 0.4, 0.1, 0.1])?;
/// let weak = DiscreteDistribution::new(2, words, &[0.25; 4])?;
/// let schedule = Schedule::new(2)?;
/// let guided = Autoguidance {
///     strong: strong.denoiser(&schedule),
///     weak: weak.denoiser(&schedule),
///     eta: 3.0,
/// };
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let noise = gaussian::<Flex, _, 3>([200, 2, 2], &mut rng, &Default::default());
/// let wrong = |distribution| strong.decode(distribution).iter().filter(|word| **word >= Some(2)).count();
/// let alone = sampler::euler(&guided.strong, &schedule, noise.clone(), 16, |_| ())?;
/// let guided = sampler::euler(&guided, &schedule, noise, 16, |_| ())?;
/// assert!(wrong(guided) < wrong(alone));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Autoguidance<S, W> {
    /// The strong denoiser.
    pub strong: S,
    /// The weak denoiser.
    pub weak: W,
    /// The guidance scale η.
    pub eta: f64,
}

impl<B, S, W> Denoiser<B> for Autoguidance<S, W>
where
    B: Backend,
    S: Denoiser<B, TokenDistribution: Blend>,
    W: Denoiser<B, TokenDistribution = S::TokenDistribution>,
{
    type TokenDistribution = S::TokenDistribution;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> S::TokenDistribution {
        self.denoise_after(None, state, tau_s, tau_t)
    }

    fn denoise_after(
        &self,
        earlier: Option<&S::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> S::TokenDistribution {
        let weak = (self.weak).denoise_after(earlier, state.clone(), tau_s, tau_t);
        let strong = self.strong.denoise_after(earlier, state, tau_s, tau_t);
        strong.blend(weak, self.eta)
    }

    fn mean(&self, denoised: &S::TokenDistribution) -> Tensor<B, 3> {
        self.strong.mean(denoised)
    }

    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        self.strong.steer(state, tau)
    }
}

/// Moves states before they are evaluated.
pub trait Steer<B: Backend> {
    /// Returns the moved state, `[batch, length, width]`, of network time `tau`.
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3>;
}

impl<B: Backend, S: Steer<B> + ?Sized> Steer<B> for &S {
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        (**self).steer(state, tau)
    }
}

/// `None` leaves states unchanged.
impl<B: Backend, S: Steer<B>> Steer<B> for Option<S> {
    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        match self {
            Some(by) => by.steer(state, tau),
            None => state,
        }
    }
}

/// A denoiser whose states are moved before every evaluation, including the first and the last.
#[derive(Clone, Copy, Debug)]
pub struct RewardGuidance<D, S> {
    /// The denoiser that evaluates the moved states.
    pub denoiser: D,
    /// Moves the states.
    pub by: S,
}

impl<B: Backend, D: Denoiser<B>, S: Steer<B>> Denoiser<B> for RewardGuidance<D, S> {
    type TokenDistribution = D::TokenDistribution;

    fn denoise(&self, state: Tensor<B, 3>, tau_s: f64, tau_t: f64) -> D::TokenDistribution {
        self.denoiser.denoise(state, tau_s, tau_t)
    }

    fn denoise_after(
        &self,
        earlier: Option<&D::TokenDistribution>,
        state: Tensor<B, 3>,
        tau_s: f64,
        tau_t: f64,
    ) -> D::TokenDistribution {
        self.denoiser.denoise_after(earlier, state, tau_s, tau_t)
    }

    fn mean(&self, denoised: &D::TokenDistribution) -> Tensor<B, 3> {
        self.denoiser.mean(denoised)
    }

    fn steer(&self, state: Tensor<B, 3>, tau: f64) -> Tensor<B, 3> {
        self.by.steer(self.denoiser.steer(state, tau), tau)
    }
}
