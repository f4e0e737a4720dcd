//! Losses of the flow map's objectives, and their gradients with respect to the head.

use super::{LOSS, Parity, Verdict, numbers, worst};
use crate::fixture::{Fixture, flat, relative_error};
use crate::gradients::named_gradients;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use flm_denoiser::{Dit, Dropout, Noise};
use flm_distill::{
    FlowMapConfig, FlowMapObjective, Measure, ObjectiveKind, ResidualObjective, RowKind, TimeRow,
};
use flm_objective::Losses;
use flm_simplex::interpolant;

/// The parameter whose gradient is pinned.
const HEAD: &str = "output_layer.linear.weight";

/// Returns the rows of the pinned losses: diagonal, boundary, off-diagonal, in the fixture's order.
pub fn rows(file: &Fixture) -> Vec<TimeRow> {
    let spans = file
        .values("row_tau_s")
        .into_iter()
        .zip(file.values("row_tau_t"));
    file.integers("row_kind")
        .into_iter()
        .zip(spans)
        .map(|(kind, (tau_s, tau_t))| match kind {
            0 => TimeRow::diagonal(tau_s.into()),
            1 => TimeRow::span(RowKind::Boundary, tau_s.into(), tau_t.into()),
            _ => TimeRow::span(RowKind::OffDiagonal, tau_s.into(), tau_t.into()),
        })
        .collect()
}

/// Returns the published configuration of an objective.
pub fn as_published(objective: ObjectiveKind) -> FlowMapConfig {
    let measure = match objective {
        ObjectiveKind::Eulerian => Measure::SquaredError,
        _ => Measure::CrossEntropy,
    };
    FlowMapConfig {
        objective,
        measure,
        ..FlowMapConfig::default()
    }
}

impl<B: AutodiffBackend> Parity<B> {
    /// Compares the loss of each token, or the gradient of their mean.
    pub(super) fn loss(&self, name: &str) -> Option<Verdict> {
        if name == "residual_loss_per_token" {
            return self.residual_loss(name);
        }
        let rest = name.strip_prefix("fmlm_")?;
        let (objective, what) = rest.split_once('_')?;
        let objective = match objective {
            "psd" => ObjectiveKind::Semigroup,
            "lsd" => ObjectiveKind::Lagrangian,
            "esd" => ObjectiveKind::Eulerian,
            _ => return None,
        };
        let student = self.flow_map.as_ref()?;
        let Some(teacher) = &self.flow else {
            return Some(Verdict::Skipped("its teacher is missing"));
        };
        let answer = || self.losses(objective, student, teacher.valid());
        let expected = self.expected.values(name);
        match what {
            "loss_per_token" if objective == ObjectiveKind::Eulerian => {
                Some(self.eulerian(&flat(answer().per_token), &expected))
            }
            "loss_per_token" => Some(numbers(&flat(answer().per_token), &expected, LOSS)),
            "grad.output_layer.linear.weight" if objective == ObjectiveKind::Eulerian => Some(
                Verdict::Skipped("the published loss of its boundary rows dominates all others"),
            ),
            "grad.output_layer.linear.weight" => {
                let gradients = named_gradients(student, answer().mean);
                let found = gradients.iter().find(|gradient| gradient.name == HEAD)?;
                Some(numbers(&found.values, &expected, LOSS))
            }
            _ => None,
        }
    }

    fn losses(
        &self,
        objective: ObjectiveKind,
        student: &Dit<B>,
        teacher: Dit<B::InnerBackend>,
    ) -> Losses<B> {
        let file = &self.expected;
        let config = as_published(objective);
        FlowMapObjective::new(self.schedule.clone(), config, Some(teacher)).score(
            student,
            None,
            file.int("tokens"),
            &Noise::pinned(file.float("noise")),
            &rows(file),
            &mut Dropout::off(),
        )
    }

