//! The classes of characters that GPT-2's expression tells apart.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as Set, HirKind};

/// What a character is to the expression.
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

/// The class of every character, at its number; one byte each. They are read from the tables of
/// the library that the `tokenizers` crate runs its expressions on, and not from the standard library,
/// which may know another version of Unicode and counts other characters as letters.
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
