//! The flow map of two networks, as in the paper's first version.

use crate::{Dit, Dropout, Execution, TokenDistribution};
use burn::tensor::{Int, Tensor, backend::Backend};
use flm_simplex::sampler::SamplerError;
use flm_simplex::{Schedule, flow_map::EULER_GUARD};

/// A residual flow map: a frozen denoiser and a second, two-time network g, whose outputs have no
/// softcap or softmax.
///
/// X_{s,t}(x) = x + (t−s)·b_s(x) + ½(t−s)²·g_{s,t}(x), where b is the velocity of the denoiser's
/// flow (`mathematics.md`, section 4).
///
/// It is an Euler step plus a learned correction. The end of a jump need not lie on the simplex, so
/// tokens are decoded from the *state*. This is the only sampler that needs a V-wide state. It
/// holds `[batch, length, vocabulary]` numbers, so use small batches if V is large.
///
/// ```
/// use burn_flex::Flex;
/// use flm_denoiser::{DitConfig, Residual};
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let config = DitConfig::new(27, 16, 32, 1, 2);
/// let denoiser = config.init::<Flex>(&mut rng, &Default::default())?;
/// let second = denoiser.clone().into_residual(config.cond_dim, &mut rng, &Default::default());
/// let noise = flm_simplex::noise::gaussian([3, 16, 27], &mut rng, &Default::default());
/// let tokens = Residual { denoiser, second }.sample(&config.schedule()?, noise, 2)?;
/// assert_eq!(tokens.dims(), [3, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Residual<B: Backend> {
    /// The network that predicts D.
    pub denoiser: Dit<B>,
    /// The network that predicts g.
    pub second: Dit<B>,
}

impl<B: Backend> Residual<B> {
    /// Sets the execution settings of both networks.
    pub fn with_execution(self, execution: Execution) -> Self {
        Self {
            denoiser: self.denoiser.with_execution(execution),
            second: self.second.with_execution(execution),
        }
    }

    /// Transports noise `[batch, length, vocabulary]` to tokens `[batch, length]` in `steps` jumps
    /// at equal steps of the schedule's clock.
    ///
    /// Each jump evaluates each network once. The tokens are the argmax of the final state.
    ///
    /// # Errors
    ///
    /// [`SamplerError::NoSteps`] if `steps` is zero.
    pub fn sample(
        &self,
        schedule: &Schedule,
        noise: Tensor<B, 3>,
        steps: usize,
    ) -> Result<Tensor<B, 2, Int>, SamplerError> {
        Ok(self.carry(schedule, noise, steps)?.argmax())
    }

    /// Returns the final state, whose entries are near the simplex without being constrained to it.
    ///
    /// # Errors
    ///
    /// Same as [`sample`](Self::sample).
    pub fn carry(
        &self,
        schedule: &Schedule,
        noise: Tensor<B, 3>,
        steps: usize,
    ) -> Result<TokenDistribution<B>, SamplerError> {
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        let taus = schedule.clock().grid(steps);
        let ts = schedule.ts_of_taus(&taus);
        let mut state = TokenDistribution::pinned(noise * (1.0 - ts[0]));
        for step in 0..steps {
            state = self.jump(
                state,
                [taus[step], taus[step + 1]],
                [ts[step], ts[step + 1]],
            );
        }
        Ok(state)
    }

    /// Applies X_{s,t} to a state, with the same times for all sequences.
    fn jump(
        &self,
        state: TokenDistribution<B>,
        [tau_s, tau_t]: [f64; 2],
        [s, t]: [f64; 2],
    ) -> TokenDistribution<B> {
        let seen = state.mean(self.denoiser.embed());
        let ([batch, ..], device) = (seen.dims(), seen.device());
        let row = |value: f64| Tensor::full([batch], value, &device);
        let mut off = Dropout::off();
        let clean = self
            .denoiser
            .forward(seen, row(tau_s), row(tau_s), &mut off);
        let seen = state.mean(self.second.embed());
        let bend = self.second.forward(seen, row(tau_s), row(tau_t), &mut off);
        let share = (t - s) / (1.0 - s + EULER_GUARD);
        state
            .scaled(row(1.0 - share))
            .plus(clean.distribution(), row(share))
            .plus(bend.outputs(), row(0.5 * (t - s).powi(2)))
            .held()
    }
}
