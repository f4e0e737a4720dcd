//! Downloads one file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::Response;

use super::FetchError;
use super::client::{Client, Failure, Poll, answer};
use super::listing::file_url;
use crate::manifest::{HUB, hex, sha256};
use crate::{Source, SourceFile};

/// Bytes read at a time.
const BLOCK: usize = 1 << 17;

/// A required file.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) url: String,
    /// The address on the default host, without mirrors, for the record.
    pub(super) origin: String,
    /// Whether the host may receive the Hub's token.
    pub(super) for_hub: bool,
    pub(super) target: PathBuf,
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// The stored record of a file: its origin, and the validator that identifies its version on the
/// host.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    url: String,
    validator: Option<String>,
    size: Option<u64>,
}

impl Item {
    /// Creates the item for a source that is not a pattern.
    pub(super) fn of(source: &SourceFile, client: &Client<'_>, target: PathBuf) -> Self {
        let address = |endpoint: &str| match &source.source {
            Source::Url(url) => url.clone(),
            Source::Hub {
                kind,
                repo,
                revision,
                path,
            } => file_url(endpoint, *kind, repo, revision, path),
        };
        Self {
            url: address(&client.options.endpoint),
            origin: address(HUB),
            for_hub: matches!(source.source, Source::Hub { .. }),
            target,
            bytes: source.bytes,
            sha256: source.sha256.clone(),
        }
    }

    /// Creates the item for a present file of unknown origin.
    pub(super) fn brought(target: PathBuf) -> Self {
        Self {
            url: String::new(),
            origin: String::new(),
            for_hub: false,
            target,
            bytes: None,
            sha256: None,
        }
    }

    /// Whether the file is present. A downloaded file is identified by its record. A manually added
    /// file is checked once.
    pub(super) fn is_present(&self) -> Result<bool, FetchError> {
        let Ok(found) = fs::metadata(&self.target) else {
            return Ok(false);
        };
        if !found.is_file() || self.bytes.is_some_and(|bytes| bytes != found.len()) {
            return Ok(false);
        }
        if let Some(record) = read_record(&self.beside(".json")) {
            return Ok(record.url == self.origin || self.origin.is_empty());
        }
        if let Some(expected) = &self.sha256 {
            let hash = sha256(&self.target).map_err(FetchError::io("read", &self.target))?;
            if hash != *expected {
                return Ok(false);
            }
            self.write_record(
                &self.beside(".json"),
                &Record {
                    url: self.origin.clone(),
                    validator: None,
                    size: Some(found.len()),
                },
            )?;
        }
        Ok(true)
    }

    /// Returns the path of a hidden file next to the target. Corpora ignore hidden files.
    fn beside(&self, ending: &str) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default();
        self.target
            .with_file_name(format!(".{}{ending}", name.to_string_lossy()))
    }

    fn write_record(&self, path: &Path, record: &Record) -> Result<(), FetchError> {
        let json = serde_json::to_vec(record).unwrap_or_default();
        fs::write(path, json).map_err(FetchError::io("write", path))
    }
}

/// Reads a record. An unreadable record counts as missing, so the file is downloaded from the
/// start.
fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Downloads a file, starting where an earlier call stopped.
pub(super) fn download(client: &Client<'_>, item: &Item, poll: Poll<'_>) -> Result<(), FetchError> {
    let mut part = Part::open(item)?;
    client.patiently(poll, |poll| {
        let resumed = part.length > 0;
        part.receive(client, poll)?;
        match part.check() {
            Ok(()) => Ok(part.finish()?),
            Err(error) => {
                part.clear()?;
                // The two parts come from different versions. A file received in one piece would
                // not change on a retry.
                if resumed {
                    return Err(Failure::Again {
                        error,
                        wait: None,
                        moved: false,
                    });
                }
                part.remove();
                Err(Failure::Stop(error))
            }
        }
    })
}

/// A partial download.
struct Part<'a> {
    item: &'a Item,
    path: PathBuf,
    file: File,
    record: Record,
    length: u64,
    /// The largest length so far. Only bytes beyond it count as progress.
    longest: u64,
    hash: Sha256,
}

