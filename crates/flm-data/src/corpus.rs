//! Corpora: sources of documents that can be read repeatedly without being held in memory.

mod columns;
mod files;
mod json;
mod lines;
mod source;

pub use files::{FileCorpus, TextUnit};
pub(crate) use lines::cut;

use crate::DataError;

/// An iterator over the documents of a corpus, in their fixed order.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<String, DataError>> + 'a>;

/// An iterator over the pieces of a corpus, in their fixed order.
pub type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece, DataError>> + 'a>;

/// A document, or a part of a document that is too large to hold in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether the document ends with this piece. If so, an end token follows it.
    pub ends_document: bool,
}

/// A source of documents.
///
/// One pass builds the vocabulary and another encodes, so every call of
/// [`documents`](Self::documents) starts from the beginning and yields the same documents. An
/// implementation need not hold them, so memory need not grow with the corpus.
pub trait Corpus {
    /// Returns the documents, starting from the first.
    ///
    /// # Errors
    /// Returns an error if the source cannot be opened. Each item can also fail later.
    fn documents(&self) -> Result<Documents<'_>, DataError>;

    /// Returns a one-line description for people: the source and how it is split into documents. It
    /// is stored in `dataset.json` and named in errors.
    fn describe(&self) -> String;

    /// Returns a string that identifies the content of this corpus. It should change with the
    /// corpus, because [`prepare`](crate::prepare) uses it to decide whether it can resume. The
    /// default is [`describe`](Self::describe).
    ///
    /// # Errors
    /// Returns an error if the source cannot be inspected.
    fn fingerprint(&self) -> Result<String, DataError> {
        Ok(self.describe())
    }

    /// Returns the documents in pieces of bounded size. The default is one piece per document.
    /// Override it only for documents that may be too large to hold, such as a book read as one
    /// text.
    ///
    /// # Errors
    /// The same as [`documents`](Self::documents).
    fn pieces(&self) -> Result<Pieces<'_>, DataError> {
        Ok(Box::new(self.documents()?.map(|text| {
            text.map(|text| Piece {
                text,
                ends_document: true,
            })
        })))
    }

    /// Whether the corpus is a few long texts, any part of which is an equally good sample. Such a
    /// corpus must be packed, and its validation split consists of blocks instead of documents.
    fn is_continuous(&self) -> bool {
        false
    }
}

/// A corpus made by a function: each call returns an iterator over the same documents.
///
/// ```
/// use flm_data::{Corpus, FnCorpus};
///
/// let corpus = FnCorpus::new("the squares", || (0..3).map(|n| Ok((n * n).to_string())));
/// let documents: Vec<String> = corpus.documents()?.collect::<Result<_, _>>()?;
/// assert_eq!(documents, ["0", "1", "4"]);
/// # Ok::<(), flm_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FnCorpus<F> {
    description: String,
    make: F,
}

impl<F, I> FnCorpus<F>
where
    F: Fn() -> I,
    I: Iterator<Item = Result<String, DataError>>,
{
    /// Creates a corpus of the documents that `make` yields. It must yield the same documents each
    /// time.
    pub fn new(description: impl Into<String>, make: F) -> Self {
        Self {
            description: description.into(),
            make,
        }
    }
}

impl<F, I> Corpus for FnCorpus<F>
where
    F: Fn() -> I,
    I: Iterator<Item = Result<String, DataError>>,
    // The boxed iterator must be valid for as long as the corpus is borrowed.
    I: 'static,
{
    fn documents(&self) -> Result<Documents<'_>, DataError> {
        Ok(Box::new((self.make)()))
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}
