//! The flow's objective: cross-entropy of D_τ(I_t) against the tokens.

use crate::known::known_positions;
use crate::losses::mean_of;
use crate::references::soft_targets;
use crate::rows::{TimeRow, diagonal_rows, kinds, on_clock};
use crate::state::RowTimes;
use burn::module::AutodiffModule;
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::AutodiffBackend};
use flm_denoiser::{Dit, Dropout, Noise, Prior};
use flm_objective::{
    Inner, Losses, Objective, References, StepSize, TRAINED, TrainingStep, purpose,
};
use flm_simplex::{Clock, Schedule};
use rand::Rng;

/// Trains a denoiser of the interpolant I_t = (1−t)x₀ + t·x₁.
#[derive(Clone, Debug)]
pub struct FlowObjective {
    schedule: Schedule,
    conditioning: f64,
    references: usize,
    self_conditioning: f64,
    padding: Option<Padding>,
}

/// The padding of rows, and the weight of its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Padding {
    /// The token that fills a row behind the end of its text.
    pub pad: u32,
    /// The token that ends a text. It is not padding itself, unless it also fills rows.
    pub end: u32,
    /// Weight of the loss of padding; all other tokens have weight 1.
    pub weight: f64,
}

/// Targets are soft before this τ, given [`References`]. After it a state nearly always identifies
/// its row.
const SOFT_BEFORE: f64 = 0.5;

