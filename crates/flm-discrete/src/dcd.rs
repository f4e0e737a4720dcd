//! Discrete consistency distillation (DCD, of Duo; `mathematics.md`, section 7).
//!
//! One Gaussian noise decodes to two texts at different times. The student learns to predict from
//! the noisier one what the teacher predicts from the other.

use crate::duo::curriculum::{Gamma, Noise, Transform};
use crate::losses::mean_weights;
use crate::schedule::{Level, quarter};
use crate::{Predict, Tokens};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use flm_denoiser::{Dit, Dropout};
use flm_objective::{
    Diagnostic, Inner, Losses, Objective, StepSize, TRAINED, TrainingStep, purpose,
};
use flm_simplex::times::stratified;
use rand::Rng;

/// Network evaluations per row in a training step: the student's and one of the teacher.
pub const EVALUATIONS: f64 = TRAINED + 1.0;
/// The first step of the published distillation. It doubles each round
/// ([`rounds`](crate::sdtt::rounds)).
pub const FIRST_STEP: f64 = 1.0 / 512.0;

/// The objective of one round: a student at time t matches a frozen teacher at t − `step`.
///
/// Rounds are separate runs, as for [`SdttObjective`](crate::sdtt::SdttObjective).
#[derive(Clone, Debug)]
pub struct DcdObjective<B: Backend> {
    transform: Transform,
    gamma: Gamma,
    teacher: Dit<B>,
    step: f64,
}

impl<B: Backend> DcdObjective<B> {
    /// Creates the objective for a step of time `step` on the noise of `gamma`.
    ///
    /// # Panics
    ///
    /// If `step` is not in (0, 1].
    pub fn new(gamma: Gamma, teacher: Dit<B>, step: f64) -> Self {
        assert!(
            0.0 < step && step <= 1.0,
            "the step must lie in (0, 1], found {step}"
        );
        Self {
            transform: Transform::new(Predict::<B>::vocab_size(&teacher)),
            gamma,
            teacher,
            step,
        }
    }

    /// Draws the student's times for a whole batch: stratified times plus the step, at most 1.
    pub fn times<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<f64> {
        let later = |time: f64| (time + self.step).min(1.0);
        stratified(batch, rng).into_iter().map(later).collect()
    }

    /// Decodes the same noise at the given times and one step earlier.
    pub fn pair<R: Rng + ?Sized>(
        &self,
        tokens: &Tokens,
        times: &[f64],
        rng: &mut R,
    ) -> [Tokens; 2] {
        let (mut later, mut earlier) = (tokens.clone(), tokens.clone());
        for (at, &y) in tokens.ids().iter().enumerate() {
            let t = times[at / tokens.length()];
            let noise = Noise::draw(y, self.transform.vocab_size(), rng);
            later.ids_mut()[at] = noise.decoded(y, self.gamma.at(t));
            earlier.ids_mut()[at] = noise.decoded(y, self.gamma.at(t - self.step));
        }
        [later, earlier]
    }

    /// Returns the losses of `tokens` `[rows, length]` at the given times: Σ p·(log p − log q) for
    /// the student's p and the teacher's q.
    pub fn score<A: AutodiffBackend<InnerBackend = B>, R: Rng + ?Sized>(
        &self,
        student: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        times: &[f64],
        rng: &mut R,
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (device, tokens) = (tokens.device(), Tokens::of(tokens));
        let levels = |back: f64| -> Vec<Level> {
            let level = |&t: &f64| self.transform.level(self.gamma, t - back);
            times.iter().map(level).collect()
        };
        let [later, earlier] = self.pair(&tokens, times, rng);
        let inner = Predict::<B>::device(&self.teacher);
        let seen = earlier.tensor::<B>(&inner);
        let target = (self.teacher).predict(seen, &levels(self.step), &mut Dropout::off());
        let prediction = student.predict(later.tensor(&device), &levels(0.0), dropout);
        let weights = mean_weights(Tensor::ones([tokens.rows()], &inner), tokens.length());
        let score = prediction.divergence(&target.distribution(), weights);
        let pairs = later.ids().iter().zip(earlier.ids());
        Losses {
            diagnostics: vec![Diagnostic {
                name: "changed",
                sum: pairs.filter(|(a, b)| a != b).count() as f64,
                count: later.ids().len() as f64,
            }],
            ..Losses::new(
                score.loss,
                score.per_token,
                times.iter().map(|&t| quarter(t)).collect(),
            )
        }
    }
}

