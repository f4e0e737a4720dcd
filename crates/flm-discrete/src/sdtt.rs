//! Self-distillation through time: a masked diffusion model learns to take two steps in one (SDTT;
//! `mathematics.md`, section 7).

use crate::mdlm::{masked, masked_positions};
use crate::schedule::{Level, LogLinear, quarter};
use crate::{Predict, Tokens};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use flm_denoiser::{Dit, Dropout, TokenDistribution};
use flm_objective::{
    Diagnostic, Inner, Losses, Objective, StepSize, TRAINED, TrainingStep, purpose,
};
use flm_simplex::times::stratified;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The divergence between student and target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// Σ target·(log target − log p): the student covers the target.
    #[default]
    Forward,
    /// Σ p·(log p − log target): the student stays within it.
    Reverse,
}

/// Returns the steps of the rounds of a distillation, each twice as long as the previous one.
///
/// The student of a round is the teacher of the next.
pub fn rounds(first: f64, count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |round| first * f64::from(round).exp2())
}

/// Network evaluations per row in a training step: the student's and two of the teacher.
pub const EVALUATIONS: f64 = TRAINED + 2.0;
/// The first step of the published distillation.
pub const FIRST_STEP: f64 = 1.0 / 1024.0;

/// The result of two teacher steps on a text.
#[derive(Clone, Debug)]
pub struct TwoSteps<B: Backend> {
    /// The target distribution at the masked tokens.
    pub target: TokenDistribution<B>,
    /// Whether the first step fills each token of the flattened batch.
    pub filled: Vec<bool>,
    /// The text after the first step.
    pub between: Tokens,
}

/// The objective of one round: a student matches a frozen teacher after two steps.
///
/// Each round is a separate run that starts from the weights of the previous one.
#[derive(Clone, Debug)]
pub struct SdttObjective<B: Backend> {
    schedule: LogLinear,
    teacher: Dit<B>,
    step: f64,
    divergence: Divergence,
}

impl<B: Backend> SdttObjective<B> {
    /// Creates the objective for a teacher that takes two steps of time `step`.
    ///
    /// # Panics
    ///
    /// If `step` is not in (0, ½].
    pub fn new(schedule: LogLinear, teacher: Dit<B>, step: f64, divergence: Divergence) -> Self {
        assert!(
            0.0 < step && step <= 0.5,
            "the step must lie in (0, 0.5], found {step}"
        );
        Self {
            schedule,
            teacher,
            step,
            divergence,
        }
    }

    /// Draws times for a whole batch, stratified over the times that leave room for two steps.
    pub fn times<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<f64> {
        let room = 2.0 * self.step;
        let stretch = |time: f64| room + (1.0 - room) * time;
        stratified(batch, rng).into_iter().map(stretch).collect()
    }

    /// Takes the teacher's two steps from `noisy` at these times.
    ///
    /// The target of a mask token that the first step fills is the teacher's prediction in that
    /// step. For all other mask tokens it is the prediction in the second step.
    pub fn two_steps<R: Rng + ?Sized>(
        &self,
        noisy: &Tokens,
        times: &[f64],
        rng: &mut R,
    ) -> TwoSteps<B> {
        let (device, mask_token) = (Predict::<B>::device(&self.teacher), self.vocab_size());
        let ask = |tokens: &Tokens, levels: &[Level]| {
            let seen = tokens.tensor::<B>(&device);
            (self.teacher.predict(seen, levels, &mut Dropout::off())).distribution()
        };
        let at = |back: f64| -> Vec<Level> {
            let level = |&t: &f64| self.schedule.level((t - back).max(0.0));
            times.iter().map(level).collect()
        };
        let (now, next) = (at(0.0), at(self.step));
        let first = ask(noisy, &now);
        let drawn: Vec<i32> = first.draw(rng).into_data().iter::<i32>().collect();
        let mut between = noisy.clone();
        let mut filled = vec![false; drawn.len()];
        for position in masked_positions(noisy, mask_token) {
            let row = position / noisy.length();
            let probability = (next[row].alpha - now[row].alpha) / (1.0 - now[row].alpha);
            if rng.random::<f64>() < probability {
                filled[position] = true;
                between.ids_mut()[position] = drawn[position];
            }
        }
        let last = ask(&between, &next);
        let here = TensorData::new(filled.clone(), [noisy.rows(), noisy.length()]);
        TwoSteps {
            target: first.choose(last, Tensor::from_data(here, &device)),
            filled,
            between,
        }
    }

