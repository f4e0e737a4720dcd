//! Layers of settings over the defaults, with every key checked.

use super::Config;
use crate::error::{CliError, Result};
use toml::{Table, Value};

/// Settings under construction: defaults, overridden by a preset, overridden by single keys.
///
/// The known keys and their types are those of the defaults.
pub(crate) struct Overrides {
    known: Table,
    settings: Table,
}

impl Overrides {
    /// Starts with the defaults.
    pub(crate) fn new() -> Self {
        let known = table(&Config::default());
        Self {
            settings: known.clone(),
            known,
        }
    }

    /// Applies the text of a preset or a configuration file. `origin` names it in errors.
    pub(crate) fn file(&mut self, text: &str, origin: &str) -> Result<()> {
        let layer: Table = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count())
                + 1;
            CliError::input(format!(
                "{origin} is not TOML: line {line}: {}",
                error.message()
            ))
        })?;
        self.check(&layer, &mut Vec::new(), origin)?;
        merge(&mut self.settings, layer);
        Ok(())
    }

    /// Sets one key by `key=value`. The key is looked up in `sections` first, in their order, then
    /// as a full key, so `optimizer.lr` means the command's own.
    pub(crate) fn set(&mut self, assignment: &str, sections: &[&str]) -> Result<()> {
        let Some((key, text)) = assignment.split_once('=') else {
            return Err(CliError::input(format!(
                "--set {assignment}: expected KEY=VALUE"
            )));
        };
        let (key, text) = (key.trim(), text.trim());
        let in_sections = sections.iter().map(|section| format!("{section}.{key}"));
        let mut places = in_sections.filter(|place| self.known_value(place).is_some());
        let place = match places.next() {
            Some(place) => place,
            None if self.known_value(key).is_some() => key.to_owned(),
            None => return Err(self.unknown(key, "--set", sections)),
        };
        // Text that is not a TOML value is a string without quotes.
        let value = toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(text.to_owned()));
        let layer = place.rsplit('.').fold(value, |inner, key| {
            let mut table = Table::new();
            table.insert(key.to_owned(), inner);
            Value::Table(table)
        });
        let Value::Table(layer) = layer else {
            unreachable!("a key has at least one part")
        };
        self.check(&layer, &mut Vec::new(), "--set")?;
        merge(&mut self.settings, layer);
        Ok(())
    }

    /// Returns the configuration.
    pub(crate) fn finish(self) -> Result<Config> {
        Value::Table(widen(self.settings, &self.known))
            .try_into()
            .map_err(|error: toml::de::Error| {
                CliError::input(format!("the configuration: {}", one_line(&error)))
            })
    }

    fn known_value(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.known.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// Returns an error for an unknown key or a wrong type.
    fn check(&self, layer: &Table, path: &mut Vec<String>, origin: &str) -> Result<()> {
        for (key, found) in layer {
            path.push(key.clone());
            let place = path.join(".");
            let Some(expected) = self.known_value(&place) else {
                return Err(self.unknown(&place, origin, &[]));
            };
            match (expected, found) {
                (Value::Table(_), Value::Table(inner)) => self.check(inner, path, origin)?,
                _ if fits(expected, found) => {}
                _ => {
                    return Err(CliError::input(format!(
                        "{origin}: {place} must be {}, found {}",
                        describe(expected),
                        show(found)
                    )));
                }
            }
            path.pop();
        }
        Ok(())
    }

    fn unknown(&self, key: &str, origin: &str, sections: &[&str]) -> CliError {
        let mut known = Vec::new();
        leaves(&self.known, "", &mut known);
        // Compares every suffix, so `optimizer.lrr` and `train.optimizer.lrr` are equally close to
        // `train.optimizer.lr`.
        let likeness = |candidate: &str| {
            let starts =
                std::iter::once(0).chain(candidate.match_indices('.').map(|(dot, _)| dot + 1));
            starts
                .map(|start| strsim::normalized_damerau_levenshtein(key, &candidate[start..]))
                .fold(0.0, f64::max)
        };
        let is_ours = |candidate: &str| {
            sections
                .iter()
                .any(|section| candidate.starts_with(&format!("{section}.")))
        };
        // Ties go to the command's own sections, then to the shortest key.
        let nearest = known.iter().max_by(|a, b| {
            let ours = is_ours(a).cmp(&is_ours(b));
            likeness(a)
                .total_cmp(&likeness(b))
                .then(ours)
                .then(b.len().cmp(&a.len()))
        });
        let nearest = nearest.map_or_else(String::new, |nearest| {
            format!("; the nearest known one is `{nearest}`")
        });
        CliError::input(format!("{origin}: there is no setting `{key}`{nearest}"))
    }
}

