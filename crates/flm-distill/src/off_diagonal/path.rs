//! Following the teacher: a jump ends where the teacher's Euler steps lead.

use crate::rows::TimeRow;
use crate::state::RowTimes;
use crate::{Answer, FlowMapConfig, OffDiagonal, TargetRows};
use burn::tensor::{Tensor, backend::AutodiffBackend, backend::Backend};
use flm_denoiser::{Dit, Dropout, Score, TokenDistribution};
use flm_simplex::Schedule;
use flm_simplex::flow_map::{semigroup_weights, transport};

/// Cross-entropy against the teacher's own path from s to t.
///
/// The target is the weighted mean of the teacher's answers along its Euler steps. `steps` is their
/// number from 0 to 1; a shorter jump takes its share of them. The target does not depend on the
/// student. From 0 to 1 these are paired trajectories: noise, and the text that the teacher makes
/// of it. Over segments whose number is halved again and again, this is progressive distillation
/// ([`FlowMapConfig::segments`]).
#[derive(Clone, Copy, Debug)]
pub struct Path {
    steps: usize,
    segments: usize,
}

impl From<&FlowMapConfig> for Path {
    fn from(config: &FlowMapConfig) -> Self {
        Self {
            steps: config.path_steps,
            segments: config.segments,
        }
    }
}

impl<A: AutodiffBackend> OffDiagonal<A> for Path {
    fn losses(
        &self,
        answer: &Answer<'_, A>,
        rows: &TargetRows<'_, A::InnerBackend>,
        weights: Tensor<A::InnerBackend, 2>,
    ) -> Score<A> {
        let teacher = rows.teacher.expect("the path objective has a teacher");
        let state = rows.state_of_teacher(teacher);
        let clock = rows.schedule.clock();
        let longest = rows.times.iter();
        let longest = longest.map(|row| clock.share(row.tau_t) - clock.share(row.tau_s));
        let longest = longest.fold(0.0, f64::max);
        let steps = between(self.steps, longest);
        let target = follow(teacher, state, rows.times, steps, rows.schedule, 1.0);
        answer.prediction.soft_cross_entropy(&target, weights)
    }

    /// The mean over a training in which each number of segments has an equal share.
    fn evaluations(&self) -> f64 {
        let rounds = rounds(self.segments);
        let steps = (0..rounds).map(|round| {
            let segments = self.segments >> round;
            between(self.steps, 1.0 / segments as f64) as f64
        });
        steps.sum::<f64>() / f64::from(rounds)
    }
}

/// Returns how many of `steps` from 0 to 1 lie in a jump over this share of the way.
fn between(steps: usize, share: f64) -> usize {
    // Rounding must not turn a whole number of steps into one more.
    ((steps as f64 * share - 1e-9).ceil() as usize).max(1)
}

/// Returns how often `segments` can be halved, plus one.
pub(crate) fn rounds(segments: usize) -> u32 {
    segments.ilog2() + 1
}

/// Returns one answer δ_{s,t} whose X_{s,t} is the end of the teacher's Euler steps from each row's
/// s to its t.
pub(crate) fn follow<B: Backend>(
    teacher: &Dit<B>,
    mut state: Tensor<B, 3>,
    rows: &[TimeRow],
    steps: usize,
    schedule: &Schedule,
    temperature: f64,
) -> TokenDistribution<B> {
    let device = state.device();
    let clock = schedule.clock();
    let on_the_way = |row: &TimeRow, share: f64| {
        let [from, to] = [row.tau_s, row.tau_t].map(|tau| clock.share(tau));
        clock.tau(from + share * (to - from))
    };
    let at = |step: usize| {
        let share = step as f64 / steps as f64;
        let time = |row: &TimeRow| TimeRow {
            tau_u: on_the_way(row, share),
            ..*row
        };
        let times: Vec<TimeRow> = rows.iter().map(time).collect();
        RowTimes::<B>::of(&times, schedule, &device)
    };
    // At t = 1 only the last answer counts.
    let to_the_end = rows.iter().all(|row| row.tau_t >= 1.0);
    let (mut made, mut earlier): (Option<TokenDistribution<B>>, _) = (None, None);
    for step in 0..steps {
        let (now, next) = (at(step), at(step + 1));
        let tau = now.tau_u.clone();
        let off = &mut Dropout::off();
        let answer = teacher.forward_after(earlier.take(), state.clone(), tau.clone(), tau, off);
        let answer = answer.distribution_at(temperature);
        if step + 1 < steps {
            let mean = answer.mean(teacher.embed());
            state = transport(state, mean.clone(), now.u.clone(), next.u.clone());
            earlier = Some(mean);
        }
        made = Some(match made {
            Some(before) if !to_the_end => {
                before.mix(answer, semigroup_weights(now.s, now.u, next.u))
            }
            _ => answer,
        });
    }
    made.expect("a path has at least one step")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowKind;
    use burn_flex::Flex;
    use flm_denoiser::DitConfig;
    use flm_simplex::noise::gaussian;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn steps_are_shared_by_segments() {
        assert_eq!(
            [1.0, 0.5, 0.25, 0.01].map(|share| between(8, share)),
            [8, 4, 2, 1]
        );
        let path = Path {
            steps: 8,
            segments: 16,
        };
        // 1, 1, 2, 4 and 8 steps.
        type A = burn::backend::Autodiff<Flex>;
        assert_eq!(OffDiagonal::<A>::evaluations(&path), 16.0 / 5.0);
    }

    #[test]
    fn one_answer_leads_where_the_steps_lead() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let device = Default::default();
        let config = DitConfig::new(7, 3, 8, 1, 2);
        let teacher = config.init::<Flex>(&mut rng, &device).unwrap();
        let schedule = config.schedule().unwrap();
        let start: Tensor<Flex, 3> = gaussian([2, 3, 8], &mut rng, &device);
        let rows = [(0.1, 0.7), (0.0, 1.0)].map(|(s, t)| TimeRow::span(RowKind::OffDiagonal, s, t));
        let answer = follow(&teacher, start.clone(), &rows, 4, &schedule, 0.9);
        let times = RowTimes::<Flex>::of(&rows, &schedule, &device);
        let found = transport(
            start.clone(),
            answer.mean(teacher.embed()),
            times.s,
            times.t,
        );
        let mut expected = start;
        for step in 0..4 {
            let at = |step: usize| {
                let time = |row: &TimeRow| row.tau_s + step as f64 / 4.0 * (row.tau_t - row.tau_s);
                rows.each_ref().map(time)
            };
            let tensor = |taus: [f64; 2]| Tensor::<Flex, 1>::from_floats(taus, &device);
            let t = |step: usize| tensor(at(step).map(|tau| schedule.t_of_tau(tau)));
            let tau = tensor(at(step));
            let denoised = teacher
                .forward(expected.clone(), tau.clone(), tau, &mut Dropout::off())
                .distribution_at(0.9);
            expected = transport(
                expected,
                denoised.mean(teacher.embed()),
                t(step),
                t(step + 1),
            );
        }
        let apart: f32 = (found - expected).abs().max().into_scalar();
        assert!(apart < 1e-4, "{apart}");
    }
}
