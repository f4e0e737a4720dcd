//! Text files, JSON lines and folders of them as a corpus.

use std::fs;
use std::path::{Path, PathBuf};

use super::lines::{Chunks, Lines};
use super::{Corpus, Documents, Piece, Pieces};
use crate::DataError;

/// What one document is in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextUnit {
    /// Each line that is not blank, without its line end.
    #[default]
    Lines,
    /// The whole file, line ends included. It is read in bounded pieces.
    Whole,
}

/// A text file, a JSON lines file, or a folder of such files.
///
/// A name that ends in `.jsonl` or `.ndjson` is JSON lines, every other file is text. A folder is
/// walked with its subfolders in the order of the names; names that begin with a dot are left out,
/// and links to folders are not followed.
#[derive(Debug, Clone)]
pub struct FileCorpus {
    root: PathBuf,
    files: Vec<PathBuf>,
    unit: TextUnit,
    field: String,
}

impl FileCorpus {
    /// The corpus at `path`, read by lines; JSON lines hold their text in the field `text`.
    ///
    /// # Errors
    /// When `path` or a folder in it cannot be read, or a folder holds no file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let root = path.into();
        let kind = fs::metadata(&root).map_err(DataError::io("read", &root))?;
        let mut files = Vec::new();
        if kind.is_dir() {
            collect_files(&root, &mut files)?;
            if files.is_empty() {
                return Err(DataError::EmptyFolder { path: root });
            }
        } else {
            files.push(root.clone());
        }
        Ok(Self {
            root,
            files,
            unit: TextUnit::default(),
            field: "text".to_owned(),
        })
    }

    /// Sets what one document is in a text file; JSON lines are always one document a line.
    #[must_use]
    pub fn unit(mut self, unit: TextUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Sets the field of JSON lines that holds the text.
    #[must_use]
    pub fn json_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The files, in the order they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn read(&self, path: &Path) -> Result<Pieces<'_>, DataError> {
        if is_json_lines(path) {
            let lines = Lines::open(path)?;
            let path = path.to_path_buf();
            let documents = lines.filter_map(move |line| {
                line.and_then(|(number, line)| json_text(&path, number, &line, &self.field))
                    .map(|text| Some(text).filter(|text| !text.trim().is_empty()))
                    .transpose()
            });
            return Ok(whole_pieces(documents));
        }
        Ok(match self.unit {
            TextUnit::Lines => whole_pieces(Lines::open(path)?.map(|line| Ok(line?.1))),
            TextUnit::Whole => Box::new(Chunks::open(path)?),
        })
    }
}

impl Corpus for FileCorpus {
    /// For [`TextUnit::Whole`] these are the pieces of the files, without the mark that tells
    /// where a file ends: see [`pieces`](Corpus::pieces).
    fn documents(&self) -> Result<Documents<'_>, DataError> {
        Ok(Box::new(
            self.pieces()?.map(|piece| piece.map(|piece| piece.text)),
        ))
    }

    fn pieces(&self) -> Result<Pieces<'_>, DataError> {
        Ok(Box::new(self.files.iter().flat_map(|path| {
            self.read(path)
                .unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        })))
    }

    fn describe(&self) -> String {
        let json = self.files.iter().filter(|path| is_json_lines(path)).count();
        let unit = match self.unit {
            TextUnit::Lines => "a document a line",
            TextUnit::Whole => "each file one text",
        };
        let what = match (json, self.files.len() - json) {
            (0, _) => unit.to_owned(),
            (_, 0) => format!("JSON lines, field `{}`", self.field),
            _ => format!("{unit}; JSON lines, field `{}`", self.field),
        };
        match self.files.len() {
            1 => format!("{} ({what})", self.root.display()),
            files => format!("{} ({files} files, {what})", self.root.display()),
        }
    }

    fn is_continuous(&self) -> bool {
        self.unit == TextUnit::Whole && !self.files.iter().any(|path| is_json_lines(path))
    }
}

fn whole_pieces<'a>(documents: impl Iterator<Item = Result<String, DataError>> + 'a) -> Pieces<'a> {
    Box::new(documents.map(|text| {
        Ok(Piece {
            text: text?,
            ends_document: true,
        })
    }))
}

fn is_json_lines(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "jsonl" || extension == "ndjson")
}

