//! Undoing the tokenization that older corpora come with.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// How a text that was published as separate tokens (`do n't , he said`) becomes ordinary text.
///
/// These are the rules of the code that published the numbers on these data sets (the
/// `*_detokenizer` functions in `dataloader.py` of MDLM and Duo), with their order and their
/// oddities: perplexities are only comparable on the same text. They are not projections:
/// a second application may change a text again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detokenizer {
    /// The text as it is.
    #[default]
    None,
    /// One Billion Words.
    Lm1b,
    /// WikiText-2 and WikiText-103, the raw ones.
    Wikitext,
    /// Penn Treebank. Unknown words become `?`, and the `N` that stands for numbers becomes `1`.
    Ptb,
    /// LAMBADA: straight quotation marks, no white space around it, a line end before it.
    Lambada,
    /// The arXiv and PubMed papers: the rules of [`Wikitext`](Self::Wikitext), then those of [`Lm1b`](Self::Lm1b).
    ScientificPapers,
}

impl Detokenizer {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Lm1b,
        Self::Wikitext,
        Self::Ptb,
        Self::Lambada,
        Self::ScientificPapers,
    ];

    /// The name in manifests and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lm1b => "lm1b",
            Self::Wikitext => "wikitext",
            Self::Ptb => "ptb",
            Self::Lambada => "lambada",
            Self::ScientificPapers => "scientific_papers",
        }
    }

    /// The text of one document; borrowed when no rule changes it.
    ///
    /// The rules look across line ends, so a document must be given whole.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Lm1b => run(&LM1B, Cow::Borrowed(text)),
            Self::Wikitext => run(&WIKITEXT, Cow::Borrowed(text)),
            Self::Ptb => run(&PTB, Cow::Borrowed(text)),
            Self::Lambada => {
                let straight = text.replace(['“', '”'], "\"");
                Cow::Owned(format!("\n{}", straight.trim_matches(is_python_space)))
            }
            Self::ScientificPapers => run(&LM1B, run(&WIKITEXT, Cow::Borrowed(text))),
        }
    }
}

impl fmt::Display for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of a detokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no detokenizer `{found}`, expected one of {}", names())]
pub struct UnknownDetokenizer {
    /// The name that was asked for.
    pub found: String,
}

fn names() -> String {
    Detokenizer::ALL.map(Detokenizer::name).join(", ")
}

impl FromStr for Detokenizer {
    type Err = UnknownDetokenizer;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownDetokenizer {
            found: name.to_owned(),
        })
    }
}

/// Python's `str.isspace`, which `strip` and `\s` go by: four separators more than Unicode's.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// One replacement, everywhere in the text.
enum Rule {
    Text(&'static str, &'static str),
    Pattern(Regex, &'static str),
}

impl Rule {
    /// `put` may name groups of the pattern: `${1}`.
    ///
    /// Python's `\w` and `\s` are not those of this crate. They are written out as `\p{L}`, `\p{N}` and `_`, and
    /// with the four separators; a `$` there also matches before a last line end, hence the groups `(\n?)\z`.
    fn pattern(pattern: &str, put: &'static str) -> Self {
        Self::Pattern(Regex::new(pattern).expect("a constant pattern"), put)
    }

    fn apply(&self, text: &str) -> Option<String> {
        match self {
            Self::Text(find, put) => text.contains(find).then(|| text.replace(find, put)),
            Self::Pattern(find, put) => match find.replace_all(text, *put) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed),
            },
        }
    }
}

fn run<'a>(rules: &[Rule], mut text: Cow<'a, str>) -> Cow<'a, str> {
    for rule in rules {
        if let Some(changed) = rule.apply(&text) {
            text = Cow::Owned(changed);
        }
    }
    text
}

static WIKITEXT: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    use Rule::Text;
    vec![
        // Contractions. The second rule puts a pattern in place of the digit, as published.
        Text("s '", "s'"),
        Rule::pattern(r"/' [0-9]/", "/'[0-9]/"),
        // Within numbers and compounds.
        Text(" @-@ ", "-"),
        Text(" @,@ ", ","),
        Text(" @.@ ", "."),
        // Punctuation.
        Text(" : ", ": "),
        Text(" ; ", "; "),
        Text(" . ", ". "),
        Text(" ! ", "! "),
        Text(" ? ", "? "),
        Text(" , ", ", "),
        // White space within brackets and quotation marks.
        Rule::pattern(r"\([\s\x1c-\x1f]*([^)]*?)[\s\x1c-\x1f]*\)", "(${1})"),
        Rule::pattern(r"\[[\s\x1c-\x1f]*([^\]]*?)[\s\x1c-\x1f]*\]", "[${1}]"),
        Rule::pattern(r"\{[\s\x1c-\x1f]*([^}]*?)[\s\x1c-\x1f]*\}", "{${1}}"),
        Rule::pattern(r#""[\s\x1c-\x1f]*([^"]*?)[\s\x1c-\x1f]*""#, "\"${1}\""),
        Rule::pattern(r"'[\s\x1c-\x1f]*([^']*?)[\s\x1c-\x1f]*'", "'${1}'"),
        // Headings, degrees, line ends, numbers, possessives.
        Text("= = = =", "===="),
        Text("= = =", "==="),
        Text("= =", "=="),
        Text(" ° ", "°"),
        Text(" \n", "\n"),
        Text("\n ", "\n"),
        Text(" N ", " 1 "),
        Text(" 's", "'s"),
    ]
});

