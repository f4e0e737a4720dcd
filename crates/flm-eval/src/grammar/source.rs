//! Parses grammar text into rules, before features and variables are expanded.

use std::collections::HashMap;

use super::error::{GrammarError, GrammarErrorKind as Kind};

/// Range of valid weights. It keeps sums and ratios finite.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

type Result<T> = std::result::Result<T, GrammarError>;

/// The declarations and rules of a grammar file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Names of the features, by id.
    features: Vec<String>,
    /// Names of the values of all features, by id.
    pub(super) values: Vec<String>,
    /// Meanings of the names that may appear in brackets.
    names: HashMap<String, Name>,
    pub(super) start: Option<Mention>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
enum Name {
    Value { feature: usize, value: usize },
    Variable { feature: usize, values: Vec<usize> },
}

/// An occurrence of a symbol.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) name: String,
    pub(super) arguments: Vec<Argument>,
    pub(super) line: usize,
}

/// One argument in a symbol's brackets.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    pub(super) text: String,
    feature: usize,
    /// The values of a variable, or the single written value.
    pub(super) values: Vec<usize>,
    pub(super) is_variable: bool,
}

#[derive(Debug)]
pub(super) enum Item {
    Word(String),
    Symbol(Mention),
}

#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) items: Vec<Item>,
    pub(super) weight: f64,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) head: Mention,
    pub(super) alternatives: Vec<Alternative>,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut source = Self::default();
        for (index, line_text) in text.lines().enumerate() {
            let line = index + 1;
            let tokens: Vec<&str> = line_text
                .split_whitespace()
                .take_while(|token| !token.starts_with('#'))
                .collect();
            match tokens.as_slice() {
                [] => {}
                ["feature", rest @ ..] => source.feature(rest, line)?,
                ["part", rest @ ..] => source.part(rest, line)?,
                ["start", rest @ ..] => source.start(rest, line)?,
                ["|", rest @ ..] => {
                    let alternatives = source.alternatives(rest, line)?;
                    let rule = source.rules.last_mut().ok_or_else(|| {
                        GrammarError::new(line, Kind::Statement { found: "|".into() })
                    })?;
                    rule.alternatives.extend(alternatives);
                }
                [head, "->", rest @ ..] => {
                    let head = source.mention(head, line)?;
                    let alternatives = source.alternatives(rest, line)?;
                    source.rules.push(Rule { head, alternatives });
                }
                [found, ..] => {
                    let found = (*found).to_owned();
                    return Err(GrammarError::new(line, Kind::Statement { found }));
                }
            }
        }
        source.check_signatures()?;
        Ok(source)
    }

    fn declare(&mut self, name: &str, meaning: Name, line: usize) -> Result<()> {
        match self.names.insert(name.to_owned(), meaning) {
            None => Ok(()),
            Some(_) => {
                let name = name.to_owned();
                Err(GrammarError::new(line, Kind::Duplicate { name }))
            }
        }
    }

    /// Parses `feature num = sg pl`.
    fn feature(&mut self, tokens: &[&str], line: usize) -> Result<()> {
        let [name, "=", values @ ..] = tokens else {
            let expected = "feature name = value value ...";
            return Err(GrammarError::new(line, Kind::Declaration { expected }));
        };
        if values.is_empty() {
            let expected = "feature name = value value ...";
            return Err(GrammarError::new(line, Kind::Declaration { expected }));
        }
        let feature = self.features.len();
        let first = self.values.len();
        self.features.push((*name).to_owned());
        for (offset, text) in values.iter().enumerate() {
            let value = first + offset;
            self.declare(text, Name::Value { feature, value }, line)?;
            self.values.push((*text).to_owned());
        }
        let values = (first..self.values.len()).collect();
        self.declare(name, Name::Variable { feature, values }, line)
    }

    /// Parses `part human of gen = m f`.
    fn part(&mut self, tokens: &[&str], line: usize) -> Result<()> {
        let ([name, "of", of, "=", texts @ ..], false) = (tokens, tokens.len() < 5) else {
            let expected = "part name of feature = value value ...";
            return Err(GrammarError::new(line, Kind::Declaration { expected }));
        };
        let unknown = |name: &str, what| {
            let name = name.to_owned();
            GrammarError::new(line, Kind::Unknown { name, what })
        };
        let feature = (self.features.iter())
            .position(|feature| feature == of)
            .ok_or_else(|| unknown(of, "a feature declared above"))?;
        let mut values = Vec::new();
        for text in texts {
            match self.names.get(*text) {
                Some(Name::Value { value, .. }) if values.contains(value) => {
                    let name = (*text).to_owned();
                    return Err(GrammarError::new(line, Kind::Duplicate { name }));
                }
                Some(Name::Value { feature: f, value }) if *f == feature => values.push(*value),
                _ => return Err(unknown(text, "a value of this feature")),
            }
        }
        self.declare(name, Name::Variable { feature, values }, line)
    }

    /// Parses `start Sentence`.
    fn start(&mut self, tokens: &[&str], line: usize) -> Result<()> {
        let expected = "start Symbol, once, without features";
        let declaration = || GrammarError::new(line, Kind::Declaration { expected });
        let [symbol] = tokens else {
            return Err(declaration());
        };
        let mention = self.mention(symbol, line)?;
        if !mention.arguments.is_empty() || self.start.is_some() {
            return Err(declaration());
        }
        self.start = Some(mention);
        Ok(())
    }

    /// Splits at `|` and parses the words, symbols and weight of each alternative.
    fn alternatives(&self, tokens: &[&str], line: usize) -> Result<Vec<Alternative>> {
        tokens
            .split(|token| *token == "|")
            .map(|tokens| self.alternative(tokens, line))
            .collect()
    }

    fn alternative(&self, tokens: &[&str], line: usize) -> Result<Alternative> {
        let (tokens, weight) = match tokens.split_last() {
            Some((last, before)) if last.starts_with('@') => {
                let weight = last[1..].parse().ok().filter(|w| WEIGHTS.contains(w));
                (before, weight.ok_or_else(|| bad_weight(last, line))?)
            }
            _ => (tokens, 1.0),
        };
        if tokens.is_empty() {
            return Err(GrammarError::new(line, Kind::EmptyAlternative));
        }
        let mut items = Vec::new();
        for token in tokens.iter().filter(|token| **token != "()") {
            if token.starts_with('@') {
                return Err(bad_weight(token, line));
            }
            items.push(if token.starts_with(|c: char| c.is_ascii_uppercase()) {
                Item::Symbol(self.mention(token, line)?)
            } else {
                Item::Word((*token).to_owned())
            });
        }
        Ok(Alternative { items, weight })
    }

    /// Parses `Name` or `Name[argument,argument]`.
    fn mention(&self, text: &str, line: usize) -> Result<Mention> {
        let malformed = || {
            let found = text.to_owned();
            GrammarError::new(line, Kind::Symbol { found })
        };
        let (name, inside) = match text.split_once('[') {
            Some((name, rest)) => {
                let inside = rest.strip_suffix(']').ok_or_else(malformed)?;
                (name, Some(inside))
            }
            None => (text, None),
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(malformed());
        }
        let arguments = inside
            .map(|inside| inside.split(',').collect::<Vec<_>>())
            .unwrap_or_default()
            .into_iter()
            .map(|argument| {
                self.argument(argument).ok_or_else(|| {
                    let (symbol, argument) = (text.to_owned(), argument.to_owned());
                    GrammarError::new(line, Kind::Argument { symbol, argument })
                })
            })
            .collect::<Result<_>>()?;
        let name = name.to_owned();
        Ok(Mention {
            name,
            arguments,
            line,
        })
    }

    fn argument(&self, text: &str) -> Option<Argument> {
        let base = text.trim_end_matches('\'');
        let (feature, values, is_variable) = match self.names.get(base)? {
            Name::Value { feature, value } if base == text => (*feature, vec![*value], false),
            Name::Value { .. } => return None,
            Name::Variable { feature, values } => (*feature, values.clone(), true),
        };
        let text = text.to_owned();
        Some(Argument {
            text,
            feature,
            values,
            is_variable,
        })
    }

    /// Checks that every symbol has the same features in the same order everywhere.
    fn check_signatures(&self) -> Result<()> {
        let mut first: HashMap<&str, &Mention> = HashMap::new();
        let features = |mention: &Mention| -> Vec<usize> {
            mention.arguments.iter().map(|a| a.feature).collect()
        };
        let names = |features: Vec<usize>| -> String {
            let names: Vec<&str> = features
                .iter()
                .map(|f| self.features[*f].as_str())
                .collect();
            names.join(",")
        };
        for mention in self.mentions() {
            let before = *first.entry(&mention.name).or_insert(mention);
            if features(before) != features(mention) {
                let kind = Kind::Signature {
                    symbol: mention.name.clone(),
                    expected: names(features(before)),
                    found: names(features(mention)),
                    first_line: before.line,
                };
                return Err(GrammarError::new(mention.line, kind));
            }
        }
        Ok(())
    }

    fn mentions(&self) -> impl Iterator<Item = &Mention> {
        self.start
            .iter()
            .chain(self.rules.iter().flat_map(Rule::mentions))
    }
}

impl Rule {
    fn mentions(&self) -> impl Iterator<Item = &Mention> {
        let items = self.alternatives.iter().flat_map(|a| &a.items);
        std::iter::once(&self.head).chain(items.filter_map(|item| match item {
            Item::Symbol(mention) => Some(mention),
            Item::Word(_) => None,
        }))
    }
}

impl std::fmt::Display for Mention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.arguments.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = self.arguments.iter().map(|a| a.text.as_str()).collect();
        write!(f, "[{}]", texts.join(","))
    }
}

fn bad_weight(token: &str, line: usize) -> GrammarError {
    let found = token.to_owned();
    GrammarError::new(line, Kind::Weight { found })
}
