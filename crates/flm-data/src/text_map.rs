//! Transformations of documents before tokenization.

use std::fmt;
use std::sync::Arc;

/// A named function from text to text, such as a detokenizer.
///
/// The name is stored in `dataset.json` and identifies the map when an interrupted preparation
/// resumes. The function must be deterministic.
///
/// ```
/// let map = flm_data::TextMap::new("lower case", |text| text.to_lowercase());
/// assert_eq!(map.apply("The Cat"), "the cat");
/// ```
#[derive(Clone)]
pub struct TextMap {
    name: String,
    map: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

impl TextMap {
    /// Creates a map with this name.
    pub fn new(
        name: impl Into<String>,
        map: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            map: Arc::new(map),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the transformed text.
    pub fn apply(&self, text: &str) -> String {
        (self.map)(text)
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("TextMap").field(&self.name).finish()
    }
}
