//! Every objective and its options, from one teacher, at equal evaluations.

use super::runner::words;
use super::study::{Data, Model, Study, Table, set, smallest};

const PRESET: &str = "grammar-trajectory";
const STEPS: [usize; 4] = [1, 2, 4, 8];
const TEACHER: &str = "teacher";

/// A name, and settings of the section `distill.flow_map`.
type Variant = (&'static str, &'static [&'static str]);

/// Objectives as they are: the lines of the picture.
const OBJECTIVES: &[Variant] = &[
    ("semigroup", &["objective=semigroup"]),
    ("lagrangian", &["objective=lagrangian"]),
    ("eulerian", &["objective=eulerian"]),
    (
        "eulerian, squared error",
        &["objective=eulerian", "measure=squared_error"],
    ),
    ("ecld", &["objective=ecld"]),
    ("consistency", &["objective=consistency"]),
];

/// Objectives with an option.
const OPTIONS: &[Variant] = &[
    (
        "semigroup, random midpoint",
        &["objective=semigroup", "midpoint=random"],
    ),
    (
        "semigroup, squared error",
        &["objective=semigroup", "measure=squared_error"],
    ),
    (
        "semigroup, weight 2 off the diagonal",
        &["objective=semigroup", "off_diagonal_weight=2"],
    ),
    (
        "semigroup, averaged target",
        &["objective=semigroup", "target=average"],
    ),
    (
        "lagrangian, student's denoiser",
        &["objective=lagrangian", "denoiser=student"],
    ),
    (
        "semigroup, learned weight",
        &["objective=semigroup", "loss_weight=true"],
    ),
    ("residual", &["objective=residual"]),
];

/// Without a teacher, with the teacher's evaluations besides.
const ALONE: &[Variant] = &[
    ("semigroup, alone", &["objective=semigroup"]),
    ("lagrangian, alone", &["objective=lagrangian"]),
    ("eulerian, alone", &["objective=eulerian"]),
];

/// The study at a budget; at the smallest size for a smoke test.
pub(crate) fn study(evaluations: u64, seeds: Vec<u64>, smoke: bool) -> Study {
    let small = |sections: &[&str]| {
        if smoke {
            smallest(sections)
        } else {
            Vec::new()
        }
    };
    let flow = if smoke { 60 } else { 499_200 };
    let distill = |name, settings: &[&str]| Model {
        name,
        teacher: Some(TEACHER),
        training: [
            words(&format!("distill --preset {PRESET}")),
            set("distill.flow_map.", settings),
            small(&["distill.train"]),
        ]
        .concat(),
        evaluations,
        ..Model::default()
    };
    let mut models = vec![Model {
        name: TEACHER,
        training: [
            words(&format!("train --preset {PRESET}")),
            small(&["train"]),
        ]
        .concat(),
        evaluations: flow,
        shared: true,
        drawn: true,
        ..Model::default()
    }];
    models.extend(OBJECTIVES.iter().map(|(name, settings)| Model {
        drawn: true,
        ..distill(name, settings)
    }));
    models.extend(
        OPTIONS
            .iter()
            .map(|(name, settings)| distill(name, settings)),
    );
    models.push(Model {
        teacher: Some("residual"),
        ..distill("residual, second stage", &[])
    });
    models.extend(ALONE.iter().map(|(name, settings)| {
        let mut model = distill(name, settings);
        // The learning rates of a training that starts from nothing.
        let rates = ["lr=1e-2", "muon_lr=0.04"];
        model.training.push("--self".to_owned());
        model
            .training
            .extend(set("distill.train.optimizer.", &rates));
        Model {
            teacher: None,
            evaluations: evaluations + flow,
            ..model
        }
    }));
    let names = models.iter().skip(1).map(|model| model.name);
    let others: Vec<&'static str> = names.filter(|name| *name != "semigroup").collect();
    let claims = [1, 4].into_iter().flat_map(|steps| {
        let claim = move |name: &&'static str| ((*name, steps), ("semigroup", steps));
        others.iter().map(claim).collect::<Vec<_>>()
    });
    let mut data = words(&format!("--preset {PRESET}"));
    if smoke {
        data.extend(set("", &["data.sentences=600"]));
    }
    Study {
        table: Table {
            title: "Ways to a flow map",
            pipeline: "distillations",
            claims: claims.collect(),
            models,
        },
        data: Data::Grammar(data),
        seeds,
        steps: STEPS.to_vec(),
        temperatures: &[1.0],
        samples: if smoke { 4 } else { 1_000 },
        device: Vec::new(),
    }
}