impl FlowObjective {
    /// Creates the objective under the model's time schedule (`DitConfig::schedule`).
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            conditioning: 0.0,
            references: 0,
            self_conditioning: 0.0,
            padding: None,
        }
    }

    /// Adds soft targets from `references` reference rows per step ([`References`]).
    pub fn with_references(self, references: usize) -> Self {
        Self { references, ..self }
    }

    /// Makes some positions of a row known, with this probability per row
    /// ([`known_positions`](crate::known_positions)).
    pub fn with_conditioning(self, probability: f64) -> Self {
        Self {
            conditioning: probability,
            ..self
        }
    }

    /// Adds self-conditioning in this share of the rows. They are evaluated twice; the second
    /// evaluation, which is trained, reads the mean of the first distribution
    /// ([`Dit::forward_after`]). [`score_given`](Self::score_given) does not use it.
    pub fn with_self_conditioning(self, share: f64) -> Self {
        Self {
            self_conditioning: share,
            ..self
        }
    }

    /// Sets the weight of the loss of padding.
    pub fn with_padding(self, padding: Padding) -> Self {
        Self {
            padding: (padding.weight != 1.0).then_some(padding),
            ..self
        }
    }

    /// Returns the schedule, whose clock the training starts with.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Draws the times of a whole batch, stratified in `clock`.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, clock: &Clock, rng: &mut R) -> Vec<TimeRow> {
        on_clock(diagonal_rows(batch, rng), clock)
    }

    /// Returns the losses of `tokens` `[batch, length]` without known positions at the given times.
    /// The targets are the tokens or, with `references`, soft targets where τ < ½.
    pub fn score<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        references: Option<References<'_>>,
        noise: &Noise<A::InnerBackend>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (shape, device) = (tokens.dims(), tokens.device());
        let times = RowTimes::<A>::of(rows, &self.schedule, &device);
        let state = noise.interpolate(model.embed(), tokens.clone(), times.s.clone());
        let earlier = self.earlier(model, &state, &times);
        let prediction = model.forward_after(earlier, state, times.tau_s, times.tau_t, dropout);
        let weighing = self.weighing(tokens.clone());
        let weights = mean_of(shape, shape[0], &device) * weighing.clone();
        let score = match references {
            None => prediction.cross_entropy(tokens, weights),
            Some(references) => {
                let soft: Vec<bool> = rows.iter().map(|row| row.tau_s < SOFT_BEFORE).collect();
                let (model, tokens) = (model.valid(), tokens.inner());
                let t = times.s.inner();
                let target = soft_targets(references, &model, tokens, noise, t, &soft);
                prediction.soft_cross_entropy(&target, weights)
            }
        };
        Losses::new(score.loss, score.per_token * weighing, kinds(rows))
    }

    /// Returns the mean prediction of a first evaluation for the self-conditioned rows, which come
    /// first, and zeros for the others. Returns `None` if no row is self-conditioned, or if the
    /// network has no self-conditioning.
    fn earlier<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        state: &Tensor<A, 3>,
        times: &RowTimes<A>,
    ) -> Option<Tensor<A, 3>> {
        let [batch, length, width] = state.dims();
        // Times are in random order, so the first rows are a random choice.
        let asked = (batch as f64 * self.self_conditioning).round() as usize;
        if asked == 0 || !model.hears_earlier() {
            return None;
        }
        let model = model.valid();
        let state = state.clone().inner().narrow(0, 0, asked);
        let tau = times.tau_s.clone().inner().narrow(0, 0, asked);
        let first = model.forward(state, tau.clone(), tau, &mut Dropout::off());
        let mean = first.distribution().mean(model.embed());
        let mean = if asked < batch {
            let none = Tensor::zeros([batch - asked, length, width], &mean.device());
            Tensor::cat(vec![mean, none], 0)
        } else {
            mean
        };
        Some(Tensor::from_inner(mean))
    }

    /// Returns the weight of the loss of each of `tokens`, relative to 1.
    fn weighing<A: AutodiffBackend>(
        &self,
        tokens: Tensor<A, 2, Int>,
    ) -> Tensor<A::InnerBackend, 2> {
        let tokens = tokens.inner();
        let ([batch, length], device) = (tokens.dims(), tokens.device());
        let Some(Padding { pad, end, weight }) = self.padding else {
            return Tensor::ones([batch, length], &device);
        };
        let pads = tokens.clone().equal_elem(i64::from(pad));
        let before = tokens.equal_elem(i64::from(end)).bool_or(pads.clone());
        let none = Tensor::<A::InnerBackend, 2>::zeros([batch, 1], &device).bool();
        let before = Tensor::cat(vec![none, before.narrow(1, 0, length - 1)], 1);
        let padding = pads.bool_and(before).float();
        padding * (weight - 1.0) + 1.0
    }

    /// Returns the losses with some positions `known`, row by row. The network sees known positions
    /// clean, at time 1, and does not predict them. Their loss is zero in the mean over all tokens,
    /// so a batch with more known positions has a smaller gradient.
    ///
    /// # Panics
    ///
    /// Panics if `known` is not as long as the tokens.
    pub fn score_given<A: AutodiffBackend>(
        &self,
        model: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        known: &[bool],
        noise: &Noise<A::InnerBackend>,
        rows: &[TimeRow],
        dropout: &mut Dropout<'_>,
    ) -> Losses<A> {
        let (shape, device) = (tokens.dims(), tokens.device());
        let times = RowTimes::<A>::of(rows, &self.schedule, &device);
        let known = TensorData::new(known.to_vec(), shape);
        let known = Tensor::<A, 2, Bool>::from_data(known, &device);
        let clean = model.embed().tokens(tokens.clone());
        let held = known.clone().unsqueeze_dim::<3>(2).expand(clean.dims());
        let noisy = noise.interpolate(model.embed(), tokens.clone(), times.s);
        let state = noisy.mask_where(held, clean);
        let prediction =
            model.forward_given(state, times.tau_s, times.tau_t, known.clone(), dropout);
        let asked = known.bool_not().float().inner() * self.weighing(tokens.clone());
        let weights = mean_of(shape, shape[0], &device) * asked.clone();
        let score = prediction.cross_entropy(tokens, weights);
        Losses::new(score.loss, score.per_token * asked, kinds(rows))
    }
}

