//! Distribution matching: the texts of a flow map in one step should follow the same distribution
//! as those of its teacher's flow.
//!
//! Trajectory objectives ask the student for the teacher's answer to each noise. This objective
//! does not fix which noise becomes which text. The student answers p = δ_{s,1}(I_s) and writes its
//! likeliest tokens x̂. Noise is added again, I_t = (1−t)ε + t·x̂, and two denoisers predict from
//! it. The frozen teacher knows the distribution of the data. An *auxiliary* network learns the
//! distribution of x̂ during the training. Where the auxiliary gives a token more probability than
//! the teacher, the student writes it too often. Then p moves against that contrast, straight
//! through the argmax (`mathematics.md`, section 8; [DMD](https://arxiv.org/abs/2311.18828)).

use crate::losses::mean_of;
use crate::off_diagonal::path::follow;
use crate::state::RowTimes;
use crate::{RowKind, TimeRow};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor};
use flm_denoiser::{Dit, Dropout, Noise, Prediction, Prior};
use flm_objective::{
    Diagnostic, Inner, Losses, Objective, StepSize, TRAINED, TrainingStep, purpose, trainable,
};
use flm_simplex::Schedule;
use flm_simplex::interpolant::interpolate;
use flm_simplex::times::stratified;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Settings of a [`DistributionObjective`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributionConfig {
    /// Largest number of steps that the student learns to sample in: its states are at the times 0,
    /// 1/levels, 2/levels, … of the clock.
    pub levels: usize,
    /// Noisy states per text of the student. The auxiliary trains on `renoisings` times as many
    /// rows as the student.
    pub renoisings: usize,
    /// The smallest time of noise that is added again, as a share of the clock (τ if the clock is
    /// even).
    pub earliest: f64,
    /// The largest such time.
    pub latest: f64,
    /// Divides the teacher's logits: below 1 the student learns a sharper distribution than the
    /// teacher's.
    pub temperature: f64,
    /// Divides the student's logits in its loss: above 1 the gradient also reaches tokens to which
    /// the student gives little probability.
    pub student_temperature: f64,
    /// Share of rows that also learn the text to which the teacher's path leads from their state.
    pub paths: f64,
    /// Euler steps of such a path.
    pub path_steps: usize,
    /// Weight of the paths' cross-entropy, relative to the contrast.
    pub path_weight: f64,
}

impl Default for DistributionConfig {
    fn default() -> Self {
        Self {
            levels: 1,
            renoisings: 1,
            earliest: 0.02,
            latest: 0.92,
            temperature: 1.0,
            student_temperature: 1.0,
            paths: 0.0,
            path_steps: 8,
            path_weight: 1.0,
        }
    }
}

/// Invalid settings of distribution matching.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DistributionConfigError {
    /// No state to start from, or no noise to compare at.
    #[error("distribution {key} must be at least 1, found 0")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// Times that are not an interval.
    #[error(
        "distribution earliest and latest must satisfy 0 <= earliest < latest <= 1, found {earliest} and {latest}"
    )]
    Times {
        /// The smallest time found.
        earliest: f64,
        /// The largest time found.
        latest: f64,
    },
    /// A share outside [0, 1].
    #[error("distribution paths must be a share between 0 and 1, found {found}")]
    Paths {
        /// The value found.
        found: f64,
    },
    /// A temperature or a weight that is not positive and finite.
    #[error("distribution {key} must be positive and finite, found {found}")]
    Positive {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        found: f64,
    },
}

impl DistributionConfig {
    /// Checks levels, times, shares and weights.
    ///
    /// # Errors
    ///
    /// Returns the first invalid setting.
    pub fn validate(&self) -> Result<(), DistributionConfigError> {
        let (earliest, latest) = (self.earliest, self.latest);
        for (key, value) in [
            ("levels", self.levels),
            ("renoisings", self.renoisings),
            ("path_steps", self.path_steps),
        ] {
            if value == 0 {
                return Err(DistributionConfigError::Zero { key });
            }
        }
        if !(0.0 <= earliest && earliest < latest && latest <= 1.0) {
            return Err(DistributionConfigError::Times { earliest, latest });
        }
        if !(0.0..=1.0).contains(&self.paths) {
            return Err(DistributionConfigError::Paths { found: self.paths });
        }
        for (key, found) in [
            ("temperature", self.temperature),
            ("student_temperature", self.student_temperature),
            ("path_weight", self.path_weight),
        ] {
            if !(found.is_finite() && found > 0.0) {
                return Err(DistributionConfigError::Positive { key, found });
            }
        }
        Ok(())
    }
}

