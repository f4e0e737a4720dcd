//! Checks a parsed manifest and converts it into a [`Manifest`].

use std::path::{Component, Path};

use super::raw::{RawManifest, RawSource, RawTokenizer, RawUnit};
use super::{
    MANIFEST_VERSION, Manifest, ManifestError, ManifestTokenizer, RepoKind, Source, SourceFile,
    SplitRule,
};
use crate::prepare::choice::is_share;
use crate::{Layout, MINIMUM_BPE_VOCABULARY, TextUnit};

/// Parses the split rule; returns `None` if it is invalid.
fn split_rule(written: &toml::Value) -> Option<SplitRule> {
    if written.as_str() == Some("files") {
        return Some(SplitRule::Files);
    }
    let mut entries = written.as_table()?.iter();
    let rule = match entries.next()? {
        (key, toml::Value::Integer(count)) if key == "last" => {
            SplitRule::Last(u64::try_from(*count).ok()?)
        }
        (key, toml::Value::Integer(share)) if key == "share" => SplitRule::Share(*share as f64),
        (key, toml::Value::Float(share)) if key == "share" => SplitRule::Share(*share),
        _ => return None,
    };
    entries.next().is_none().then_some(rule)
}

/// Checks one manifest. Errors use `manifest` as its name.
pub(super) struct Checker<'a> {
    pub(super) manifest: &'a str,
}

