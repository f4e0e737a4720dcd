//! Errors in a grammar's source.

use thiserror::Error;

/// An error in a grammar's source, with its line.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("line {line}: {kind}")]
pub struct GrammarError {
    /// Line of the source, counted from 1.
    pub line: usize,
    /// The kind of error.
    pub kind: GrammarErrorKind,
}

impl GrammarError {
    pub(super) fn new(line: usize, kind: GrammarErrorKind) -> Self {
        Self { line, kind }
    }
}

/// The kinds of errors in a grammar.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum GrammarErrorKind {
    /// A line that is neither a declaration nor a rule.
    #[error(
        "expected `feature`, `part`, `start`, a rule `Head -> ...` or a continuation `| ...`, found `{found}`"
    )]
    Statement {
        /// The line's first token.
        found: String,
    },
    /// A malformed declaration.
    #[error("expected `{expected}`")]
    Declaration {
        /// The expected form.
        expected: &'static str,
    },
    /// A name that is declared twice. Features, their values and parts share one namespace.
    #[error("`{name}` is declared twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A part refers to an unknown feature or to an unknown value of it.
    #[error("`{name}` is not {what}")]
    Unknown {
        /// The name.
        name: String,
        /// The expected kind of name.
        what: &'static str,
    },
    /// A malformed symbol.
    #[error("expected a symbol such as `Name` or `Name[sg,gen]`, without spaces, found `{found}`")]
    Symbol {
        /// The token.
        found: String,
    },
    /// An argument in brackets that is neither a value nor a variable.
    #[error("`{argument}` in `{symbol}` is neither a feature's value nor a variable")]
    Argument {
        /// The symbol as written.
        symbol: String,
        /// The unknown argument.
        argument: String,
    },
    /// A symbol whose features differ from those of its first mention.
    #[error("`{symbol}` has the features [{found}], but [{expected}] on line {first_line}")]
    Signature {
        /// The symbol's name.
        symbol: String,
        /// Features at the first mention.
        expected: String,
        /// Features here.
        found: String,
        /// Line of the first mention.
        first_line: usize,
    },
    /// A weight that is not a number, is outside 1e-6 to 1e6, or is not at an alternative's end.
    #[error(
        "expected a weight such as `@2` from 1e-6 to 1e6 at the end of an alternative, found `{found}`"
    )]
    Weight {
        /// The token.
        found: String,
    },
    /// An empty alternative.
    #[error("an alternative is empty; write `()` for the empty string")]
    EmptyAlternative,
    /// A missing `start` declaration.
    #[error("expected a declaration `start Symbol`, found none")]
    NoStart,
    /// A symbol with feature values that no rule defines.
    #[error("no rule defines `{symbol}`")]
    Undefined {
        /// The symbol, for example `Kin[pl,n]`.
        symbol: String,
    },
    /// A rule that no derivation from the start symbol uses.
    #[error("the rule for `{symbol}` cannot be reached from the start symbol")]
    Unreachable {
        /// The rule's head as written.
        symbol: String,
    },
    /// A symbol that derives itself, which would make the language infinite.
    #[error("recursion: {cycle}")]
    Recursive {
        /// The cycle, for example `A -> B -> A`.
        cycle: String,
    },
    /// More plain alternatives than allowed, after the variables are expanded.
    #[error("the rules expand to more than {limit} plain alternatives")]
    TooLarge {
        /// The largest allowed number.
        limit: usize,
    },
    /// Sentences longer than allowed.
    #[error("sentences can be longer than {limit} words")]
    TooLong {
        /// The largest allowed length, in words.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use crate::Grammar;

    fn message(text: &str) -> String {
        Grammar::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn faults_of_form_are_reported_with_their_line() {
        for (text, expected) in [
            ("start S\nnonsense", "line 2: expected `feature`, `part`,"),
            ("| a", "line 1: expected `feature`, `part`,"),
            (
                "# text\nfeature num\n",
                "line 2: expected `feature name = value",
            ),
            ("feature num =", "line 1: expected `feature name = value"),
            ("feature num = sg sg", "line 1: `sg` is declared twice"),
            (
                "feature n = a\npart n of n = a",
                "line 2: `n` is declared twice",
            ),
            (
                "feature n = a\npart p of n =",
                "line 2: expected `part name of",
            ),
            (
                "feature n = a\npart p of m = a",
                "line 2: `m` is not a feature",
            ),
            (
                "feature n = a\npart p of n = c",
                "line 2: `c` is not a value of this feature",
            ),
            (
                "feature n = a\npart p of n = a a",
                "line 2: `a` is declared twice",
            ),
            ("start S T", "line 1: expected `start Symbol"),
            ("start S\nS -> a\nstart S", "line 3: expected `start Symbol"),
            ("s -> a", "line 1: expected a symbol such as `Name`"),
            ("S -> A[x", "line 1: expected a symbol such as `Name`"),
            ("S -> A[x]", "line 1: `x` in `A[x]` is neither"),
            (
                "feature n = a\nS -> A[a']",
                "line 2: `a'` in `A[a']` is neither",
            ),
            ("S -> a\n  | \n", "line 2: an alternative is empty"),
            ("S -> a || b | @2", "line 1: an alternative is empty"),
        ] {
            assert!(
                message(text).starts_with(expected),
                "{text:?}: {}",
                message(text)
            );
        }
    }

    #[test]
    fn weights_are_positive_numbers_at_the_end() {
        for weight in ["@0", "@-1", "@nan", "@inf", "@1e9", "@", "@x", "@2 b"] {
            let message = message(&format!("start S\nS -> b\n | a {weight}"));
            assert!(
                message.starts_with("line 3: expected a weight such as"),
                "{message}"
            );
        }
    }

    #[test]
    fn faults_of_meaning_are_reported_with_their_line() {
        for (text, expected) in [
            (
                "",
                "line 1: expected a declaration `start Symbol`, found none",
            ),
            (
                "S -> a\n",
                "line 1: expected a declaration `start Symbol`, found none",
            ),
            ("start S\nS -> a\n  | B b", "line 3: no rule defines `B`"),
            (
                "start S\nS -> a\nB -> b",
                "line 3: the rule for `B` cannot be reached",
            ),
            (
                "feature n = x y\nstart S\nS -> A[n]\nA[x] -> a",
                "line 3: no rule defines `A[y]`",
            ),
            (
                "feature n = x y\nstart S\nS -> A[x]\nA[x] -> a\nA[y] -> a",
                "line 5: the rule for `A[y]` cannot be reached",
            ),
            (
                "feature n = x\nfeature m = y\nstart S\nS -> A[n]\nA[m] -> a",
                "line 5: `A` has the features [m], but [n] on line 4",
            ),
            (
                "start S\nS -> A\nA -> a | b S",
                "line 1: recursion: S -> A -> S",
            ),
            (
                "start S\nS -> A\nA -> B\nB -> A | b",
                "line 2: recursion: A -> B -> A",
            ),
            ("start S\nS -> S", "line 1: recursion: S -> S"),
        ] {
            assert_eq!(
                message(text).get(..expected.len()),
                Some(expected),
                "{text:?}: {}",
                message(text)
            );
        }
    }

    #[test]
    fn too_many_assignments_are_refused() {
        let values: Vec<String> = (0..50).map(|value| format!("v{value}")).collect();
        let text = format!(
            "feature n = {}\nstart S\nS -> A[n] A[n'] A[n'']\nA[n] -> a",
            values.join(" ")
        );
        assert_eq!(
            message(&text),
            "line 3: the rules expand to more than 100000 plain alternatives"
        );
    }
}
