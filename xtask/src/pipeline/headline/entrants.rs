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
}

const fn trained(name: &'static str, family: &'static str) -> Entrant {
    Entrant {
        name,
        family,
        teacher: None,
        model: None,
        options: &[],
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

pub(crate) const FLOW_MAP: &str = "FMLM";

/// Each behind its teacher, and other ways to sample behind their model.
pub(crate) const ENTRANTS: &[Entrant] = &[
    trained("FLM", "flow"),
    distilled(FLOW_MAP, "flow", "FLM"),
    // As it was published of LM1B.
    sampled("FMLM, γ = 0.8", "flow", FLOW_MAP, &["--gamma", "0.8"]),
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
    /// The preset of its family on the grammar.
    pub(super) fn of_grammar(&self) -> &'static str {
        match self.family {
            "mdlm" => "grammar-mdlm",
            "duo" => "grammar-duo",
            "autoregressive" => "grammar-ar",
            _ => "grammar-trajectory",
        }
    }

    /// Whether samples in so many steps depend on the temperature: one step of a flow answers the likeliest tokens.
    pub(super) fn has_temperature(&self, steps: usize) -> bool {
        self.family != "flow" || steps > 1
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
