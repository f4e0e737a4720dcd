//! The sources of a data set: one file, or the files that match a pattern.

use glob::{MatchOptions, Pattern};

/// The kind of a Hub repository; it determines the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A data set.
    Dataset,
    /// A model, of which only the tokenizer is used.
    Model,
}

/// The location of a published file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A web address.
    Url(String),
    /// A repository of the Hugging Face Hub.
    Hub {
        /// The kind of the repository.
        kind: RepoKind,
        /// Owner and name.
        repo: String,
        /// A commit, a branch, or `refs/convert/parquet` for the Hub's own parquet conversion.
        revision: String,
        /// The path in the repository, or a pattern with `*` and `?`, which do not match `/`.
        path: String,
    },
}

/// A source, with its size and checksum if they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The location of the file.
    pub source: Source,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: Option<String>,
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// The number of files that match the pattern.
    pub files: Option<usize>,
}

/// The default host of the Hub; `HF_ENDPOINT` overrides it.
pub(crate) const HUB: &str = "https://huggingface.co";

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl SourceFile {
    /// Whether this number of files is complete. If no number is known, at least one is required.
    pub(crate) fn is_complete(&self, found: usize) -> bool {
        self.files.map_or(found > 0, |files| found == files)
    }

    /// Whether the path is a pattern.
    pub fn is_pattern(&self) -> bool {
        matches!(&self.source, Source::Hub { path, .. } if path.contains(['*', '?', '[']))
    }

    /// Returns the file name, or the pattern of names, below the folder of the split: the text
    /// after the last `/` before any wildcard.
    pub fn file_name(&self) -> &str {
        let path = match &self.source {
            Source::Hub { path, .. } => path,
            Source::Url(url) => url.split(['?', '#']).next().unwrap_or(url),
        };
        let literal = match &self.source {
            Source::Hub { .. } => path.find(['*', '?', '[']).unwrap_or(path.len()),
            Source::Url(_) => path.len(),
        };
        &path[path[..literal].rfind('/').map_or(0, |slash| slash + 1)..]
    }

    /// Returns the web address of the file, or of the folder that contains the files of a pattern.
    pub fn address(&self) -> String {
        self.address_on(HUB)
    }

    pub(crate) fn address_on(&self, endpoint: &str) -> String {
        match &self.source {
            Source::Url(url) => url.clone(),
            Source::Hub {
                kind,
                repo,
                revision,
                path,
            } => {
                let revision = revision.replace('/', "%2F");
                let kind = match kind {
                    RepoKind::Dataset => "datasets/",
                    RepoKind::Model => "",
                };
                if self.is_pattern() {
                    let folder = path.strip_suffix(self.file_name()).unwrap_or_default();
                    let folder = folder.trim_end_matches('/');
                    return format!("{endpoint}/{kind}{repo}/tree/{revision}/{folder}");
                }
                format!("{endpoint}/{kind}{repo}/resolve/{revision}/{path}")
            }
        }
    }

    /// Returns the repository paths that this source matches, sorted.
    #[cfg_attr(not(feature = "fetch"), allow(dead_code, reason = "for fetching"))]
    pub(crate) fn select<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let Source::Hub { path, .. } = &self.source else {
            return Vec::new();
        };
        let mut found: Vec<&str> = paths
            .into_iter()
            .filter(|candidate| matches(path, candidate))
            .collect();
        found.sort_unstable();
        found
    }

    /// Returns the name of a repository path below the folder of the split.
    #[cfg_attr(not(feature = "fetch"), allow(dead_code, reason = "for fetching"))]
    pub(crate) fn name_of<'a>(&self, path: &'a str) -> &'a str {
        match &self.source {
            Source::Hub { path: pattern, .. } => {
                &path[pattern.len().saturating_sub(self.file_name().len())..]
            }
            Source::Url(_) => path,
        }
    }
}

/// Whether a path matches the pattern. An invalid pattern matches nothing; manifests are checked.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, MATCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(path: &str) -> SourceFile {
        SourceFile {
            source: Source::Hub {
                kind: RepoKind::Dataset,
                repo: "me/letters".to_owned(),
                revision: "refs/convert/parquet".to_owned(),
                path: path.to_owned(),
            },
            sha256: None,
            bytes: None,
            files: None,
        }
    }

    #[test]
    fn names_begin_after_the_last_folder_without_a_wildcard() {
        let one = hub("default/train/0000.parquet");
        let some = hub("default/train/*.parquet");
        let deep = hub("default/*/0000.parquet");
        assert_eq!(one.file_name(), "0000.parquet");
        assert_eq!(some.file_name(), "*.parquet");
        assert_eq!(deep.file_name(), "*/0000.parquet");
        assert_eq!(
            deep.name_of("default/test/0000.parquet"),
            "test/0000.parquet"
        );
        assert_eq!(hub("*.txt").name_of("a.txt"), "a.txt");
        let url = SourceFile {
            source: Source::Url("https://example.org/a/b.txt?download=1".to_owned()),
            ..one
        };
        assert_eq!(url.file_name(), "b.txt");
    }

    #[test]
    fn a_wildcard_stays_within_a_folder() {
        let paths = ["a/2.txt", "a/1.txt", "a/b/3.txt", "a/1.json", "1.txt"];
        assert_eq!(hub("a/*.txt").select(paths), ["a/1.txt", "a/2.txt"]);
        assert_eq!(hub("a/b/3.txt").select(paths), ["a/b/3.txt"]);
        assert!(hub("*.md").select(paths).is_empty());
    }

    #[test]
    fn addresses_are_for_people() {
        assert_eq!(
            hub("default/train/*.parquet").address(),
            "https://huggingface.co/datasets/me/letters/tree/refs%2Fconvert%2Fparquet/default/train"
        );
        assert_eq!(
            hub("a.txt").address(),
            "https://huggingface.co/datasets/me/letters/resolve/refs%2Fconvert%2Fparquet/a.txt"
        );
    }
}
