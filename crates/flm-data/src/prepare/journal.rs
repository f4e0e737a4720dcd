//! The journal, from which an interrupted preparation resumes.
//!
//! The journal is in the unfinished folder. It is replaced as a whole, after all data that it
//! records is on disk, so a valid journal exists at any time. Files may contain more than it
//! records and are truncated to match it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::RowState;

use super::{PrepareOptions, TokenizerSource, Validation};
use crate::{Corpus, DataError, TextTokenizer};

pub(super) const JOURNAL_FILE: &str = "journal.json";

/// Must be increased if the meaning of a journal changes or new code would write different rows.
const VERSION: u32 = 1;

/// A saved state of a preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    /// The hash of the inputs: [`identity`].
    pub(super) identity: String,
    /// [`TextTokenizer::hash`] of the tokenizer in the folder.
    pub(super) tokenizer_hash: String,
    /// The number of documents in the corpus, if they were counted.
    pub(super) total: Option<u64>,
    /// The text that is already in the rows.
    pub(super) read: Consumed,
    pub(super) rows: RowState,
}

/// A prefix of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Consumed {
    pub(super) pieces: u64,
    pub(super) documents: u64,
    /// Bytes of text.
    pub(super) bytes: u64,
    /// CRC-32 of the text.
    pub(super) checksum: u32,
}

impl Journal {
    /// Returns the state before any text is read.
    pub(super) fn begin(identity: String, tokenizer: &TextTokenizer, total: Option<u64>) -> Self {
        Self {
            identity,
            tokenizer_hash: tokenizer.hash().to_owned(),
            total,
            read: Consumed::default(),
            rows: RowState::default(),
        }
    }

    /// Replaces the journal of a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join(JOURNAL_FILE);
        let mut text = serde_json::to_string_pretty(self).map_err(|source| DataError::BadMeta {
            path: path.clone(),
            source,
        })?;
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("\n{checksum:08x}\n"));
        let beside = folder.join(format!("{JOURNAL_FILE}.new"));
        File::create(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .map_err(DataError::io("write", &beside))?;
        fs::rename(&beside, &path).map_err(DataError::io("write", &path))?;
        Ok(flm_files::sync_folder(folder)?)
    }

    /// Returns the journal of a folder if it is intact and has this identity.
    pub(super) fn read(folder: &Path, identity: &str) -> Option<Self> {
        let bytes = fs::read(folder.join(JOURNAL_FILE)).ok()?;
        let journal = Self::parse(&bytes);
        if journal.is_none() {
            tracing::warn!(folder = %folder.display(), "the journal is damaged");
        }
        let journal = journal?;
        if journal.identity != identity {
            tracing::warn!(
                folder = %folder.display(),
                "the interrupted preparation had a different corpus or different options"
            );
            return None;
        }
        Some(journal)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (json, checksum) = text.rsplit_once('\n')?;
        let checksum = u32::from_str_radix(checksum, 16).ok()?;
        if crc32fast::hash(json.as_bytes()) != checksum {
            return None;
        }
        serde_json::from_str(json).ok()
    }
}

impl Consumed {
    /// Extends the prefix by the next piece.
    pub(super) fn add(&mut self, piece: &crate::Piece) {
        let mut checksum = crc32fast::Hasher::new_with_initial_len(self.checksum, self.bytes);
        checksum.update(piece.text.as_bytes());
        self.checksum = checksum.finalize();
        self.pieces += 1;
        self.documents += u64::from(piece.ends_document);
        self.bytes += piece.text.len() as u64;
    }
}

/// Returns a hash of all inputs that determine the rows of a data folder: the corpora, the options,
/// and the tokenizer or its source. Two preparations with the same identity give the same folder.
pub(super) fn identity(
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    tokenizer: Option<&TextTokenizer>,
) -> Result<String, DataError> {
    let mut parts = vec![
        format!("{VERSION} {}", env!("CARGO_PKG_VERSION")),
        corpus.fingerprint()?,
        match (tokenizer, &options.tokenizer) {
            (Some(tokenizer), _) => tokenizer.hash().to_owned(),
            (None, TokenizerSource::TrainBpe(size)) => format!("byte pairs {size}"),
            (None, TokenizerSource::Words) => "words".to_owned(),
            (None, _) => "characters".to_owned(),
        },
        format!("{} {}", options.layout.name(), options.length),
        options.rows_per_shard.to_string(),
        match &options.validation {
            Validation::Share => format!("share {:016x}", options.validation_share.to_bits()),
            Validation::Last(count) => format!("last {count}"),
            Validation::Corpus(corpus) => format!("corpus {}", corpus.fingerprint()?),
        },
    ];
    parts.extend(options.text_map.as_ref().map(|map| map.name().to_owned()));
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn journal() -> Journal {
        Journal {
            identity: "it".to_owned(),
            tokenizer_hash: "00".to_owned(),
            total: Some(3),
            read: Consumed::default(),
            rows: RowState::default(),
        }
    }

    #[test]
    fn a_journal_comes_back_where_it_belongs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(folder.path(), "it"), None);
        journal().write(folder.path()).unwrap();
        assert_eq!(Journal::read(folder.path(), "it"), Some(journal()));
        assert_eq!(Journal::read(folder.path(), "another"), None);
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn the_checksum_is_that_of_the_text_however_it_is_cut() {
        let piece = |text: &str| crate::Piece {
            text: text.to_owned(),
            ends_document: true,
        };
        let mut consumed = Consumed::default();
        consumed.add(&piece("on the"));
        consumed.add(&piece(" mat"));
        assert_eq!(consumed.checksum, crc32fast::hash(b"on the mat"));
        assert_eq!(
            (consumed.pieces, consumed.documents, consumed.bytes),
            (2, 2, 10)
        );
    }

    proptest! {
        #[test]
        fn a_damaged_journal_is_none(at in 0_usize..4096, flip in 1_u8.., cut in 0_usize..4096) {
            let folder = tempfile::tempdir().unwrap();
            journal().write(folder.path()).unwrap();
            let path = folder.path().join(JOURNAL_FILE);
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            // The hexadecimal digits of the checksum may change case without changing its value.
            let parsed = Journal::parse(&bytes);
            prop_assert!(parsed.is_none() || parsed == Some(journal()));
            prop_assert_eq!(Journal::parse(&whole[..cut % whole.len()]), None);
        }

        #[test]
        fn any_bytes_are_no_journal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Journal::parse(&bytes), None);
        }
    }
}