/// Returns the first key, in the order of the file, whose values differ, with both values.
pub(crate) fn first_difference(a: &Config, b: &Config) -> Option<(String, String, String)> {
    let (a, b) = (table(a), table(b));
    let mut keys = Vec::new();
    leaves(&a, "", &mut keys);
    let at = |table: &Table, key: &str| {
        let mut parts = key.split('.');
        let first = table.get(parts.next()?)?;
        parts
            .try_fold(first, |value, part| value.get(part))
            .map(show)
    };
    keys.into_iter().find_map(|key| {
        let (a, b) = (at(&a, &key)?, at(&b, &key)?);
        (a != b).then_some((key, a, b))
    })
}

fn table(config: &Config) -> Table {
    match Value::try_from(config) {
        Ok(Value::Table(table)) => table,
        other => unreachable!("a configuration serializes to a table: {other:?}"),
    }
}

fn leaves(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let place = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => leaves(inner, &format!("{place}."), out),
            _ => out.push(place),
        }
    }
}

fn merge(settings: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (settings.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(layer)) => merge(inner, layer),
            (_, value) => {
                settings.insert(key, value);
            }
        }
    }
}

/// Converts integers to floats where a float is expected: `lr = 1` means `lr = 1.0`.
fn widen(settings: Table, known: &Table) -> Table {
    let widened = |key: &str, value| match (known.get(key), value) {
        (Some(Value::Table(known)), Value::Table(inner)) => Value::Table(widen(inner, known)),
        (Some(Value::Float(_)), Value::Integer(number)) => Value::Float(number as f64),
        (_, value) => value,
    };
    settings
        .into_iter()
        .map(|(key, value)| (key.clone(), widened(&key, value)))
        .collect()
}

fn fits(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Float(_), Value::Integer(_)) => true,
        // All integers of the configuration are counts.
        (Value::Integer(_), Value::Integer(found)) => *found >= 0,
        (Value::Array(expected), Value::Array(found)) => expected
            .first()
            .is_none_or(|expected| found.iter().all(|found| fits(expected, found))),
        _ => expected.same_type(found),
    }
}

