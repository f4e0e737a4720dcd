//! Determines the repository files of a source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::FetchError;
use super::client::{Client, Failure, Poll, answer};
use super::download::Item;
use crate::manifest::{HUB, is_inside};
use crate::{RepoKind, Source, SourceFile};

/// A file of a repository. The Hub provides the hash only for large files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: Option<u64>,
    sha256: Option<String>,
}

/// Cached responses of the Hub, so that a complete data set does not need it.
pub(super) struct Listings {
    path: PathBuf,
    known: BTreeMap<String, Vec<Entry>>,
    /// All files of the repositories requested in this run.
    repos: BTreeMap<String, Vec<Entry>>,
}

impl Listings {
    /// Loads the cache from the folder of a data set. An unreadable cache counts as empty.
    pub(super) fn open(root: &Path) -> Self {
        let path = root.join(".files.json");
        let json = fs::read(&path).unwrap_or_default();
        Self {
            known: serde_json::from_slice(&json).unwrap_or_default(),
            repos: BTreeMap::new(),
            path,
        }
    }

    /// Returns the files of a source. `target` maps a name to its path.
    pub(super) fn entries(
        &mut self,
        client: &Client<'_>,
        source: &SourceFile,
        target: impl Fn(&str) -> PathBuf,
        poll: Poll<'_>,
    ) -> Result<Vec<Item>, FetchError> {
        let Source::Hub {
            kind,
            repo,
            revision,
            path,
        } = &source.source
        else {
            return Ok(vec![Item::of(source, client, target(source.file_name()))]);
        };
        if source.sha256.is_some() {
            return Ok(vec![Item::of(source, client, target(source.file_name()))]);
        }
        let items = |entries: &[Entry]| -> Vec<Item> {
            let item = |entry: &Entry| Item {
                url: file_url(&client.options.endpoint, *kind, repo, revision, &entry.path),
                origin: file_url(HUB, *kind, repo, revision, &entry.path),
                for_hub: true,
                target: target(source.name_of(&entry.path)),
                bytes: source.bytes.or(entry.bytes),
                sha256: source.sha256.clone().or(entry.sha256.clone()),
            };
            entries.iter().map(item).collect()
        };
        let key = format!("{kind:?} {repo} {revision} {path}");
        if let Some(known) = self.known.get(&key) {
            let items = items(known);
            let is_commit = revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit());
            if is_commit || items.iter().all(|item| item.is_present().unwrap_or(false)) {
                return Ok(items);
            }
        }
        let found = match self.select(client, source, poll) {
            // Without a connection, the last known state of the branch is used.
            Err(FetchError::Unreachable { .. }) if self.known.contains_key(&key) => {
                return Ok(items(&self.known[&key]));
            }
            found => found?,
        };
        let items = items(&found);
        self.known.insert(key, found);
        let json = serde_json::to_vec_pretty(&self.known).unwrap_or_default();
        fs::write(&self.path, json).map_err(FetchError::io("write", &self.path))?;
        Ok(items)
    }

    /// Queries the Hub, and checks the response against the manifest.
    fn select(
        &mut self,
        client: &Client<'_>,
        source: &SourceFile,
        poll: Poll<'_>,
    ) -> Result<Vec<Entry>, FetchError> {
        let Source::Hub {
            kind,
            repo,
            revision,
            path,
        } = &source.source
        else {
            return Ok(Vec::new());
        };
        let key = format!("{kind:?} {repo} {revision}");
        if !self.repos.contains_key(&key) {
            let all = client.patiently(poll, |_| ask(client, *kind, repo, revision))?;
            self.repos.insert(key.clone(), all);
        }
        let all = &self.repos[&key];
        let names = source.select(all.iter().map(|entry| entry.path.as_str()));
        let expected = source.files.unwrap_or(names.len().max(1));
        if names.len() != expected {
            return Err(FetchError::WrongCount {
                address: source.address_on(&client.options.endpoint),
                pattern: path.clone(),
                expected: source
                    .files
                    .map_or_else(|| "at least one".to_owned(), |files| files.to_string()),
                found: names.len(),
            });
        }
        if let Some(name) = names.iter().find(|name| !is_inside(name)) {
            return Err(FetchError::BadListing {
                url: source.address_on(&client.options.endpoint),
                reason: format!("`{name}` is not a path in a repository"),
            });
        }
        let entry = |name: &&str| all.iter().find(|entry| entry.path == **name).cloned();
        Ok(names.iter().filter_map(entry).collect())
    }
}

/// The required fields of the Hub's response.
#[derive(Deserialize)]
struct Info {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

fn ask(
    client: &Client<'_>,
    kind: RepoKind,
    repo: &str,
    revision: &str,
) -> Result<Vec<Entry>, Failure> {
    let unreachable = || FetchError::Unreachable {
        url: client.options.endpoint.clone(),
        reason: "cannot create the Hub client".to_owned(),
    };
    let api = client.repo(kind, repo, revision).ok_or_else(unreachable)?;
    let request = api
        .info_request()
        // Includes sizes and hashes.
        .query("blobs", "true")
        .timeout(client.options.timeout.saturating_mul(4));
    let url = request.url().to_owned();
    let response = answer(&url, request.call())?;
    let info: Info = response.into_json().map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Failure::Stop(FetchError::BadListing {
            url: url.clone(),
            reason: error.to_string(),
        }),
        _ => Failure::Again {
            error: FetchError::Unreachable {
                url: url.clone(),
                reason: error.to_string(),
            },
            wait: None,
            moved: false,
        },
    })?;
    let entry = |sibling: Sibling| Entry {
        path: sibling.rfilename,
        bytes: sibling.size,
        sha256: sibling.lfs.and_then(|lfs| lfs.sha256),
    };
    Ok(info.siblings.into_iter().map(entry).collect())
}

/// Returns the address of a file, as the Hub's client forms it. That client leaves the escaping of
/// special characters to its caller.
pub(super) fn file_url(
    endpoint: &str,
    kind: RepoKind,
    repo: &str,
    revision: &str,
    path: &str,
) -> String {
    let source = SourceFile {
        source: Source::Hub {
            kind,
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            path: path
                .replace('%', "%25")
                .replace('?', "%3F")
                .replace('#', "%23")
                .replace('*', "%2A")
                .replace('[', "%5B"),
        },
        sha256: None,
        bytes: None,
        files: None,
    };
    source.address_on(endpoint)
}