/// Trains a two-time denoiser to sample in one step, or a few, what the teacher's flow samples in
/// many.
#[derive(Clone, Debug)]
pub struct DistributionObjective<B: Backend> {
    schedule: Schedule,
    config: DistributionConfig,
    teacher: Dit<B>,
    auxiliary: Dit<B>,
    prior: Prior<B>,
}

/// The network times τ of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct DistributionRow {
    /// Of the state that the student starts from.
    pub level: f64,
    /// Of the noisy states at which teacher and auxiliary are compared.
    pub renoised: Vec<f64>,
    /// Whether the student also learns the end of the teacher's path from this state.
    pub path: bool,
}

/// The losses of a batch.
#[derive(Clone, Debug)]
pub struct DistributionLosses<A: AutodiffBackend> {
    /// The loss of the student, in the graph, `[1]`. Only its gradient has a meaning.
    pub student: Tensor<A, 1>,
    /// The contrast under the student's probabilities, `[batch · renoisings, length]`, positive
    /// where the student writes what the teacher would not. All rows come once, then again.
    pub contrast: Tensor<A::InnerBackend, 2>,
    /// The loss of the auxiliary, its mean cross-entropy against the student's tokens, in the
    /// graph, `[1]`.
    pub auxiliary: Tensor<A, 1>,
}

impl<B: Backend> DistributionObjective<B> {
    /// Creates the objective from a validated `config`. `schedule` is the teacher's
    /// (`DitConfig::schedule`), and the student has the same. The `auxiliary` learns the
    /// distribution of the student's texts. It starts as the teacher; for several levels, as the
    /// teacher with the level as a second time.
    pub fn new(
        schedule: Schedule,
        config: DistributionConfig,
        teacher: Dit<B>,
        auxiliary: Dit<B>,
    ) -> Self {
        let prior = Prior::new(teacher.embed()).where_computed();
        Self {
            schedule,
            config,
            teacher,
            auxiliary,
            prior,
        }
    }

    /// Draws the times of a whole batch: levels in equal shares, renoising times stratified.
    pub fn rows<R: Rng + ?Sized>(&self, batch: usize, rng: &mut R) -> Vec<DistributionRow> {
        let DistributionConfig {
            levels,
            renoisings,
            earliest,
            latest,
            ..
        } = self.config;
        let offset = rng.random_range(0..levels);
        let mut level: Vec<usize> = (0..batch).map(|row| (row + offset) % levels).collect();
        level.shuffle(rng);
        let times = stratified(batch * renoisings, rng);
        let clock = self.schedule.clock();
        let within = |share: &f64| clock.tau(earliest + (latest - earliest) * share);
        let paths = self.path_count(batch);
        let row = |(row, (level, times)): (usize, (usize, &[f64]))| DistributionRow {
            level: clock.tau(level as f64 / levels as f64),
            renoised: times.iter().map(within).collect(),
            path: row < paths,
        };
        level
            .into_iter()
            .zip(times.chunks_exact(renoisings))
            .enumerate()
            .map(row)
            .collect()
    }

    /// Returns how many of `batch` rows have a path, rounded to the nearest.
    fn path_count(&self, batch: usize) -> usize {
        (batch as f64 * self.config.paths).round() as usize
    }

    /// Returns the noise distribution that the student starts from. If there are paths, the teacher
    /// sees it too.
    pub fn prior(&self, student: &Dit<B>, size: StepSize) -> Prior<B> {
        let teacher = (self.config.paths > 0.0).then(|| self.teacher.embed());
        Prior::for_training(student.embed(), teacher, size.tokens, size.parts)
    }

