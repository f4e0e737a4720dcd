//! Links between pages: every target and every anchor exists, and every page is in the summary.

use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The pages below a folder, in order.
pub(super) fn pages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || format!("cannot list {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Checks the links of the book and of pages besides.
pub(super) fn check(book: &Path, besides: &[&str]) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    let inside = pages(book)?;
    let summary = fs::read_to_string(book.join("SUMMARY.md")).context("cannot read SUMMARY.md")?;
    for page in &inside {
        let name = page.strip_prefix(book)?.display().to_string();
        if name != "SUMMARY.md" && !summary.contains(&format!("]({name})")) {
            faults.push(format!("{} is not in SUMMARY.md", page.display()));
        }
    }
    let others = besides.iter().map(PathBuf::from);
    for page in inside.into_iter().chain(others) {
        let text = read(&page)?;
        for target in targets(&text) {
            let in_book = page.starts_with(book).then_some(book);
            if let Some(fault) = fault(&page, &target, in_book)? {
                faults.push(format!("{}: {fault}", page.display()));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Why a target does not exist, if it does not.
fn fault(page: &Path, target: &str, book: Option<&Path>) -> anyhow::Result<Option<String>> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = page.parent().unwrap_or(Path::new("."));
    let path = match file {
        "" => page.to_path_buf(),
        _ => folder.join(file),
    };
    if !path.exists() {
        return Ok(Some(format!("{target} does not exist")));
    }
    if let Some(book) = book
        && !path.canonicalize()?.starts_with(book.canonicalize()?)
    {
        return Ok(Some(format!("{target} lies outside the book")));
    }
    if anchor.is_empty() {
        return Ok(None);
    }
    let there = headings(&read(&path)?).any(|heading| heading == anchor);
    Ok((!there).then(|| format!("{target} has no such heading")))
}

/// Targets of links and pictures that are no addresses, outside code.
fn targets(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if !target.contains("://") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Anchors of headings, as GitHub and mdBook name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_page_and_a_missing_heading_are_found() {
        let home = tempfile::tempdir().unwrap();
        let page = home.path().join("a.md");
        fs::write(
            &page,
            "# A b: c\n[x](a.md#a-b-c) [y](b.md)\n```\n[z](c.md)\n```\n",
        )
        .unwrap();
        assert_eq!(targets(&read(&page).unwrap()), ["a.md#a-b-c", "b.md"]);
        let found = |target| fault(&page, target, None).unwrap();
        assert_eq!(found("a.md#a-b-c"), None);
        assert_eq!(found("#a-b-c"), None);
        assert_eq!(found("b.md").unwrap(), "b.md does not exist");
        assert!(found("a.md#b").unwrap().contains("no such heading"));
    }
}