fn describe(expected: &Value) -> String {
    match expected {
        Value::String(_) => "a text".to_owned(),
        Value::Integer(_) => "a whole number of at least 0".to_owned(),
        Value::Float(_) => "a number".to_owned(),
        Value::Boolean(_) => "true or false".to_owned(),
        Value::Array(values) => match values.first() {
            Some(Value::Integer(_)) => "a list of whole numbers".to_owned(),
            _ => "a list".to_owned(),
        },
        Value::Table(_) => "a section".to_owned(),
        Value::Datetime(_) => "a date".to_owned(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {text:?}"),
        Value::Table(_) => "a section".to_owned(),
        other => other.to_string(),
    }
}

/// Formats an error on one line; TOML prints the key on a line of its own.
fn one_line(error: &toml::de::Error) -> String {
    error
        .to_string()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(assignments: &[&str], sections: &[&str]) -> Result<Config> {
        let mut overrides = Overrides::new();
        for assignment in assignments {
            overrides.set(assignment, sections)?;
        }
        overrides.finish()
    }

    fn refused(assignment: &str) -> String {
        set(&[assignment], &["train"]).unwrap_err().to_string()
    }

    #[test]
    fn single_keys_lie_over_the_preset_and_the_defaults() {
        let mut overrides = Overrides::new();
        overrides
            .file(
                "[train]\nsteps = 7\nbatch = 64\n[train.optimizer]\nlr = 1",
                "a preset",
            )
            .unwrap();
        overrides.set("train.batch = 32", &[]).unwrap();
        let config = overrides.finish().unwrap();
        let default = Config::default();
        assert_eq!((config.train.steps, config.train.batch), (7, 32));
        assert_eq!(config.train.optimizer.lr, 1.0);
        assert_eq!(config.distill, default.distill);
        assert_eq!(config.train.optimizer.beta1, default.train.optimizer.beta1);
    }

    #[test]
    fn short_keys_mean_those_of_the_command() {
        let config = set(&["optimizer.lr=1e-5", "steps=3"], &["train"]).unwrap();
        assert_eq!((config.train.optimizer.lr, config.train.steps), (1e-5, 3));
        assert_eq!(config.distill, Config::default().distill);
        let sections = ["distill", "distill.train"];
        let config = set(
            &[
                "train.steps=4",
                "optimizer.decay=cosine",
                "flow_map.diagonal=0.25",
            ],
            &sections,
        )
        .unwrap();
        assert_eq!(config.train, Config::default().train);
        assert_eq!(config.distill.train.steps, 4);
        assert_eq!(
            config.distill.train.optimizer.decay,
            flm_train::Decay::Cosine
        );
        assert_eq!(config.distill.flow_map.diagonal, 0.25);
    }

    #[test]
    fn unknown_keys_are_answered_with_the_nearest() {
        for (typed, nearest) in [
            ("optimiser.lr=1", "train.optimizer.lr"),
            (
                "train.optimizer.weigth_decay=1",
                "train.optimizer.weight_decay",
            ),
            ("model.widht=64", "model.width"),
            ("stepss=1", "train.steps"),
            ("sample.flm_step=[1]", "sample.flm_steps"),
        ] {
            let key = typed.split('=').next().unwrap();
            let expected =
                format!("--set: there is no setting `{key}`; the nearest known one is `{nearest}`");
            assert_eq!(refused(typed), expected);
        }
        let message = set(&["optimizer.lrr=1"], &["distill", "distill.train"])
            .unwrap_err()
            .to_string();
        assert!(
            message.ends_with("`distill.train.optimizer.lr`"),
            "{message}"
        );
        let mut overrides = Overrides::new();
        let error = overrides
            .file("[modle]\nwidth = 3", "my.toml")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("my.toml: there is no setting `modle`"),
            "{error}"
        );
    }

    #[test]
    fn wrong_types_say_what_was_expected_and_found() {
        assert_eq!(
            refused("train.steps=many"),
            "--set: train.steps must be a whole number of at least 0, found the text \"many\""
        );
        assert_eq!(
            refused("train.steps=-1"),
            "--set: train.steps must be a whole number of at least 0, found -1"
        );
        assert_eq!(
            refused("optimizer.lr=true"),
            "--set: train.optimizer.lr must be a number, found true"
        );
        assert_eq!(
            refused("sample.flm_steps=[1, 2.5]"),
            "--set: sample.flm_steps must be a list of whole numbers, found [1, 2.5]"
        );
        assert_eq!(
            refused("model=3"),
            "--set: model must be a section, found 3"
        );
        assert_eq!(
            refused("model.width"),
            "--set model.width: expected KEY=VALUE"
        );
        let word = refused("optimizer.decay=cosin");
        assert!(
            word.contains(
                "unknown variant `cosin`, expected one of `constant`, `cosine`, `linear`"
            ),
            "{word}"
        );
    }

    #[test]
    fn a_file_that_is_no_toml_names_the_line() {
        let error = Overrides::new()
            .file("[train]\nsteps = = 3\n", "my.toml")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("my.toml is not TOML: line 2: "),
            "{error}"
        );
    }

    #[test]
    fn what_is_saved_can_be_read_again() {
        let config = set(&["train.optimizer.lr=3e-5", "data.source=a \"b\".txt"], &[]).unwrap();
        let mut overrides = Overrides::new();
        overrides
            .file(&toml::to_string_pretty(&config).unwrap(), "config.toml")
            .unwrap();
        assert_eq!(overrides.finish().unwrap(), config);
        assert_eq!(first_difference(&config, &config), None);
        let (key, a, b) = first_difference(&config, &Config::default()).unwrap();
        assert_eq!(
            (key.as_str(), a.as_str(), b.as_str()),
            (
                "data.source",
                "the text \"a \\\"b\\\".txt\"",
                "the text \"grammar\""
            )
        );
    }
}