    /// Draws the noise to add again to the student's texts, `batch` sequences of `length` tokens.
    pub fn renoising<R: Rng + ?Sized>(&self, [batch, length]: [usize; 2], rng: &mut R) -> Noise<B> {
        self.prior.draw(batch * self.config.renoisings, length, rng)
    }

    /// Returns the losses at the given times. The `tokens` `[batch, length]` make the states of
    /// levels above 0. `noise` is the student's, and `renoising` is added again to its texts
    /// ([`renoising`](Self::renoising)).
    ///
    /// The `auxiliary` must have the teacher's embedding. No gradient reaches the embedding here,
    /// so it does not change.
    pub fn score<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        [student, auxiliary]: [&Dit<A>; 2],
        tokens: Tensor<A, 2, Int>,
        [noise, renoising]: [&Noise<B>; 2],
        rows: &[DistributionRow],
        dropout: &mut Dropout<'_>,
    ) -> DistributionLosses<A> {
        let device = self.teacher.embed().embedding.device();
        let written_from = |row: &DistributionRow| TimeRow::span(RowKind::Boundary, row.level, 1.0);
        let at: Vec<TimeRow> = rows.iter().map(written_from).collect();
        let at = RowTimes::<A>::of(&at, &self.schedule, &tokens.device());
        let state = self.begun(student, tokens.clone(), noise, rows, &at);
        let answer = student.forward(state, at.tau_s.clone(), at.tau_t.clone(), dropout);
        let paths = self.paths(&answer, tokens, noise, rows);
        let times = self.config.renoisings;
        let written = answer.inner().distribution().argmax().repeat_dim(0, times);
        let (answer, level) = (answer.repeat(times), at.tau_s.repeat_dim(0, times));

        // All rows once, then again, in the order of the repeated answers.
        let renoised = |time: usize| rows.iter().map(move |row| row.renoised[time]);
        let times: Vec<TimeRow> = (0..times)
            .flat_map(renoised)
            .map(TimeRow::diagonal)
            .collect();
        let times = RowTimes::<B>::of(&times, &self.schedule, &device);
        let embed = self.teacher.embed();
        let state = interpolate(
            renoising.seen(embed),
            embed.tokens(written.clone()),
            times.s,
        );
        let tau = times.tau_s;
        let real = self
            .teacher
            .forward(state.clone(), tau.clone(), tau.clone(), &mut Dropout::off())
            .distribution_at(self.config.temperature);
        let state = Tensor::from_inner(state);
        // Without dropout, like the teacher, so that the two differ only in what they have learned.
        let tau = Tensor::from_inner(tau);
        let own = auxiliary.forward(state, tau, level, &mut Dropout::off());
        let shape = written.dims();
        let minus = Tensor::full([shape[0]], -1.0, &device);
        let contrast = own.inner().distribution().plus(real, minus);
        let mean = mean_of(shape, shape[0], &device);
        let size = contrast.l1_norm().mean_dim(1).clamp_min(LEAST_CONTRAST);
        let temperature = self.config.student_temperature;
        let score = answer.expectation(&contrast, temperature, mean.clone() / size);
        DistributionLosses {
            student: match paths {
                Some(paths) => score.loss + paths,
                None => score.loss,
            },
            contrast: score.per_token,
            auxiliary: own.cross_entropy(Tensor::from_inner(written), mean).loss,
        }
    }

    /// Returns the states that the student starts from. Those at the clock's start are noise alone,
    /// like a sampler's.
    fn begun<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        student: &Dit<A>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<B>,
        rows: &[DistributionRow],
        at: &RowTimes<A>,
    ) -> Tensor<A, 3> {
        let state = noise.interpolate(student.embed(), tokens.clone(), at.s.clone());
        let start = self.schedule.clock().start();
        if start == 0.0 {
            return state;
        }
        let first: Vec<f32> = rows
            .iter()
            .map(|row| f32::from(row.level == start))
            .collect();
        let text = Tensor::from_floats(first.as_slice(), &tokens.device()) * at.s.clone();
        let text = text.reshape([rows.len(), 1, 1]);
        state - student.embed().tokens(tokens) * text
    }

    /// Returns the student's loss against the ends of the teacher's paths, for the rows that have a
    /// path.
    fn paths<A: AutodiffBackend<InnerBackend = B>>(
        &self,
        answer: &Prediction<A>,
        tokens: Tensor<A, 2, Int>,
        noise: &Noise<B>,
        rows: &[DistributionRow],
    ) -> Option<Tensor<A, 1>> {
        let chosen: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].path).collect();
        if chosen.is_empty() {
            return None;
        }
        let [batch, length] = tokens.dims();
        let embed = self.teacher.embed();
        let device = embed.embedding.device();
        let span = |&row: &usize| TimeRow::span(RowKind::Boundary, rows[row].level, 1.0);
        let spans: Vec<TimeRow> = chosen.iter().map(span).collect();
        let index: Vec<i32> = chosen.iter().map(|&row| row as i32).collect();
        let index = Tensor::<B, 1, Int>::from_ints(index.as_slice(), &device);
        let seen = noise.seen_by_teacher(embed).select(0, index.clone());
        let tokens = embed.tokens(tokens.inner().select(0, index));
        let times = RowTimes::<B>::of(&spans, &self.schedule, &device);
        let state = interpolate(seen, tokens, times.s);
        let config = &self.config;
        let (steps, temperature) = (config.path_steps, config.temperature);
        let target = follow(
            &self.teacher,
            state,
            &spans,
            steps,
            &self.schedule,
            temperature,
        );
        let weights = mean_of([chosen.len(), length], batch, &device);
        let score = answer
            .select(&chosen)
            .soft_cross_entropy(&target, weights * config.path_weight);
        Some(score.loss)
    }
}