impl Checker<'_> {
    pub(super) fn check(&self, raw: RawManifest, name: &str) -> Result<Manifest, ManifestError> {
        self.must(raw.format == MANIFEST_VERSION, "format", raw.format, || {
            format!("{MANIFEST_VERSION}, the version that this program reads")
        })?;
        // The name becomes a folder name.
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let named = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        self.must(named, "the name", quoted(name), || {
            "letters, digits, `-`, `_` and `.`, as it names a folder".to_owned()
        })?;
        for (key, text) in [
            ("title", &raw.title),
            ("license", &raw.license),
            ("column", &raw.column),
        ] {
            let filled = !text.trim().is_empty();
            self.must(filled, key, quoted(text), || "some text".to_owned())?;
        }
        self.must(is_address(&raw.page), "page", quoted(&raw.page), || {
            "an address that begins with https://".to_owned()
        })?;
        let minimum = raw.layout.minimum_length();
        self.must(raw.length >= minimum, "length", raw.length, || {
            format!("at least {minimum} for the layout `{}`", raw.layout.name())
        })?;
        let unit = match raw.unit {
            RawUnit::Lines => TextUnit::Lines,
            RawUnit::Whole => TextUnit::Whole,
            RawUnit::Glosses => TextUnit::Glosses,
        };
        if unit == TextUnit::Whole && raw.layout == Layout::Rows {
            return Err(self.inconsistent(
                "layout",
                "a text read as a whole has no separate rows, expected \"packed\"",
            ));
        }
        let split = self.split(&raw, unit)?;
        let train = self.sources("train", raw.train, RepoKind::Dataset)?;
        let validation = self.sources("validation", raw.validation, RepoKind::Dataset)?;
        Ok(Manifest {
            name: name.to_owned(),
            tokenizer: self.tokenizer(raw.tokenizer)?,
            title: raw.title,
            license: raw.license,
            page: raw.page,
            train,
            validation,
            split,
            column: raw.column,
            unit,
            detokenizer: raw.detokenizer,
            length: raw.length,
            layout: raw.layout,
        })
    }

    fn split(&self, raw: &RawManifest, unit: TextUnit) -> Result<SplitRule, ManifestError> {
        let split = split_rule(&raw.split).ok_or_else(|| {
            let expected = "\"files\", { last = N } or { share = S }".to_owned();
            self.bad("split", raw.split.to_string(), expected)
        })?;
        if raw.train.is_empty() {
            return Err(self.inconsistent("train", "at least one training file is required"));
        }
        match (split, raw.validation.is_empty()) {
            (SplitRule::Files, true) => {
                return Err(self.inconsistent(
                    "validation",
                    "split = \"files\" needs at least one file for validation",
                ));
            }
            (SplitRule::Last(_) | SplitRule::Share(_), false) => {
                return Err(self.inconsistent(
                    "validation",
                    "files for validation require split = \"files\"",
                ));
            }
            _ => {}
        }
        match split {
            SplitRule::Files => Ok(()),
            SplitRule::Last(_) if unit == TextUnit::Whole => Err(self.inconsistent(
                "split",
                "a text read as a whole has no last documents, expected a share or files",
            )),
            SplitRule::Last(count) => self.must(count > 0, "split.last", count, || {
                "at least one document".to_owned()
            }),
            SplitRule::Share(share) => {
                let is_share = share > 0.0 && is_share(share);
                self.must(is_share, "split.share", share, || {
                    "a number above 0 and below 1, with at most six decimals".to_owned()
                })
            }
        }?;
        Ok(split)
    }

    fn tokenizer(&self, raw: RawTokenizer) -> Result<ManifestTokenizer, ManifestError> {
        let file = match raw.file {
            Some(file) => Some(self.source("tokenizer.file", file, RepoKind::Model)?),
            None => None,
        };
        if file.as_ref().is_some_and(SourceFile::is_pattern) {
            return Err(self.inconsistent("tokenizer.file.path", "a tokenizer is one file"));
        }
        let built = match (raw.name.as_str(), raw.name.strip_prefix("bpe:")) {
            ("words", _) => ManifestTokenizer::Words,
            ("chars", _) => ManifestTokenizer::Chars,
            (_, Some(size)) => {
                let size = size.parse().ok();
                let size = size.filter(|&size: &usize| size >= MINIMUM_BPE_VOCABULARY);
                ManifestTokenizer::Bpe(size.ok_or_else(|| {
                    self.bad(
                        "tokenizer.name",
                        quoted(&raw.name),
                        format!("bpe:N with an N of at least {MINIMUM_BPE_VOCABULARY}"),
                    )
                })?)
            }
            (name, None) => {
                let name = name.to_owned();
                return match file {
                    Some(file) if !name.is_empty() => Ok(ManifestTokenizer::Published { name, file }),
                    _ => Err(self.bad(
                        "tokenizer.name",
                        quoted(&name),
                        "words, chars, bpe:N, or the name of a published tokenizer with its source in tokenizer.file".to_owned(),
                    )),
                };
            }
        };
        if file.is_some() {
            return Err(self.inconsistent(
                "tokenizer.file",
                "a tokenizer that is made from the corpus has no file",
            ));
        }
        Ok(built)
    }

    fn sources(
        &self,
        split: &str,
        raw: Vec<RawSource>,
        kind: RepoKind,
    ) -> Result<Vec<SourceFile>, ManifestError> {
        let mut sources: Vec<SourceFile> = Vec::new();
        for (place, raw) in raw.into_iter().enumerate() {
            let key = format!("{split}[{place}]");
            let source = self.source(&key, raw, kind)?;
            if let Some(same) = sources
                .iter()
                .find(|other| other.file_name() == source.file_name())
            {
                let reason = format!(
                    "`{}` is the name of another file of the split",
                    same.file_name()
                );
                return Err(self.inconsistent(&key, &reason));
            }
            sources.push(source);
        }
        Ok(sources)
    }

    fn source(
        &self,
        key: &str,
        raw: RawSource,
        kind: RepoKind,
    ) -> Result<SourceFile, ManifestError> {
        let source = match (raw.url, raw.repo, raw.revision, raw.path) {
            (Some(url), None, None, None) => {
                let named = !url.ends_with('/') && url.matches('/').count() > 2;
                self.must(
                    is_address(&url) && named,
                    &format!("{key}.url"),
                    quoted(&url),
                    || "the address of a file, which begins with https://".to_owned(),
                )?;
                Source::Url(url)
            }
            (None, Some(repo), Some(revision), Some(path)) => {
                let parts = repo.split('/').filter(|part| !part.is_empty()).count();
                let is_repo = parts == 2 && repo.matches('/').count() == 1;
                self.must(is_repo, &format!("{key}.repo"), quoted(&repo), || {
                    "owner/name".to_owned()
                })?;
                self.must(
                    !revision.is_empty(),
                    &format!("{key}.revision"),
                    quoted(&revision),
                    || "a commit, a branch or refs/convert/parquet".to_owned(),
                )?;
                let is_path = is_inside(&path) && glob::Pattern::new(&path).is_ok();
                self.must(is_path, &format!("{key}.path"), quoted(&path), || {
                    "a path in the repository, or a pattern of paths such as train/*.parquet"
                        .to_owned()
                })?;
                Source::Hub {
                    kind,
                    repo,
                    revision,
                    path,
                }
            }
            _ => {
                return Err(self.inconsistent(
                    key,
                    "a file is given by its url, or by repo, revision and path",
                ));
            }
        };
        let is_hash = |hash: &String| {
            hash.len() == 64 && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        };
        if let Some(hash) = raw.sha256.as_ref().filter(|hash| !is_hash(hash)) {
            return Err(self.bad(
                &format!("{key}.sha256"),
                quoted(hash),
                "64 hexadecimal digits, lower case".to_owned(),
            ));
        }
        let file = SourceFile {
            source,
            sha256: raw.sha256,
            bytes: raw.bytes,
            files: raw.files,
        };
        if file.is_pattern() && (file.sha256.is_some() || file.bytes.is_some()) {
            return Err(self.inconsistent(
                key,
                "a pattern matches several files, so sha256 and bytes are not allowed",
            ));
        }
        if !file.is_pattern() && file.files.is_some() {
            return Err(self.inconsistent(
                key,
                "`files` counts the matches of a pattern, but this path is one file",
            ));
        }
        Ok(file)
    }

    fn must(
        &self,
        holds: bool,
        key: &str,
        found: impl ToString,
        expected: impl FnOnce() -> String,
    ) -> Result<(), ManifestError> {
        if holds {
            return Ok(());
        }
        Err(self.bad(key, found.to_string(), expected()))
    }

    fn bad(&self, key: &str, found: String, expected: String) -> ManifestError {
        ManifestError::BadValue {
            manifest: self.manifest.to_owned(),
            key: key.to_owned(),
            found,
            expected,
        }
    }

    fn inconsistent(&self, key: &str, reason: &str) -> ManifestError {
        ManifestError::Inconsistent {
            manifest: self.manifest.to_owned(),
            key: key.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Whether a URL is allowed. Plain `http` is allowed only for the local host.
fn is_address(url: &str) -> bool {
    let blank = url.contains(char::is_whitespace);
    let local = ["http://localhost:", "http://127.0.0.1:"];
    !blank && (url.starts_with("https://") || local.iter().any(|local| url.starts_with(local)))
}

/// Whether a path stays inside the folder that it is joined to.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}
