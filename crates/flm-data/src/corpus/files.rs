//! A corpus of text, JSON lines and parquet files, or folders of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::columns::TextColumn;
use super::json::{Field, string_field};
use super::lines::{Chunks, Lines};
use super::source::{Form, kind};
use super::{Corpus, Documents, Piece, Pieces};
use crate::DataError;

/// The unit of a text file that makes one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextUnit {
    /// Each line that is not blank, without its line end.
    #[default]
    Lines,
    /// The whole file, line ends included. It is read in pieces of bounded size.
    Whole,
    /// The definition in each line of WordNet's `data.*` files: the text after ` | `, without its
    /// examples. Lines without a definition are skipped, in other files too.
    Glosses,
}

/// A corpus of text files, or of a folder of them.
///
/// The name of a file determines its kind:
///
/// - `.jsonl`, `.ndjson`, `.json`: JSON lines. Each line is an object with one document in a field;
///   null values are skipped.
/// - `.parquet`: each row has one document in a text column. Values may be compressed with snappy,
///   zstd or gzip; null values are skipped.
/// - Any other name: text, see [`TextUnit`].
///
/// Text and JSON lines files may be compressed as a whole, with a final `.gz` or `.zst` in the
/// name. All files are read as streams. Memory holds a document of at most 64 MiB (a longer line or
/// value is an error), for parquet also a page and a dictionary, and for zstd its window of at most
/// 128 MiB. Documents that contain only white space are skipped.
///
/// Folders are read recursively in the order of the names. Names that begin with a dot are skipped,
/// and links to folders are not followed.
#[derive(Debug, Clone)]
pub struct FileCorpus {
    name: String,
    files: Vec<PathBuf>,
    unit: TextUnit,
    field: String,
}

impl FileCorpus {
    /// Opens the corpus at `path`, one document per line. The default field for JSON lines and
    /// parquet is `text`.
    ///
    /// # Errors
    /// Returns an error if `path` or a folder in it cannot be read, or if a folder contains no
    /// files.
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
        Ok(Self::of(root.display().to_string(), files))
    }

    /// Creates a corpus of the given files, in this order. Its description uses `name`.
    pub fn of(name: impl Into<String>, files: Vec<PathBuf>) -> Self {
        Self {
            name: name.into(),
            files,
            unit: TextUnit::default(),
            field: "text".to_owned(),
        }
    }

    /// Sets the unit that makes one document in a text file. It does not affect other kinds of
    /// files.
    #[must_use]
    pub fn unit(mut self, unit: TextUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Sets the field of JSON lines or the column of parquet that contains the text. A dot selects
    /// a column in a struct: `article.body`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Returns the files, in reading order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn read(&self, path: &Path) -> Result<Pieces<'_>, DataError> {
        Ok(match (kind(path).0, self.unit) {
            (Form::Parquet, _) => whole_pieces(TextColumn::open(path, &self.field)?),
            (Form::JsonLines, _) => {
                let lines = Lines::open(path)?;
                let path = path.to_path_buf();
                whole_pieces(lines.filter_map(move |line| {
                    line.and_then(|(number, line)| json_text(&path, number, &line, &self.field))
                        .map(|text| text.filter(|text| !text.trim().is_empty()))
                        .transpose()
                }))
            }
            (Form::Text, TextUnit::Lines) => {
                whole_pieces(Lines::open(path)?.map(|line| Ok(line?.1)))
            }
            (Form::Text, TextUnit::Glosses) => {
                let gloss = |(_, line): (u64, String)| gloss(&line).map(str::to_owned);
                let lines = Lines::open(path)?.map(move |line| line.map(gloss));
                whole_pieces(lines.filter_map(Result::transpose))
            }
            (Form::Text, TextUnit::Whole) => Box::new(Chunks::open(path)?),
        })
    }

    fn has(&self, form: Form) -> bool {
        self.files.iter().any(|path| kind(path).0 == form)
    }
}