    /// Compares the Eulerian loss by row, except boundary rows: their published loss is singular.
    ///
    /// On the diagonal, the reference passes t to the student in place of τ, by mistake.
    /// [`Self::published_diagonal`] reproduces that.
    fn eulerian(&self, found: &[f32], expected: &[f32]) -> Verdict {
        let rows = rows(&self.expected);
        let length = expected.len() / rows.len();
        let finite = found.iter().all(|loss| loss.is_finite());
        let of_row = |(row, time): (usize, &TimeRow)| {
            let places = row * length..(row + 1) * length;
            let found = match time.kind {
                RowKind::Diagonal => self.published_diagonal(row),
                RowKind::Boundary => return None,
                RowKind::OffDiagonal => Some(found[places.clone()].to_vec()),
            };
            Some(found.map_or(f64::INFINITY, |found| {
                relative_error(&found, &expected[places])
            }))
        };
        let error = if finite {
            worst(rows.iter().enumerate().filter_map(of_row))
        } else {
            f64::INFINITY
        };
        Verdict::Numbers {
            error,
            tolerance: LOSS,
        }
    }

    /// Returns the cross-entropy of a diagonal row when the student is given t, and the teacher τ.
    fn published_diagonal(&self, row: usize) -> Option<Vec<f32>> {
        let (student, teacher) = (self.flow_map.as_ref()?, self.flow.as_ref()?.valid());
        let file = &self.expected;
        let tau = f64::from(file.values("row_tau_s")[row]);
        let t = self.schedule.t_of_tau(tau);
        let time = |value: f64| Tensor::<B, 1>::full([1], value, &Default::default());
        let tokens = file.int::<B, 2>("tokens").narrow(0, row, 1);
        let [_, length] = tokens.dims();
        let noise = Noise::<B::InnerBackend>::pinned(file.float("noise")).narrow(row, 1);
        let embed = teacher.embed();
        let seen = noise.seen_by_teacher(embed).mul_scalar(1.0 - t)
            + embed.tokens(tokens.clone().inner()).mul_scalar(t);
        let told = time(tau).inner();
        let target = teacher
            .forward(seen, told.clone(), told, &mut Dropout::off())
            .distribution();
        let weights = Tensor::ones([1, length], &Default::default());
        let state = noise.interpolate(student.embed(), tokens, time(t));
        let answer = student.forward(state, time(t), time(t), &mut Dropout::off());
        Some(flat(answer.soft_cross_entropy(&target, weights).per_token))
    }

    /// Compares the residual loss. The pinned value is e^(−w)·ℓ + w if the checkpoint has a learned
    /// weight w, else ℓ.
    fn residual_loss(&self, name: &str) -> Option<Verdict> {
        let (denoiser, second) = self.residual.as_ref()?;
        let file = &self.expected;
        // `residual_d` holds the widths w, `residual_uniform` the positions U′. A row whose third
        // draw is below 1/64 spans 0 to 1.
        let draws = |name: &str| file.values(&format!("residual_{name}"));
        let rows: Vec<TimeRow> = (draws("d").into_iter())
            .zip(draws("uniform"))
            .zip(draws("boundary_uniform"))
            .map(|((width, place), edge)| {
                if f64::from(edge) < 1.0 / 64.0 {
                    return TimeRow::span(RowKind::Boundary, 0.0, 1.0);
                }
                let width = f64::from(width).max(1e-6);
                let tau_s = f64::from(place) * (1.0 - width);
                TimeRow::span(RowKind::OffDiagonal, tau_s, tau_s + width)
            })
            .collect();
        let answer = ResidualObjective::new(self.schedule.clone(), denoiser.clone()).score(
            second,
            file.int("tokens"),
            &Noise::pinned(file.float("noise")),
            &rows,
            &mut Dropout::off(),
        );
        let taus: Vec<f64> = rows.iter().map(|row| row.tau_s).collect();
        let taus = interpolant::rows::<B>(&taus, &Default::default());
        let found = match second.loss_weight(taus) {
            Some(weight) => {
                let weight = weight.unsqueeze_dim::<2>(1).inner();
                answer.per_token * weight.clone().neg().exp() + weight
            }
            None => answer.per_token,
        };
        // Row by row: the guard's share of the state, which we leave out (`residual/jump.rs`), is
        // up to 7e-5 of a row with a small loss.
        let (found, expected) = (flat(found), file.values(name));
        let length = expected.len() / rows.len();
        let errors = (found.chunks(length).zip(expected.chunks(length)))
            .map(|(found, expected)| relative_error(found, expected));
        Some(Verdict::Numbers {
            error: worst(errors),
            tolerance: LOSS,
        })
    }
}