impl<'a> Part<'a> {
    fn open(item: &'a Item) -> Result<Self, FetchError> {
        if let Some(folder) = item.target.parent() {
            fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
        }
        let path = item.beside(".part");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FetchError::io("create", &path))?;
        let length = file
            .metadata()
            .map_err(FetchError::io("read", &path))?
            .len();
        let record = read_record(&item.beside(".part.json")).unwrap_or_default();
        let mut part = Self {
            item,
            path,
            file,
            record,
            length,
            longest: length,
            hash: Sha256::new(),
        };
        // Without a validator or a checksum, a rest from another version would go unnoticed.
        let is_known = part.record.validator.is_some() || item.sha256.is_some();
        let fits = item.bytes.is_none_or(|bytes| length <= bytes);
        if part.record.url == item.origin && is_known && fits {
            part.hash_what_is_there()?;
        } else {
            part.clear()?;
        }
        Ok(part)
    }

    fn hash_what_is_there(&mut self) -> Result<(), FetchError> {
        if self.item.sha256.is_some() {
            let mut block = vec![0; BLOCK];
            loop {
                let read = self.file.read(&mut block);
                match read.map_err(FetchError::io("read", &self.path))? {
                    0 => break,
                    read => self.hash.update(&block[..read]),
                }
            }
        }
        let end = self.file.seek(SeekFrom::End(0));
        end.map_err(FetchError::io("read", &self.path))?;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), FetchError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(FetchError::io("write", &self.path))?;
        self.length = 0;
        self.hash = Sha256::new();
        self.record = Record::default();
        Ok(())
    }

    /// Removes the partial file and its record, and ignores failures.
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.item.beside(".part.json"));
    }

    /// Requests and receives the missing part.
    fn receive(&mut self, client: &Client<'_>, poll: Poll<'_>) -> Result<(), Failure> {
        if self.item.bytes == Some(self.length) && self.length > 0 {
            return Ok(());
        }
        let mut request = client.get(&self.item.url, self.item.for_hub);
        if self.length > 0 {
            request = request.set("Range", &format!("bytes={}-", self.length));
            if let Some(validator) = &self.record.validator {
                request = request.set("If-Range", validator);
            }
        }
        let response = match request.call() {
            Err(ureq::Error::Status(416, response)) if self.length > 0 => {
                return self.beyond_the_end(&response);
            }
            result => answer(&self.item.url, result)?,
        };
        let size = self.begin(&response)?;
        let expected = self.item.bytes;
        if let (Some(expected), Some(found)) = (expected, size)
            && expected != found
        {
            self.remove();
            return Err(Failure::Stop(self.wrong_size(expected, found)));
        }
        self.read(response, size.or(expected), poll)
    }

    /// Checks whether a response continues or restarts the part, from its status and headers.
    /// Returns the size of the whole file, if known.
    fn begin(&mut self, response: &Response) -> Result<Option<u64>, Failure> {
        let validator = validator(response);
        match response.status() {
            206 => {
                let range = response.header("Content-Range").and_then(content_range);
                let goes_on = range.is_some_and(|(first, _)| first == self.length);
                let size = range.and_then(|(_, size)| size);
                let as_long =
                    self.record.size.is_none() || size.is_none() || self.record.size == size;
                let same = match (&self.record.validator, &validator) {
                    (Some(before), Some(now)) => before == now,
                    _ => true,
                };
                if goes_on && as_long && same {
                    return Ok(size);
                }
                self.clear()?;
                Err(self.again("the file has changed since the download started"))
            }
            200 => {
                // The host does not support ranges, or the file has changed.
                self.clear()?;
                let size = response.header("Content-Length");
                let size = size.and_then(|size| size.parse().ok());
                self.record = Record {
                    url: self.item.origin.clone(),
                    validator,
                    size,
                };
                let path = self.item.beside(".part.json");
                self.item.write_record(&path, &self.record)?;
                Ok(size)
            }
            status => Err(Failure::Stop(FetchError::Refused {
                url: self.item.url.clone(),
                status,
            })),
        }
    }

    /// Handles a range beyond the end of the file: either the part is complete, or the file has
    /// changed.
    fn beyond_the_end(&mut self, response: &Response) -> Result<(), Failure> {
        let size = response
            .header("Content-Range")
            .and_then(|range| range.strip_prefix("bytes */"));
        if size.and_then(|size| size.parse().ok()) == Some(self.length) {
            return Ok(());
        }
        self.clear()?;
        Err(self.again("the file is now shorter than the part received"))
    }

    fn read(
        &mut self,
        response: Response,
        size: Option<u64>,
        poll: Poll<'_>,
    ) -> Result<(), Failure> {
        let before = self.longest;
        let mut reader = response.into_reader();
        let mut block = vec![0; BLOCK];
        loop {
            poll(Some((self.length, size)))?;
            let read = match reader.read(&mut block) {
                Ok(0) if size.is_some_and(|size| self.length < size) => {
                    return Err(self.broke_off(before, "the response ended early"));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(self.broke_off(before, &error.to_string())),
            };
            let block = &block[..read];
            self.file
                .write_all(block)
                .map_err(FetchError::io("write", &self.path))?;
            if self.item.sha256.is_some() {
                self.hash.update(block);
            }
            self.length += read as u64;
            self.longest = self.longest.max(self.length);
            if let Some(size) = size.filter(|&size| size < self.length) {
                self.remove();
                return Err(Failure::Stop(self.wrong_size(size, self.length)));
            }
        }
    }

    fn broke_off(&mut self, before: u64, reason: &str) -> Failure {
        let error = FetchError::Unreachable {
            url: self.item.url.clone(),
            reason: reason.to_owned(),
        };
        // The same condition as for the part of an earlier call.
        let can_go_on = self.record.validator.is_some() || self.item.sha256.is_some();
        if !can_go_on && let Err(error) = self.clear() {
            return Failure::Stop(error);
        }
        Failure::Again {
            error,
            wait: None,
            moved: can_go_on && self.longest > before,
        }
    }

    fn again(&self, reason: &str) -> Failure {
        Failure::Again {
            error: FetchError::Unreachable {
                url: self.item.url.clone(),
                reason: reason.to_owned(),
            },
            wait: None,
            moved: false,
        }
    }

    fn wrong_size(&self, expected: u64, found: u64) -> FetchError {
        FetchError::WrongSize {
            url: self.item.url.clone(),
            expected,
            found,
        }
    }

    /// Checks the size and the checksum of the received file.
    fn check(&self) -> Result<(), FetchError> {
        if let Some(expected) = self.item.bytes.filter(|&bytes| bytes != self.length) {
            return Err(self.wrong_size(expected, self.length));
        }
        let found = hex(&self.hash.clone().finalize());
        match &self.item.sha256 {
            Some(expected) if *expected != found => Err(FetchError::Checksum {
                url: self.item.url.clone(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Renames the file to its final name. The record is written afterwards, because it certifies
    /// the file.
    fn finish(&self) -> Result<(), FetchError> {
        let target = &self.item.target;
        self.file
            .sync_all()
            .map_err(FetchError::io("write", &self.path))?;
        let record = self.item.beside(".json");
        let _ = fs::remove_file(&record);
        fs::rename(&self.path, target).map_err(FetchError::io("create", target))?;
        self.item.write_record(
            &record,
            &Record {
                url: self.item.origin.clone(),
                validator: self.record.validator.clone(),
                size: Some(self.length),
            },
        )?;
        let _ = fs::remove_file(self.item.beside(".part.json"));
        Ok(())
    }
}

/// Returns the validator of the file version on the host: a strong `ETag`, otherwise
/// `Last-Modified`.
fn validator(response: &Response) -> Option<String> {
    let tag = response.header("ETag").filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| response.header("Last-Modified"))
        .map(str::to_owned)
}

/// Parses the first byte and the total size from `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_hosts_write_them() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("lines 5-9/10"), None);
        assert_eq!(content_range("bytes */10"), None);
    }
}
