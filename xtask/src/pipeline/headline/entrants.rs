//! What is compared.

/// A model that is compared, or another way to sample one.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub(crate) name: &'static str,
    pub(super) family: &'static str,
    /// What it is distilled from.
    pub(crate) teacher: Option<&'static str>,
    /// Whose samples these are, by other options.
    pub(crate) model: Option<&'static str>,
    /// Options of `flm sample`.
    pub(super) options: &'static [&'static str],
    /// Its preset on the grammar, if not that of its family.
    preset: Option<&'static str>,
    /// Settings of its training on the grammar, beside its preset.
    pub(super) on_grammar: &'static [&'static str],
    /// Settings of its training on text, beside the preset of all.
    pub(super) on_text: &'static [&'static str],
    /// The number of steps that it was trained for, if it is one.
    pub(super) only: Option<usize>,
}

const fn trained(name: &'static str, family: &'static str) -> Entrant {
    Entrant {
        name,
        family,
        teacher: None,
        model: None,
        options: &[],
        preset: None,
        on_grammar: &[],
        on_text: &[],
        only: None,
    }
}

const fn distilled(name: &'static str, family: &'static str, teacher: &'static str) -> Entrant {
    Entrant {
        teacher: Some(teacher),
        ..trained(name, family)
    }
}

const fn sampled(
    name: &'static str,
    family: &'static str,
    model: &'static str,
    options: &'static [&'static str],
) -> Entrant {
    Entrant {
        model: Some(model),
        options,
        ..trained(name, family)
    }
}

/// The flow map of which the claim is made.
pub(crate) const FLOW_MAP: &str = "FMLM by matching";
const EVIDENT: &str = "FLM with evidence";

/// Each behind its teacher, and other ways to sample behind their model.
pub(crate) const ENTRANTS: &[Entrant] = &[
    trained("FLM", "flow"),
    distilled("FMLM", "flow", "FLM"),
    // As it was published of LM1B.
    sampled("FMLM, γ = 0.8", "flow", "FMLM", &["--gamma", "0.8"]),
    Entrant {
        preset: Some("grammar-tiny"),
        on_text: &["model.evidence=true", "train.self_conditioning=0.25"],
        ..trained(EVIDENT, "flow")
    },
    sampled(
        "FLM with evidence, bridge",
        "flow",
        EVIDENT,
        &["--sampler", "bridge"],
    ),
    Entrant {
        preset: Some("grammar-tiny"),
        // At equal evaluations as valid as the preset's and more varied, but slower on two cores.
        on_grammar: &[
            "distill.distribution.temperature=0.85",
            "distill.distribution.student_temperature=2",
            "distill.train.batch=16",
        ],
        on_text: &[
            "distill.flow_map.objective=distribution",
            "distill.distribution.student_temperature=8",
            "distill.train.auxiliary_rate=3",
            "distill.train.optimizer.lr=2e-4",
            "distill.train.optimizer.muon_lr=1.2e-2",
        ],
        only: Some(1),
        ..distilled(FLOW_MAP, "flow", EVIDENT)
    },
    trained("MDLM", "mdlm"),
    distilled("MDLM + SDTT", "mdlm", "MDLM"),
    trained("Duo", "duo"),
    distilled("Duo + DCD", "duo", "Duo"),
    // As it was published.
    sampled(
        "Duo + DCD, greedy tail",
        "duo",
        "Duo + DCD",
        &["--greedy-tail"],
    ),
    trained("AR", "autoregressive"),
];

/// Judges real text; of a seed that no entrant has.
pub(super) const JUDGE: Entrant = trained("judge", "autoregressive");
pub(super) const JUDGE_SEED: u64 = 1_000;

impl Entrant {
    /// Its preset on the grammar.
    pub(super) fn of_grammar(&self) -> &'static str {
        if let Some(preset) = self.preset {
            return preset;
        }
        match self.family {
            "mdlm" => "grammar-mdlm",
            "duo" => "grammar-duo",
            "autoregressive" => "grammar-ar",
            _ => "grammar-trajectory",
        }
    }

    /// The option that trades entropy for quality: one step of a flow answers the likeliest tokens, whatever the temperature.
    pub(super) fn sharpens(&self, steps: Option<usize>) -> &'static str {
        if self.family == "flow" && steps == Some(1) {
            "--noise-scale"
        } else {
            "--temperature"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_models_come_first() {
        for (place, entrant) in ENTRANTS.iter().enumerate() {
            for before in entrant.teacher.iter().chain(&entrant.model) {
                let found = ENTRANTS[..place].iter().find(|e| e.name == *before);
                assert_eq!(found.expect("it is there").family, entrant.family);
            }
        }
    }
}