fn json_text(path: &Path, line: u64, json: &str, field: &str) -> Result<String, DataError> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|source| DataError::NotJson {
            path: path.to_path_buf(),
            line,
            source,
        })?;
    match value.get(field).and_then(|text| text.as_str()) {
        Some(text) => Ok(text.to_owned()),
        None => Err(DataError::NoTextField {
            path: path.to_path_buf(),
            line,
            field: field.to_owned(),
        }),
    }
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let entries = fs::read_dir(folder)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(DataError::io("read", folder))?;
    let mut paths: Vec<(PathBuf, bool)> = Vec::new();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(DataError::io("read", &path))?;
        if kind.is_dir() {
            paths.push((path, true));
        } else if path.is_file() {
            paths.push((path, false));
        }
    }
    paths.sort();
    for (path, is_folder) in paths {
        if is_folder {
            collect_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn documents(corpus: &FileCorpus) -> Result<Vec<String>, DataError> {
        corpus.documents()?.collect()
    }

    #[test]
    fn lines_are_documents_without_their_ends_and_blank_lines_are_none() {
        let folder = folder(&[("a.txt", b"one \r\n\n  \ntwo\nthree")]);
        let corpus = FileCorpus::open(folder.path().join("a.txt")).unwrap();
        assert_eq!(documents(&corpus).unwrap(), ["one ", "two", "three"]);
        assert_eq!(documents(&corpus).unwrap().len(), 3, "a second pass");
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names() {
        let folder = folder(&[
            ("b/2.txt", b"four"),
            ("b/1.jsonl", b"{\"text\": \"three\"}\n\n{\"text\": \" \"}\n"),
            ("c.txt", b"five"),
            ("a.txt", b"one\ntwo\n"),
            (".hidden", b"\xff"),
        ]);
        let corpus = FileCorpus::open(folder.path()).unwrap();
        assert_eq!(
            documents(&corpus).unwrap(),
            ["one", "two", "three", "four", "five"]
        );
        assert!(!corpus.is_continuous());
    }

    #[test]
    fn a_whole_file_keeps_every_byte_and_ends_once() {
        let folder = folder(&[("a.txt", b"one\n\ntwo\n"), ("b.txt", b"three")]);
        let corpus = FileCorpus::open(folder.path())
            .unwrap()
            .unit(TextUnit::Whole);
        let pieces: Vec<Piece> = corpus.pieces().unwrap().collect::<Result<_, _>>().unwrap();
        let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(text, "one\n\ntwo\nthree");
        assert_eq!(pieces.iter().filter(|piece| piece.ends_document).count(), 2);
        assert!(corpus.is_continuous());
    }

    #[test]
    fn faults_name_the_file_and_the_place() {
        let folder = folder(&[
            ("bad.txt", b"fine\nna\xefve\n"),
            ("bad.jsonl", b"{\"text\": \"a\"}\n{\"text\": 3}\n"),
            ("worse.jsonl", b"{\"text\": \"a\"}\n\nno json\n"),
        ]);
        let message = |name: &str| {
            let corpus = FileCorpus::open(folder.path().join(name)).unwrap();
            documents(&corpus).unwrap_err().to_string()
        };
        let place = folder.path().display();
        assert_eq!(
            message("bad.txt"),
            format!("{place}/bad.txt is not UTF-8: line 2, byte 7 of the file")
        );
        assert_eq!(
            message("bad.jsonl"),
            format!("line 2 of {place}/bad.jsonl has no string in the field `text`")
        );
        assert_eq!(
            message("worse.jsonl"),
            format!("line 3 of {place}/worse.jsonl is not JSON")
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_at_once() {
        let folder = folder(&[]);
        let place = folder.path().display();
        let missing = FileCorpus::open(folder.path().join("no.txt")).unwrap_err();
        assert_eq!(missing.to_string(), format!("cannot read {place}/no.txt"));
        let empty = FileCorpus::open(folder.path()).unwrap_err();
        assert_eq!(
            empty.to_string(),
            format!("the folder {place} holds no text file")
        );
    }

    #[test]
    fn another_field_and_the_description() {
        let folder = folder(&[("a.jsonl", b"{\"body\": \"x\", \"text\": \"y\"}")]);
        let path = folder.path().join("a.jsonl");
        let corpus = FileCorpus::open(&path).unwrap().json_field("body");
        assert_eq!(documents(&corpus).unwrap(), ["x"]);
        assert_eq!(
            corpus.describe(),
            format!("{} (JSON lines, field `body`)", path.display())
        );
    }
}
