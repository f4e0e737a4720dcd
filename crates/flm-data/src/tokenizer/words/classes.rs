//! The character classes of GPT-2's expression.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as Set, HirKind};

/// The class of a character in the expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// `[^\s\p{L}\p{N}]`
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

/// Returns the class of every character, indexed by its code point, in one byte each. The classes
/// come from the tables of the library that runs the expressions of the `tokenizers` crate. The
/// standard library may use another Unicode version, and its classes differ.
pub(super) fn classes() -> Option<&'static [Class]> {
    static CLASSES: LazyLock<Option<Vec<Class>>> = LazyLock::new(|| {
        let mut classes = vec![Class::Other; char::MAX as usize + 1];
        for (pattern, class) in [
            (r"\p{L}", Class::Letter),
            (r"\p{N}", Class::Number),
            (r"\s", Class::Space),
        ] {
            let parsed = regex_syntax::parse(pattern).ok()?;
            let HirKind::Class(Set::Unicode(set)) = parsed.kind() else {
                return None;
            };
            for range in set.iter() {
                classes[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        Some(classes)
    });
    CLASSES.as_deref()
}