impl Corpus for FileCorpus {
    /// For [`TextUnit::Whole`], yields the pieces of the files without the flag for the end of a
    /// file: see [`pieces`](Corpus::pieces).
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
        let unit = match self.unit {
            TextUnit::Lines => "a document a line",
            TextUnit::Whole => "each file one text",
            TextUnit::Glosses => "a WordNet definition a line",
        };
        let mut what = Vec::new();
        if self.has(Form::Text) {
            what.push(unit.to_owned());
        }
        if self.has(Form::JsonLines) {
            what.push(format!("JSON lines, field `{}`", self.field));
        }
        if self.has(Form::Parquet) {
            what.push(format!("parquet, column `{}`", self.field));
        }
        let what = what.join("; ");
        match self.files.len() {
            1 => format!("{} ({what})", self.name),
            files => format!("{} ({files} files, {what})", self.name),
        }
    }

    /// Returns the description, and each file with its size and modification time.
    fn fingerprint(&self) -> Result<String, DataError> {
        let mut print = self.describe();
        for path in &self.files {
            let file = fs::metadata(path).map_err(DataError::io("read", path))?;
            // A file system without modification times still has the size.
            let changed = file.modified().ok();
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let changed = changed.unwrap_or_default().as_nanos();
            print.push_str(&format!("\n{} {} {changed}", path.display(), file.len()));
        }
        Ok(print)
    }

    fn is_continuous(&self) -> bool {
        self.unit == TextUnit::Whole && !self.has(Form::JsonLines) && !self.has(Form::Parquet)
    }
}

/// Returns the definition in a line of a WordNet data file. Licence lines begin with two spaces.
fn gloss(line: &str) -> Option<&str> {
    let (_, gloss) = line.split_once(" | ").filter(|_| !line.starts_with("  "))?;
    let definition = gloss.split("; \"").next().unwrap_or(gloss).trim();
    (!definition.is_empty() && !definition.starts_with('"')).then_some(definition)
}

fn whole_pieces<'a>(documents: impl Iterator<Item = Result<String, DataError>> + 'a) -> Pieces<'a> {
    Box::new(documents.map(|text| {
        Ok(Piece {
            text: text?,
            ends_document: true,
        })
    }))
}

/// Returns the text of a line, or `None` if it is null.
fn json_text(path: &Path, line: u64, json: &str, field: &str) -> Result<Option<String>, DataError> {
    let found = string_field(json, field).map_err(|source| DataError::NotJson {
        path: path.to_path_buf(),
        line,
        source,
    })?;
    match found {
        Field::Text(text) => Ok(Some(text)),
        Field::Null => Ok(None),
        Field::Missing => Err(DataError::NoTextField {
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
            (
                "b/1.jsonl",
                b"{\"text\": \"three\"}\n\n{\"text\": \" \"}\n{\"text\": null}\n",
            ),
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
    fn definitions_of_wordnet_stand_between_the_bar_and_the_examples() {
        let noun = b"  1 This license has a | in it\n\
            00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived; known  \n\
            00002684 03 n 01 object 0 000 | a visible entity; an entity; \"full of objects\"; \"x\"  \n\
            00002685 03 n 01 such 0 000 | \"only an example\"\n";
        let folder = folder(&[("data.noun", noun), ("index.noun", b"entity n 1 1 ~ 1 1\n")]);
        let corpus = FileCorpus::open(folder.path())
            .unwrap()
            .unit(TextUnit::Glosses);
        assert_eq!(
            documents(&corpus).unwrap(),
            [
                "that which is perceived; known",
                "a visible entity; an entity"
            ]
        );
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
        let corpus = FileCorpus::open(&path).unwrap().field("body");
        assert_eq!(documents(&corpus).unwrap(), ["x"]);
        assert_eq!(
            corpus.describe(),
            format!("{} (JSON lines, field `body`)", path.display())
        );
    }
}