    /// Returns the losses of `tokens` `[rows, length]` at the given times; `rng` draws the masks
    /// and the teacher's tokens.
    pub fn score<A: AutodiffBackend<InnerBackend = B>, R: Rng + ?Sized>(
        &self,
        student: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        times: &[f64],
        rng: &mut R,
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (device, tokens) = (tokens.device(), Tokens::of(tokens));
        let levels: Vec<Level> = times.iter().map(|&t| self.schedule.level(t)).collect();
        let noisy = masked(&tokens, &levels, self.vocab_size(), rng);
        let TwoSteps { target, filled, .. } = self.two_steps(&noisy, times, rng);
        let mut mask = vec![0.0_f32; noisy.ids().len()];
        for position in masked_positions(&noisy, self.vocab_size()) {
            mask[position] = 1.0;
        }
        let inner = Predict::<B>::device(&self.teacher);
        let (all, shape) = (mask.len() as f64, [tokens.rows(), tokens.length()]);
        let count: f32 = mask.iter().sum();
        let mask = Tensor::<B, 2>::from_data(TensorData::new(mask, shape), &inner);
        let weights = mask.clone().div_scalar(all);
        let prediction = student.predict(noisy.tensor(&device), &levels, dropout);
        let (mean, of_token) = match self.divergence {
            Divergence::Reverse => {
                let score = prediction.divergence(&target, weights);
                (score.loss, score.per_token)
            }
            Divergence::Forward => {
                let score = prediction.soft_cross_entropy(&target, weights.clone());
                let entropy = target.entropy();
                let own = Tensor::from_inner((entropy.clone() * weights).sum());
                (score.loss - own, score.per_token - entropy)
            }
        };
        Losses {
            diagnostics: vec![
                Diagnostic {
                    name: "masked",
                    sum: f64::from(count),
                    count: all,
                },
                Diagnostic {
                    name: "filled_by_teacher",
                    sum: filled.iter().filter(|&&filled| filled).count() as f64,
                    count: f64::from(count),
                },
            ],
            ..Losses::new(
                mean,
                of_token * mask,
                times.iter().map(|&t| quarter(t)).collect(),
            )
        }
    }

    fn vocab_size(&self) -> usize {
        Predict::<B>::vocab_size(&self.teacher)
    }
}

impl<B: AutodiffBackend> Objective<B> for SdttObjective<B::InnerBackend> {
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

    type Train = Autodiff<Flex>;

    const VOCAB: usize = 5;
    const LENGTH: usize = 6;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn teacher() -> Dit<Flex> {
        loud([VOCAB, LENGTH], Family::Mdlm, 1)
    }

    fn dense(denoised: &TokenDistribution<Flex>) -> Vec<f32> {
        denoised.dense().into_data().to_vec().unwrap()
    }

    #[test]
    fn a_mask_token_takes_what_was_said_when_it_was_filled_and_another_what_was_said_last() {
        let objective =
            SdttObjective::new(LogLinear::default(), teacher(), 0.4, Divergence::Forward);
        let noisy = Tokens::filled(VOCAB, [20, LENGTH]);
        let made = objective.two_steps(&noisy, &[0.9; 20], &mut rng(2));
        let ask = |tokens: &Tokens| {
            // The network has no time input, so any level works.
            let levels = vec![LogLinear::default().level(0.5); 20];
            let seen = tokens.tensor(&Default::default());
            dense(
                &teacher()
                    .predict(seen, &levels, &mut Dropout::off())
                    .distribution(),
            )
        };
        let (first, last, target) = (ask(&noisy), ask(&made.between), dense(&made.target));
        let count = made.filled.iter().filter(|&&filled| filled).count();
        // A share of 0.4/0.9 of 120 masked tokens is filled; five standard deviations are 27.
        assert!((26..=81).contains(&count), "{count}");
        for (at, &filled) in made.filled.iter().enumerate() {
            assert_eq!(made.between.ids()[at] < VOCAB as i32, filled);
            let expected = if filled { &first } else { &last };
            let row = at * VOCAB..(at + 1) * VOCAB;
            for (found, expected) in target[row.clone()].iter().zip(&expected[row]) {
                assert!((found - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn who_takes_no_step_has_nothing_to_learn_and_others_have() {
        let (device, tokens) = (
            Default::default(),
            Tokens::new(vec![1, 4, 0, 2, 2, 3], LENGTH),
        );
        let loss = |seed, step, divergence| {
            let objective = SdttObjective::new(LogLinear::default(), teacher(), step, divergence);
            let student = loud::<Train>([VOCAB, LENGTH], Family::Mdlm, seed);
            let losses = objective.score(
                &student,
                tokens.tensor(&device),
                // Late enough for two steps, and early enough that some tokens are unmasked.
                &[0.5],
                &mut rng(3),
                &mut Dropout::off(),
            );
            let mean: f32 = losses.mean.clone().inner().into_scalar();
            let tokens: f32 = losses.per_token.mean().into_scalar();
            assert!(
                (mean - tokens).abs() < 1e-6 * mean.max(1.0),
                "{mean} {tokens}"
            );
            let grads = losses.mean.backward();
            let grad = student.embed().embedding.val().grad(&grads).unwrap();
            (mean, grad.abs().max().into_scalar())
        };
        for divergence in [Divergence::Forward, Divergence::Reverse] {
            let (mean, grad): (f32, f32) = loss(1, 1e-12, divergence);
            // Probabilities are equal up to f32 rounding. Gradients should be zero; other gradients
            // are about 1e-2.
            assert!(mean.abs() < 1e-6 && grad < 1e-5, "{mean} {grad}");
            let (mean, grad) = loss(2, 1e-12, divergence);
            assert!(mean > 1e-3 && grad > 1e-4, "{mean} {grad}");
            let (mean, _) = loss(1, 0.4, divergence);
            assert!(mean > 1e-6, "{mean}");
        }
    }

    #[test]
    fn times_leave_room_for_two_steps_and_rounds_double_them() {
        let objective =
            SdttObjective::new(LogLinear::default(), teacher(), 0.25, Divergence::Forward);
        let times = objective.times(100, &mut rng(4));
        assert!(times.iter().all(|t| (0.5..1.0).contains(t)));
        let steps: Vec<f64> = rounds(FIRST_STEP, 3).collect();
        assert_eq!(steps, [1.0 / 1024.0, 1.0 / 512.0, 1.0 / 256.0]);
    }
}
