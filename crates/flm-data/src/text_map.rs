//! A change that is made to every text on its way to the tokenizer.

use std::fmt;
use std::sync::Arc;

/// A named function from text to text, such as a detokenizer that undoes what the makers of a
/// corpus did to it.
///
/// The name goes into `dataset.json`, and tells one map from another where a preparation goes on
/// that was interrupted; the function must give the same text each time.
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
    /// A map of this name.
    pub fn new(
        name: impl Into<String>,
        map: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            map: Arc::new(map),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text in place of `text`.
    pub fn apply(&self, text: &str) -> String {
        (self.map)(text)
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("TextMap").field(&self.name).finish()
    }
}