/// A smaller contrast, summed over tokens and averaged over positions, is rounding and is not
/// scaled up.
const LEAST_CONTRAST: f64 = 1e-3;

impl<B: AutodiffBackend> Objective<B> for DistributionObjective<B::InnerBackend> {
    type Network = Dit<B>;
    type Shared = Prior<B::InnerBackend>;

    fn shared(&self, network: &Inner<B, Dit<B>>, size: StepSize) -> Self::Shared {
        self.prior(network, size)
    }

    fn losses(
        &self,
        network: &Dit<B>,
        tokens: Tensor<B, 2, Int>,
        step: &TrainingStep<'_, B, Self>,
    ) -> Losses<B> {
        let auxiliary = step.auxiliary.expect("the loop provides the auxiliary");
        let rows = step.share(&self.rows(step.batch, &mut step.times()));
        let (shape, noise) = (tokens.dims(), step.noise(tokens.dims()));
        let renoising = self.renoising(shape, &mut step.stream.own(purpose::RENOISING));
        let noise = [&noise, &renoising];
        let losses = step.with_dropout(|dropout| {
            self.score([network, auxiliary], tokens, noise, &rows, dropout)
        });
        let [count, _] = losses.contrast.dims();
        let of_auxiliary: f64 = losses.auxiliary.clone().inner().into_scalar().elem();
        let diagnostic = Diagnostic {
            name: "auxiliary",
            sum: of_auxiliary * count as f64,
            count: count as f64,
        };
        Losses {
            diagnostics: vec![diagnostic],
            ..Losses::new(
                losses.student + losses.auxiliary,
                losses.contrast,
                vec!["contrast"; count],
            )
        }
    }

    /// Student and auxiliary are trained. The teacher scores every renoised text and follows its
    /// paths.
    fn evaluations(&self, batch: usize) -> f64 {
        let renoised = batch * self.config.renoisings;
        let paths = self.path_count(batch) as f64;
        batch as f64 * TRAINED
            + renoised as f64 * (TRAINED + 1.0)
            + paths * self.config.path_steps as f64
    }

    fn auxiliary(&self) -> Option<Dit<B>> {
        Some(trainable(self.auxiliary.clone()))
    }
}

#[cfg(test)]
mod tests;