static PTB: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    use Rule::Text;
    vec![
        Text(" 's", "'s"),
        Text("s ' ", "s' "),
        Text(" n't", "n't"),
        Text(" \n ", "\n"),
        Text("\\/", "/"),
        // Neighbours share a space, so one pass leaves every other one. The published code makes
        // ten passes, of which the third has nothing left to do.
        Text(" N ", " 1 "),
        Text(" N ", " 1 "),
        Text("$ 1", "$1"),
        Text("# 1", "#1"),
        Text("<unk>", "?"),
    ]
});

static LM1B: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    use Rule::Text;
    vec![
        Text("http : / / ", "http://"),
        Text("https : / / ", "https://"),
        Rule::pattern(r" '([\p{L}\p{N}_]+)", "'${1}"),
        Rule::pattern(r" ([\p{L}\p{N}_]+) \. ", " ${1}. "),
        Rule::pattern(r" ([\p{L}\p{N}_]+) \.(\n?)\z", " ${1}.${2}"),
        Text(" ? ", "? "),
        Rule::pattern(r" \?(\n?)\z", "?${1}"),
        Text(" ! ", "! "),
        Rule::pattern(r" !(\n?)\z", "!${1}"),
        Text(" , ", ", "),
        Text(" : ", ": "),
        Text(" ; ", "; "),
        Text(" / ", "/"),
        Rule::pattern(r#"" ([^"]+) ""#, "\"${1}\""),
        Rule::pattern(r"' ([^']+) '", "'${1}'"),
        Rule::pattern(r"\( ([^()]+) \)", "(${1})"),
        Rule::pattern(r"\[ ([^\[\]]+) \]", "[${1}]"),
        Text("$ ", "$"),
        Text("£ ", "£"),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_change_is_borrowed() {
        for detokenizer in Detokenizer::ALL {
            let text = detokenizer.apply("Plain words, nothing else");
            let changes = detokenizer == Detokenizer::Lambada;
            assert_eq!(matches!(text, Cow::Owned(_)), changes, "{detokenizer}");
        }
    }

    #[test]
    fn classes_are_those_of_python() {
        // Fractions are word characters there, combining marks are not.
        assert_eq!(Detokenizer::Lm1b.apply("a '½ b"), "a'½ b");
        assert_eq!(Detokenizer::Lm1b.apply("a '\u{301} b"), "a '\u{301} b");
        // The end is also before a last line end, and only the last.
        assert_eq!(Detokenizer::Lm1b.apply("the end .\n"), "the end.\n");
        assert_eq!(Detokenizer::Lm1b.apply("really ?\n\n"), "really ?\n\n");
        // The information separators are white space.
        assert_eq!(Detokenizer::Wikitext.apply("(\x1fa\x1c)"), "(a)");
        assert_eq!(Detokenizer::Lambada.apply("\x1d a\u{a0}"), "\na");
    }

    #[test]
    fn numbers_that_share_a_space_are_all_replaced() {
        for count in 1..20 {
            let text = format!("a{} b", " N".repeat(count));
            let expected = format!("a{} b", " 1".repeat(count));
            assert_eq!(Detokenizer::Ptb.apply(&text), expected);
        }
    }

    #[test]
    fn papers_go_through_both() {
        let text = "we show ( see @xcite ) that 1 @.@ 5 \" is \" enough .";
        let both = Detokenizer::Wikitext.apply(text).into_owned();
        let both = Detokenizer::Lm1b.apply(&both).into_owned();
        assert_eq!(Detokenizer::ScientificPapers.apply(text), both);
        assert_eq!(both, "we show (see @xcite) that 1.5 \"is\" enough.");
    }

    #[test]
    fn names_are_read_back() {
        for detokenizer in Detokenizer::ALL {
            assert_eq!(detokenizer.name().parse(), Ok(detokenizer));
            let json = serde_json::to_string(&detokenizer).unwrap();
            assert_eq!(json, format!("\"{detokenizer}\""));
        }
        let error = "wiki".parse::<Detokenizer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no detokenizer `wiki`, expected one of none, lm1b, wikitext, ptb, lambada, scientific_papers"
        );
    }
}
