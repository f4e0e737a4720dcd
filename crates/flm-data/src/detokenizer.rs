//! Detokenizers, which reverse the tokenization of older corpora.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A set of rules that turns a text of separate tokens (`do n't , he said`) into ordinary text.
///
/// The rules are those of the code behind the published results on these data sets (the
/// `*_detokenizer` functions in `dataloader.py` of MDLM and Duo), including their order and quirks,
/// because perplexities are only comparable on the same text. The rules are not idempotent: a
/// second application may change the text again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detokenizer {
    /// Leaves the text unchanged.
    #[default]
    None,
    /// One Billion Words.
    Lm1b,
    /// The raw versions of WikiText-2 and WikiText-103.
    Wikitext,
    /// Penn Treebank. Unknown words become `?`, and the placeholder `N` for numbers becomes `1`.
    Ptb,
    /// LAMBADA: straight quotation marks, trimmed white space, and a line feed at the start.
    Lambada,
    /// arXiv and PubMed papers: the rules of [`Wikitext`](Self::Wikitext), then those of
    /// [`Lm1b`](Self::Lm1b).
    ScientificPapers,
}

impl Detokenizer {
    /// All detokenizers, in documentation order.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Lm1b,
        Self::Wikitext,
        Self::Ptb,
        Self::Lambada,
        Self::ScientificPapers,
    ];

    /// Returns the name in manifests and settings.
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

    /// Detokenizes one document. Returns a borrowed text if no rule changes it.
    ///
    /// The rules match across line ends, so `text` must be a whole document.
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

/// A name that is not a detokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown detokenizer `{found}`, expected one of {}", names())]
pub struct UnknownDetokenizer {
    /// The requested name.
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

/// Whether Python's `str.isspace` is true, which `strip` and `\s` use: Unicode white space and four
/// separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// A replacement that applies everywhere in the text.
enum Rule {
    Text(&'static str, &'static str),
    Pattern(Regex, &'static str),
}

impl Rule {
    /// Creates a rule from a pattern. `put` may refer to groups of the pattern: `${1}`.
    ///
    /// Python's `\w` and `\s` differ from those of this crate. Patterns spell them out as `\p{L}`,
    /// `\p{N}` and `_`, and with the four separators. Python's `$` also matches before a final line
    /// end, hence the groups `(\n?)\z`.
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
        // Contractions. The published second rule inserts a pattern in place of the digit.
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
        // Adjacent matches share a space, so one pass replaces every other one. The published code
        // makes ten passes, but the third and later ones change nothing.
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
        // Python counts fractions as word characters, but not combining marks.
        assert_eq!(Detokenizer::Lm1b.apply("a '½ b"), "a'½ b");
        assert_eq!(Detokenizer::Lm1b.apply("a '\u{301} b"), "a '\u{301} b");
        // `$` also matches before a final line end, but only before the last one.
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
            "unknown detokenizer `wiki`, expected one of none, lm1b, wikitext, ptb, lambada, scientific_papers"
        );
    }
}
