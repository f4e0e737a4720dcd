//! What a corpus is: documents that can be read again, from the start, without being held.

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

/// A document, or a part of one that is too large to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether the document ends with this piece, so that an end token follows it.
    pub ends_document: bool,
}

/// A source of documents.
///
/// Building a vocabulary takes one pass and encoding takes another, so every call of
/// [`documents`](Self::documents) starts from the beginning and yields the same documents. Nothing
/// obliges an implementation to hold them: memory need not grow with the corpus.
pub trait Corpus {
    /// The documents from the first on.
    ///
    /// # Errors
    /// When the source cannot be opened; each item can fail on its own later.
    fn documents(&self) -> Result<Documents<'_>, DataError>;

    /// One line for people: what it is and how it is cut in documents. It is stored in
    /// `dataset.json` and named in errors.
    fn describe(&self) -> String;

    /// What tells this corpus from others, and from itself after it was changed, for going on with
    /// a preparation that was interrupted. [`describe`](Self::describe), unless the corpus knows
    /// more.
    ///
    /// # Errors
    /// When the source cannot be looked at.
    fn fingerprint(&self) -> Result<String, DataError> {
        Ok(self.describe())
    }

    /// The documents in pieces of bounded size. Only a corpus of documents that may be too large
    /// to hold (a book read as one text) has reason to replace the default, which is one piece a
    /// document.
    ///
    /// # Errors
    /// As [`documents`](Self::documents).
    fn pieces(&self) -> Result<Pieces<'_>, DataError> {
        Ok(Box::new(self.documents()?.map(|text| {
            text.map(|text| Piece {
                text,
                ends_document: true,
            })
        })))
    }

    /// Whether the corpus is a few long texts, of which any stretch is as good a sample as any
    /// other. It can only be packed, and its validation split is made of blocks instead of
    /// documents.
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
    /// A corpus of the documents that `make` yields; it must yield the same each time.
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
    // The iterator is boxed for as long as the corpus is borrowed.
    I: 'static,
{
    fn documents(&self) -> Result<Documents<'_>, DataError> {
        Ok(Box::new((self.make)()))
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}
