//! A cache of fixed size for the tokens of short words.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of cached words per thread. The cache of one thread uses 3.5 MiB.
const SLOTS: usize = 1 << 16;
/// The longest cached word in bytes: one less than a key.
const WORD: usize = 23;
/// The most tokens of a cached word.
const TOKENS: usize = 6;

/// The bytes of a word and its length, as integers.
type Key = [u64; 3];

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    tokens: [u32; TOKENS],
    count: u8,
}

/// A direct-mapped cache: each word has one slot and replaces the previous word there. Frequent
/// words return quickly.
#[derive(Debug)]
pub(super) struct Cache {
    owner: u64,
    slots: Vec<Slot>,
}

thread_local! {
    static CACHE: RefCell<Cache> = const {
        RefCell::new(Cache { owner: 0, slots: Vec::new() })
    };
}

/// Returns a key that no other tokenizer has.
pub(super) fn new_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Calls `use_it` with this thread's cache for the tokenizer of this key, and clears the cache if
/// it belongs to another tokenizer. Returns `None` if `use_it` does, or if the cache is already
/// borrowed, which does not happen today.
pub(super) fn with<T>(key: u64, use_it: impl FnOnce(&mut Cache) -> Option<T>) -> Option<T> {
    CACHE.with(|cache| {
        let cache = &mut *cache.try_borrow_mut().ok()?;
        if cache.owner != key {
            const EMPTY: Slot = Slot {
                key: [0; 3],
                tokens: [0; TOKENS],
                count: 0,
            };
            cache.slots.clear();
            cache.slots.resize(SLOTS, EMPTY);
            cache.owner = key;
        }
        use_it(cache)
    })
}

impl Cache {
    /// Appends the tokens of a word, from the cache or from `make`. Returns `None` if `make` does.
    pub(super) fn extend(
        &mut self,
        word: &str,
        out: &mut Vec<u32>,
        make: impl FnOnce(&str) -> Option<Vec<u32>>,
    ) -> Option<()> {
        let Some(key) = key(word) else {
            out.extend(make(word)?);
            return Some(());
        };
        let slot = &mut self.slots[place(key)];
        if slot.key == key {
            out.extend_from_slice(&slot.tokens[..usize::from(slot.count)]);
            return Some(());
        }
        let tokens = make(word)?;
        if let Some(room) = slot.tokens.get_mut(..tokens.len()) {
            room.copy_from_slice(&tokens);
            slot.count = tokens.len() as u8;
            slot.key = key;
        }
        out.extend(tokens);
        Some(())
    }
}

/// Returns the key of a short word. A key is never zero, because its last byte is the length.
fn key(word: &str) -> Option<Key> {
    if word.is_empty() || word.len() > WORD {
        return None;
    }
    let mut bytes = [0; WORD + 1];
    bytes[..word.len()].copy_from_slice(word.as_bytes());
    bytes[WORD] = word.len() as u8;
    let (numbers, _) = bytes.as_chunks::<8>();
    Some([0, 1, 2].map(|n| u64::from_le_bytes(numbers[n])))
}

fn place(key: Key) -> usize {
    // Multiplies by odd numbers without a pattern (the digits of π). The upper bits of a product
    // are mixed best.
    let mixed = key[0].wrapping_mul(0x243f_6a88_85a3_08d3).rotate_left(29)
        ^ key[1].wrapping_mul(0x1319_8a2e_0370_7345).rotate_left(43)
        ^ key[2];
    (mixed.wrapping_mul(0xa409_3822_299f_31d1) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_made_once_unless_it_is_long() {
        let long = "a word of more than 23 bytes";
        let mut cache = Cache {
            owner: 0,
            slots: Vec::new(),
        };
        let mut made = Vec::new();
        let mut out = Vec::new();
        with(new_key(), |fresh| {
            std::mem::swap(fresh, &mut cache);
            Some(())
        });
        for word in ["a", "many", "a", "many", long, long, "bad", "a"] {
            let made_one = cache.extend(word, &mut out, |word| {
                made.push(word.to_owned());
                match word {
                    "bad" => None,
                    "many" => Some(vec![7; TOKENS + 1]),
                    _ => Some(vec![word.len() as u32]),
                }
            });
            assert_eq!(made_one.is_none(), word == "bad");
        }
        assert_eq!(made, ["a", "many", "many", long, long, "bad"]);
        let many = [7; TOKENS + 1].as_slice();
        assert_eq!(out, [&[1], many, &[1], many, &[28, 28, 1]].concat());
    }

    #[test]
    fn words_are_told_apart() {
        assert_ne!(key("a"), key("a\0"));
        assert_eq!(key(""), None);
        assert_eq!(key(&"x".repeat(24)), None);
        // These words must not share slots more often than random ones would.
        let words = (0..6000).map(|n| key(&format!("word {n}")).unwrap());
        let places: std::collections::HashSet<usize> = words.map(place).collect();
        assert!(places.len() > 5600, "{}", places.len());
    }
}
