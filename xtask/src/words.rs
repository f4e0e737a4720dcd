//! Spelling, and words of the project's former dialect that must not come back.

use anyhow::{Context, ensure};
use std::fs;
use std::path::Path;
use unicase::UniCase;

/// A phrase in lower case, and what to write instead.
const PHRASES: &[(&str, &str)] = &[
    ("gone on with", "resumed"),
    ("goes on with", "continues with"),
    ("heeded", "respected"),
    ("a pass back", "a backward pass"),
    ("pass back", "backward pass"),
    ("made anew", "recomputed"),
    ("is no number", "is not finite"),
    ("are no numbers", "are not finite"),
    ("is none of", "is not one of"),
    ("is not to be had", "is unsupported"),
    ("as it is told", "as configured"),
    ("unless told otherwise", "by default"),
    ("where it is not given", "by default"),
    ("what is left to learn", "the gap to the exact denoiser"),
    ("nothing left to learn", "the exact denoiser"),
    ("who knows the law", "the exact denoiser"),
    ("known to ±", "95 % interval ±"),
    ("is refused in a sentence", "returns an error"),
    ("changes the speed and no", "affects speed only"),
    ("pays for no step", "is less than one training step needs"),
    ("of who knows", "the exact"),
    ("learnt", "learned"),
    ("by heart", "memorized"),
    ("so many times", "N times"),
    ("for want of", "without"),
    ("has to be believed", "matters"),
    ("hears of", "sees"),
    ("whoever", "a user who"),
];

/// Names that the dictionary takes for mistakes, and words that tests and samples misspell.
const KNOWN: &[&str] = &[
    "ratatui", "arange", "flate", "gramar", "lenght", "modle", "nnot", "titel", "weigth", "whem",
    "whis", "widht",
];

/// Folders whose text is checked, and files besides.
const PLACES: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs",
    "crates",
    "bench",
    "tests",
    "xtask",
    "examples",
];

/// Checks the text of every page and source file.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for place in PLACES {
        walk(Path::new(place), &mut faults)?;
    }
    ensure!(
        faults.is_empty(),
        "{} words to correct:\n{}",
        faults.len(),
        faults.join("\n")
    );
    Ok(())
}

fn walk(path: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let read = || format!("cannot read {}", path.display());
    if path.is_dir() {
        // Golden numbers, vocabularies and packages are not prose.
        let others = ["golden", "target", "grammars", "node_modules"];
        if others.iter().any(|other| path.ends_with(other)) {
            return Ok(());
        }
        for entry in fs::read_dir(path).with_context(read)? {
            walk(&entry.with_context(read)?.path(), faults)?;
        }
        return Ok(());
    }
    let written = path
        .extension()
        .is_some_and(|kind| kind == "md" || kind == "rs" || kind == "toml");
    if written && !path.ends_with("words.rs") {
        let text = fs::read_to_string(path).with_context(read)?;
        faults.extend(faults_of(&text, &path.display().to_string()));
    }
    Ok(())
}

fn faults_of(text: &str, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        let lower = line.to_lowercase();
        for (phrase, better) in PHRASES {
            if lower.contains(phrase) {
                found.push(format!("{place}: \"{phrase}\", better \"{better}\""));
            }
        }
        // Links and data have words of their own.
        if line.contains("://") || line.contains("0x") {
            continue;
        }
        for word in words(line) {
            let known = KNOWN.contains(&word.to_lowercase().as_str());
            if let Some(better) = typos_dict::WORD
                .find(&UniCase::new(word))
                .filter(|_| !known)
            {
                found.push(format!(
                    "{place}: \"{word}\", perhaps {}",
                    better.join(" or ")
                ));
            }
        }
    }
    found
}

/// The words of a line: letters only, cut where a name changes to upper case.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let runs = line.split(|c: char| !c.is_ascii_alphabetic());
    let parts = runs.flat_map(|run| {
        let bytes = run.as_bytes();
        let cut = |i: &usize| bytes[*i].is_ascii_uppercase() && bytes[i - 1].is_ascii_lowercase();
        let mut ends: Vec<usize> = (1..bytes.len()).filter(cut).collect();
        ends.push(run.len());
        let mut start = 0;
        ends.into_iter()
            .map(|end| {
                let part = &run[start..end];
                start = end;
                part
            })
            .collect::<Vec<_>>()
    });
    parts.filter(|word| word.len() > 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_and_misspelled_words_are_found_with_their_line() {
        let text = "A run that is gone on with.\nlet recieveAll = 1;\nA plain sentence.\n";
        let found = faults_of(text, "a.rs");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("a.rs:1: \"gone on with\""),
            "{found:?}"
        );
        assert!(found[1].starts_with("a.rs:2: \"recieve\""), "{found:?}");
    }
}
