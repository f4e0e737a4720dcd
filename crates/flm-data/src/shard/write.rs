//! Writing the shards of one split.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::{HEADER, Header, ShardSpec};
use crate::DataError;
use crate::dataset::ShardMeta;

/// Writes rows to `split-00000.bin`, `split-00001.bin`, … in a folder.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    folder: PathBuf,
    split: &'static str,
    spec: ShardSpec,
    rows_per_shard: u64,
    open: Option<Open>,
    shards: Vec<ShardMeta>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    checksum: crc32fast::Hasher,
    rows: u64,
}

impl ShardWriter {
    pub(crate) fn new(
        folder: PathBuf,
        split: &'static str,
        spec: ShardSpec,
        rows_per_shard: u64,
    ) -> Self {
        Self {
            folder,
            split,
            spec,
            rows_per_shard,
            open: None,
            shards: Vec::new(),
        }
    }

    /// Appends a row of the length of the shards.
    pub(crate) fn push(&mut self, row: &[u32]) -> Result<(), DataError> {
        debug_assert_eq!(row.len(), self.spec.length as usize);
        let bytes: Vec<u8> = match self.spec.bits() {
            // The tokenizer gives no token beyond its vocabulary, which fits.
            16 => row.iter().flat_map(|&t| (t as u16).to_le_bytes()).collect(),
            _ => row.iter().flat_map(|&t| t.to_le_bytes()).collect(),
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        open.checksum.update(&bytes);
        open.file
            .write_all(&bytes)
            .map_err(DataError::io("write", &open.path))?;
        open.rows += 1;
        if open.rows == self.rows_per_shard {
            self.end(open)?;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Completes the last shard and returns what was written.
    pub(crate) fn finish(mut self) -> Result<Vec<ShardMeta>, DataError> {
        if let Some(open) = self.open.take() {
            self.end(open)?;
        }
        Ok(self.shards)
    }

    fn begin(&self) -> Result<Open, DataError> {
        let name = format!("{}-{:05}.bin", self.split, self.shards.len());
        let path = self.folder.join(name);
        let mut file = File::create_new(&path)
            .map(BufWriter::new)
            .map_err(DataError::io("create", &path))?;
        // The checksum is not known yet: the header is written at the end.
        file.write_all(&[0; HEADER])
            .map_err(DataError::io("write", &path))?;
        Ok(Open {
            path,
            file,
            checksum: crc32fast::Hasher::new(),
            rows: 0,
        })
    }

    fn end(&mut self, open: Open) -> Result<(), DataError> {
        let Open {
            path,
            mut file,
            checksum,
            rows,
        } = open;
        let header = Header {
            bits: self.spec.bits(),
            vocabulary: self.spec.vocabulary,
            length: self.spec.length,
            rows,
            tokenizer_hash: self.spec.tokenizer_hash.clone(),
            checksum: checksum.finalize(),
        };
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&header.to_bytes()))
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(DataError::io("write", &path))?;
        let name = path.file_name().unwrap_or_default();
        self.shards.push(ShardMeta {
            file: name.to_string_lossy().into_owned(),
            rows,
        });
        Ok(())
    }
}