impl<B: AutodiffBackend> Objective<B> for DcdObjective<B::InnerBackend> {
    type Network = Dit<B>;
    type Shared = ();

    fn shared(&self, _: &Inner<B, Dit<B>>, _: StepSize) {}

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let times = step.share(&self.times(step.batch, &mut step.times()));
        let mut rng = step.stream.own(purpose::CORRUPTION);
        step.with_dropout(|dropout| self.score(network, tokens, &times, &mut rng, dropout))
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * EVALUATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::toy::loud;
    use burn::backend::Autodiff;
    use burn_flex::Flex;
    use flm_denoiser::Family;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const VOCAB: usize = 5;
    const LENGTH: usize = 6;
    const GAMMA: Gamma = Gamma {
        first: -4.0,
        last: 2.0,
    };

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn objective(step: f64) -> DcdObjective<Flex> {
        DcdObjective::new(GAMMA, loud([VOCAB, LENGTH], Family::Duo, 1), step)
    }

    #[test]
    fn one_noise_gives_texts_that_are_both_as_noisy_as_they_should_be() {
        let (objective, rows) = (objective(0.3), 2_000);
        let tokens = Tokens::filled(2, [rows, LENGTH]);
        let pair = objective.pair(&tokens, &vec![0.8; rows], &mut rng(2));
        let transform = Transform::new(VOCAB);
        let count = (rows * LENGTH) as f64;
        for (text, t) in pair.iter().zip([0.8, 0.5]) {
            let alpha = transform.alpha(GAMMA.at(t));
            let p = alpha + (1.0 - alpha) / VOCAB as f64;
            let same = text.ids().iter().filter(|&&id| id == 2).count() as f64;
            assert!((same - count * p).abs() < 5.0 * (count * p * (1.0 - p)).sqrt());
        }
        let [later, earlier] = pair;
        for (later, earlier) in later.ids().iter().zip(earlier.ids()) {
            // With more signal, the argmax can only change to the clean token.
            assert!(later == earlier || *earlier == 2);
        }
    }

    #[test]
    fn who_takes_no_step_has_nothing_to_learn_and_others_have() {
        type Train = Autodiff<Flex>;
        let (device, tokens) = (
            Default::default(),
            Tokens::new(vec![1, 4, 0, 2, 2, 3], LENGTH),
        );
        let loss = |seed, step| {
            let student = loud::<Train>([VOCAB, LENGTH], Family::Duo, seed);
            let (tokens, times) = (tokens.tensor(&device), [0.9]);
            let mut dropout = Dropout::off();
            let losses = objective(step).score(&student, tokens, &times, &mut rng(3), &mut dropout);
            let grads = losses.mean.clone().backward();
            let grad = student.embed().embedding.val().grad(&grads).unwrap();
            (
                losses.mean.inner().into_scalar(),
                grad.abs().max().into_scalar(),
            )
        };
        let (mean, grad): (f32, f32) = loss(1, 1e-9);
        assert!(mean.abs() < 1e-6 && grad < 1e-5, "{mean} {grad}");
        let (mean, grad) = loss(2, 1e-9);
        assert!(mean > 1e-3 && grad > 1e-4, "{mean} {grad}");
    }

    #[test]
    fn times_are_a_step_later_and_end_with_time() {
        let times = objective(0.25).times(100, &mut rng(4));
        assert!(times.iter().all(|t| (0.25..=1.0).contains(t)));
        let last = times.iter().filter(|&&t| t == 1.0).count();
        assert!((24..=26).contains(&last), "{last}");
    }
}
