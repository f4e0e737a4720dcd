//! Downloads the files of a manifest. Each file is complete or absent.

mod client;
mod download;
mod error;
mod listing;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::FetchError;

use crate::dataset::{TOKENIZER_FILE, TRAIN, VALIDATION};
use crate::manifest::{HUB, candidates};
use crate::{DataFiles, Manifest, SourceFile, Wanted};
use client::{Client, Poll};
use download::Item;
use listing::Listings;

/// Options of [`fetch`].
#[derive(Clone)]
pub struct FetchOptions {
    /// The folder that contains one folder per data set.
    pub cache: PathBuf,
    /// The host of the Hub, or of a mirror, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The user's access token for the Hub. Only gated data sets need it, and it is never sent to
    /// other hosts.
    pub token: Option<String>,
    /// The largest number of consecutive retries without progress. Received data resets the count.
    pub retries: u32,
    /// The pause before the first retry. It doubles each time, up to 30 seconds.
    pub backoff: Duration,
    /// The timeout for a host that sends no data.
    pub timeout: Duration,
}

impl FetchOptions {
    /// Creates options for the public Hub, without a token, with four retries.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: HUB.to_owned(),
            token: None,
            retries: 4,
            backoff: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
        }
    }

    /// Like [`new`](Self::new), with the settings of the Hub's own tools: `HF_ENDPOINT`,
    /// `HF_TOKEN`, and the token file in `HF_HOME`.
    pub fn from_env(cache: impl Into<PathBuf>) -> Self {
        let mut options = Self::new(cache);
        if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
            options.endpoint = endpoint.trim_end_matches('/').to_owned();
        }
        // The Hub's client panics without a home folder.
        let has_home = std::env::var_os("HF_HOME").is_some() || std::env::home_dir().is_some();
        options.token = std::env::var("HF_TOKEN")
            .ok()
            .filter(|token| !token.trim().is_empty())
            .or_else(|| has_home.then(|| hf_hub::Cache::from_env().token())?);
        options
    }
}

impl fmt::Debug for FetchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchOptions")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// The progress of [`fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The path below the folder of the data set: `train/0000.parquet`.
    pub file: &'a str,
    /// The index of the file, from 0.
    pub index: usize,
    /// The number of files.
    pub files: usize,
    /// Bytes of this file received so far.
    pub bytes: u64,
    /// The file size in bytes, if the host or the manifest provides it.
    pub size: Option<u64>,
}

/// Downloads the files of a data set to `<cache>/<name>/train`, `…/validation` and
/// `…/tokenizer.json`, and returns their paths.
///
/// Present files are not downloaded again, and a complete data set needs no network. A file gets
/// its final name after its size and, if the manifest or the Hub provides one, its SHA-256 are
/// checked. Until then it is a hidden file in the same folder, from which the next call resumes.
/// Transient failures are retried.
///
/// `progress` is called for every block and during every pause, and can stop the download.
///
/// # Errors
/// Returns [`FetchError::Offline`], which lists the files to provide manually and their target
/// paths. See [`FetchError`] for other errors.
pub fn fetch(
    manifest: &Manifest,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&FetchProgress<'_>) -> ControlFlow<()>,
) -> Result<DataFiles, FetchError> {
    let root = options.cache.join(&manifest.name);
    fs::create_dir_all(&root).map_err(FetchError::io("create", &root))?;
    let _lock = lock(&root)?;
    let client = Client::new(options);
    let mut wanted = Sources::of(manifest, &root);
    if let Err(error) = wanted.resolve(&client, &root, progress) {
        return Err(wanted.offline(manifest, &client, error));
    }

    let items: Vec<&Item> = wanted.items().collect();
    for (index, item) in items.iter().enumerate() {
        let file = item.target.strip_prefix(&root).unwrap_or(&item.target);
        let file = file.to_string_lossy();
        let mut poll = polling(progress, &file, index, items.len());
        if !item.is_present()? {
            download::download(&client, item, &mut poll)
                .map_err(|error| wanted.offline(manifest, &client, error))?;
        }
    }
    Ok(wanted.files())
}

/// Converts the progress of a download into the caller's. During a pause, it repeats the last
/// report.
fn polling<'a>(
    progress: &'a mut dyn FnMut(&FetchProgress<'_>) -> ControlFlow<()>,
    file: &'a str,
    index: usize,
    files: usize,
) -> impl FnMut(Option<(u64, Option<u64>)>) -> Result<(), FetchError> + 'a {
    let mut last = (0, None);
    move |news| {
        last = news.unwrap_or(last);
        let (bytes, size) = last;
        let told = FetchProgress {
            file,
            index,
            files,
            bytes,
            size,
        };
        match progress(&told) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FetchError::Cancelled),
        }
    }
}