impl<B: AutodiffBackend> Objective<B> for FlowObjective {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    fn shared(&self, network: &Inner<B, Dit<B>>, size: StepSize) -> Self::Shared {
        Prior::for_training(network.embed(), None, size.tokens, size.parts)
    }

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let clock = step.clock.unwrap_or(self.schedule.clock());
        let rows = step.share(&self.rows(step.batch, clock, &mut step.times()));
        let noise = step.noise(tokens.dims());
        let losses = step.with_dropout(|dropout| {
            if self.conditioning == 0.0 {
                return self.score(network, tokens, step.references, &noise, &rows, dropout);
            }
            let mut rng = step.stream.own(purpose::KNOWN);
            let known = known_positions(tokens.dims(), self.conditioning, &mut rng);
            self.score_given(network, tokens, &known, &noise, &rows, dropout)
        });
        Losses {
            taus: rows.iter().map(|row| row.tau_s).collect(),
            ..losses
        }
    }

    fn evaluations(&self, batch: usize) -> f64 {
        batch as f64 * (TRAINED + self.self_conditioning)
    }

    fn clock(&self) -> Option<&Clock> {
        Some(self.schedule.clock())
    }

    fn references(&self) -> usize {
        self.references
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;
    use burn_flex::Flex;
    use flm_denoiser::{DitConfig, apply_tensors, named_tensors};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    type Train = Autodiff<Flex>;

    const SHAPE: [usize; 2] = [2, 4];

    /// A network with all parameters drawn at random.
    fn loud() -> Dit<Train> {
        drawn(&DitConfig::new(9, 4, 16, 1, 2))
    }

    fn drawn(config: &DitConfig) -> Dit<Train> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let model = config.init::<Train>(&mut rng, &Default::default()).unwrap();
        let mut tensors = named_tensors(&model);
        for tensor in &mut tensors {
            tensor.values.fill_with(|| rng.random_range(-0.2..0.2));
        }
        apply_tensors(model, Path::new("drawn"), tensors).unwrap()
    }

    fn tokens() -> Tensor<Train, 2, Int> {
        Tensor::from_ints([[1, 2, 3, 4], [5, 6, 7, 8]], &Default::default())
    }

    fn noise(seed: u64) -> Noise<Flex> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let device = Default::default();
        Noise::pinned(flm_simplex::noise::gaussian([2, 4, 9], &mut rng, &device))
    }

    fn losses(model: &Dit<Train>, known: &[bool], seed: u64) -> Losses<Train> {
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let objective = FlowObjective::new(Schedule::new(9).unwrap());
        let off = &mut Dropout::off();
        objective.score_given(model, tokens(), known, &noise(seed), &rows, off)
    }

    fn flat<const D: usize>(x: Tensor<Flex, D>) -> Vec<f32> {
        x.into_data().to_vec().unwrap()
    }

    #[test]
    fn where_nothing_is_known_it_is_the_flows_loss() {
        let model = loud();
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let objective = FlowObjective::new(Schedule::new(9).unwrap());
        let off = &mut Dropout::off();
        let plain = objective.score(&model, tokens(), None, &noise(1), &rows, off);
        let given = losses(&model, &[false; 8], 1);
        for (found, expected) in flat(given.per_token).into_iter().zip(flat(plain.per_token)) {
            // The same sums in f32, fused and not.
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn known_tokens_cost_nothing_and_their_noise_is_not_seen() {
        let model = loud();
        let mut known = [false; 8];
        known[1] = true;
        known[6..].fill(true);
        let found = losses(&model, &known, 1);
        let per_token = flat(found.per_token.clone());
        for (loss, known) in per_token.iter().zip(known) {
            assert_eq!(*loss == 0.0, known, "{per_token:?}");
        }
        let mean = per_token.iter().sum::<f32>() / 8.0;
        let [trained] = flat(found.mean.clone().inner())[..] else {
            panic!("one number")
        };
        assert!((trained - mean).abs() < 1e-6, "{trained} {mean}");
        // Different noise at the known positions alone.
        let here = Tensor::<Flex, 2>::from_floats(
            [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]],
            &Default::default(),
        );
        let here = here.bool().unsqueeze_dim::<3>(2).expand([2, 4, 9]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let own = flm_simplex::noise::gaussian([2, 4, 9], &mut rng, &Default::default());
        let other = own.mask_fill(here, 3.0);
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let objective = FlowObjective::new(Schedule::new(9).unwrap());
        let noise = Noise::pinned(other);
        let off = &mut Dropout::off();
        let again = objective.score_given(&model, tokens(), &known, &noise, &rows, off);
        assert_eq!(flat(again.per_token), per_token);
        assert_eq!(SHAPE, found.per_token.dims());
    }

    #[test]
    fn clean_tokens_learn_from_the_rest() {
        let model = loud();
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let objective = FlowObjective::new(Schedule::new(9).unwrap());
        // Without noise a token's vector is seen only at the token's own position.
        let none = Noise::pinned(Tensor::zeros([2, 4, 9], &Default::default()));
        let mut known = [false; 8];
        known[1] = true;
        let off = &mut Dropout::off();
        let found = objective.score_given(&model, tokens(), &known, &none, &rows, off);
        let grads = found.mean.backward();
        let embedding = model.embed().embedding.val().grad(&grads).unwrap();
        let of_token = |token| -> f32 {
            let row = embedding.clone().narrow(0, token, 1);
            row.abs().max().into_scalar()
        };
        // Token 2 is the known one; token 0 occurs nowhere.
        assert!(of_token(2) > 0.0);
        assert_eq!(of_token(0), 0.0);
    }

    fn all_losses(objective: &FlowObjective, model: &Dit<Train>) -> Losses<Train> {
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let off = &mut Dropout::off();
        objective.score(model, tokens(), None, &noise(1), &rows, off)
    }

    #[test]
    fn the_second_evaluation_reads_the_first_ones_answer() {
        let config = DitConfig {
            self_conditioning: true,
            ..DitConfig::new(9, 4, 16, 1, 2)
        };
        let model = drawn(&config);
        let schedule = config.schedule().unwrap();
        let plain = FlowObjective::new(schedule.clone());
        let told = plain.clone().with_self_conditioning(0.5);
        assert_eq!(Objective::<Train>::evaluations(&told, 8), 8.0 * 3.5);
        let losses = |objective| flat(all_losses(objective, &model).per_token);
        let (alone, found) = (losses(&plain), losses(&told));
        // Of the two rows the first is evaluated twice.
        assert_eq!(alone[4..], found[4..]);
        let times = RowTimes::<Train>::of(
            &[0.3, 0.6].map(TimeRow::diagonal),
            &schedule,
            &Default::default(),
        );
        let state = noise(1).interpolate(model.embed(), tokens(), times.s.clone());
        let off = &mut Dropout::off();
        let (s, t) = (times.tau_s, times.tau_t);
        let first = model.forward(state.clone(), s.clone(), t.clone(), off);
        let mean = first.distribution().mean(model.embed());
        let second = model.forward_after(Some(mean), state, s, t, off);
        let expected = second.dense_log_probs().inner().neg();
        let ids = tokens().inner().unsqueeze_dim::<3>(2);
        let expected = flat(expected.gather(2, ids).squeeze_dim::<2>(2));
        for (found, expected) in found[..4].iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        assert!((found[0] - alone[0]).abs() > 1e-4);
    }

    #[test]
    fn padding_weighs_what_it_should() {
        let model = loud();
        let schedule = Schedule::new(9).unwrap();
        // 3 ends the first text. A pad before any end is an ordinary token.
        let tokens = [[3, 4, 4, 4], [4, 1, 2, 3]];
        let rows = [0.3, 0.6].map(TimeRow::diagonal);
        let losses = |objective: &FlowObjective| {
            let tokens = Tensor::from_ints(tokens, &Default::default());
            let off = &mut Dropout::off();
            let losses = objective.score(&model, tokens, None, &noise(1), &rows, off);
            (flat(losses.mean.inner())[0], flat(losses.per_token))
        };
        let plain = FlowObjective::new(schedule);
        let (_, whole) = losses(&plain);
        let padding = Padding {
            pad: 4,
            end: 3,
            weight: 0.25,
        };
        let (mean, light) = losses(&plain.clone().with_padding(padding));
        for (place, (light, whole)) in light.iter().zip(&whole).enumerate() {
            let weight = if (1..4).contains(&place) { 0.25 } else { 1.0 };
            assert!((light - weight * whole).abs() < 1e-5, "{place}");
        }
        let expected = light.iter().sum::<f32>() / 8.0;
        assert!((mean - expected).abs() < 1e-5, "{mean} {expected}");
    }
}