/// Locks the folder, because two programs that write to one file would corrupt it.
fn lock(root: &Path) -> Result<File, FetchError> {
    let path = root.join(".lock");
    let file = File::create(&path).map_err(FetchError::io("create", &path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy {
            folder: root.to_path_buf(),
        }),
        // Some file systems do not support locks. Users must then avoid simultaneous downloads.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The files that a manifest requires.
struct Sources<'a>(Vec<Place<'a>>);

struct Place<'a> {
    source: &'a SourceFile,
    split: &'static str,
    folder: PathBuf,
    /// The files of the source; empty if they could not be listed.
    items: Vec<Item>,
}

impl<'a> Sources<'a> {
    fn of(manifest: &'a Manifest, root: &Path) -> Self {
        let splits = manifest.splits().into_iter();
        let splits = splits.flat_map(|(split, sources)| sources.iter().map(move |s| (split, s)));
        let tokenizer = manifest.tokenizer.file().map(|source| ("", source));
        let places = splits.chain(tokenizer).map(|(split, source)| Place {
            source,
            split,
            folder: root.join(split),
            items: Vec::new(),
        });
        Self(places.collect())
    }

    /// Determines the files of all sources.
    fn resolve(
        &mut self,
        client: &Client<'_>,
        root: &Path,
        progress: &mut dyn FnMut(&FetchProgress<'_>) -> ControlFlow<()>,
    ) -> Result<(), FetchError> {
        let mut listings = Listings::open(root);
        let files = self.0.len();
        for (index, place) in self.0.iter_mut().enumerate() {
            let mut poll = polling(progress, place.source.file_name(), index, files);
            place.items = place.resolve(client, &mut listings, &mut poll)?;
        }
        Ok(())
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.0.iter().flat_map(|place| &place.items)
    }

    fn files(&self) -> DataFiles {
        let of = |split: &str| {
            let places = self.0.iter().filter(|place| place.split == split);
            let items = places.flat_map(|place| &place.items);
            items.map(|item| item.target.clone()).collect::<Vec<_>>()
        };
        DataFiles {
            train: of(TRAIN),
            validation: of(VALIDATION),
            tokenizer: of("").pop(),
        }
    }

    /// Adds the list of missing files to a network error.
    fn offline(&self, manifest: &Manifest, client: &Client<'_>, error: FetchError) -> FetchError {
        let FetchError::Unreachable { url, reason } = error else {
            return error;
        };
        let files = self.0.iter().flat_map(|place| place.missing(client));
        FetchError::Offline {
            name: manifest.name.clone(),
            url,
            reason,
            files: files.collect(),
        }
    }
}

impl Place<'_> {
    fn target(&self, name: &str) -> PathBuf {
        let is_tokenizer = self.split.is_empty();
        self.folder
            .join(if is_tokenizer { TOKENIZER_FILE } else { name })
    }

    fn resolve(
        &self,
        client: &Client<'_>,
        listings: &mut Listings,
        poll: Poll<'_>,
    ) -> Result<Vec<Item>, FetchError> {
        match listings.entries(client, self.source, |name| self.target(name), poll) {
            Err(FetchError::Unreachable { .. }) if !self.source.is_pattern() => {
                // The address is known without the Hub, and the file may have been added manually.
                let name = self.source.file_name();
                Ok(vec![Item::of(self.source, client, self.target(name))])
            }
            Err(error @ FetchError::Unreachable { .. }) => self.by_hand().ok_or(error),
            items => items,
        }
    }

    /// Returns the missing files. For a pattern that could not be listed, returns the pattern.
    fn missing(&self, client: &Client<'_>) -> Vec<Wanted> {
        let is_missing = |item: &&Item| !item.is_present().unwrap_or(false);
        let wanted = |item: &Item| Wanted {
            from: item.url.clone(),
            to: item.target.clone(),
        };
        if !self.items.is_empty() {
            return self.items.iter().filter(is_missing).map(wanted).collect();
        }
        if self.source.is_pattern() {
            let pattern = self.source.wanted(&client.options.endpoint, &self.folder);
            return match self.by_hand() {
                Some(_) => Vec::new(),
                None => vec![pattern],
            };
        }
        let item = Item::of(self.source, client, self.target(self.source.file_name()));
        Some(&item)
            .filter(is_missing)
            .map(wanted)
            .into_iter()
            .collect()
    }

    /// Returns the files of a pattern that were added manually, if they are complete.
    fn by_hand(&self) -> Option<Vec<Item>> {
        let root = self.folder.parent()?;
        let found = candidates(root, self.split, self.source).ok()?;
        let complete = self.source.is_complete(found.len());
        complete.then(|| found.into_iter().map(Item::brought).collect())
    }
}
