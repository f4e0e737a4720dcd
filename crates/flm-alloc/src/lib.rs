//! The allocator of the binaries.
//!
//! A training step allocates and frees the same few gigabytes of large tensors again and again. Given back to the system, each
//! page is cleared before its next use, and mapped 4 KiB at a time: a quarter of the time of a large step went there, and more
//! where two threads wait for it (docs/performance.md). So memory is kept for the life of the process, in large pages; and
//! large blocks lie in one range, whose holes serve blocks of any size, the largest in a half of their own.
//!
//! Linking this crate makes it the global allocator: [`keep_memory`] sets it up. Small blocks are mimalloc's.

mod blocks;

use blocks::Blocks;
use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
use memmap2::{MmapMut, MmapOptions};
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// `mi_option_purge_delay` of mimalloc's header, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// Blocks from this size on lie in the range, in bytes.
const LARGE: usize = 1 << 16;
/// Blocks from this size on lie in its second half, in bytes: as wide as a vocabulary, a few and all alike. What one of them leaves
/// is for the next; among smaller blocks it would be cut, and the next would need new memory.
const HUGE: usize = 32 << 20;
/// Blocks of the range start at multiples of this, in bytes.
const GRAIN: usize = 4096;
/// Lengths to try for the range: addresses only, memory comes with the first touch.
const RANGES: [u64; 3] = [1 << 40, 1 << 36, 1 << 30];

/// Keeps freed memory and asks for large pages. To be called first in `main`; mimalloc's own variables, such as
/// `MIMALLOC_PURGE_DELAY=10`, win for small blocks.
#[expect(unsafe_code, reason = "the allocator's settings are C functions")]
pub fn keep_memory() {
    // SAFETY: both set a number in mimalloc's table of options, whose indices they check.
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
        mi_option_set_default(mi_option_large_os_pages, 1);
    }
    // Elsewhere a mapping takes memory at once, not when it is touched.
    if !cfg!(unix) {
        return;
    }
    let map = RANGES.iter().find_map(|&length| {
        let mut options = MmapOptions::new();
        let options = options.len(usize::try_from(length).ok()?);
        options.no_reserve_swap().map_anon().ok()
    });
    if let Some(mut map) = map {
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        RANGE.get_or_init(|| Range {
            start: map.as_mut_ptr() as usize,
            half: map.len() / 2,
            blocks: [Mutex::new(Blocks::new()), Mutex::new(Blocks::new())],
            _map: map,
        });
    }
}

static RANGE: OnceLock<Range> = OnceLock::new();

/// The addresses of large blocks, in two halves.
struct Range {
    start: usize,
    half: usize,
    blocks: [Mutex<Blocks>; 2],
    _map: MmapMut,
}

impl Range {
    fn blocks(&self, half: usize) -> MutexGuard<'_, Blocks> {
        let blocks = self.blocks[half].lock();
        blocks.unwrap_or_else(PoisonError::into_inner)
    }

    /// The half in which a block lies and its offset there, if it lies in the range.
    fn place(&self, block: *mut u8) -> Option<(usize, usize)> {
        let offset = (block as usize).checked_sub(self.start)?;
        (offset < 2 * self.half).then_some((offset / self.half, offset % self.half))
    }

    /// A block of the range, if it is one for a block of this size, and how many of its first bytes may not be zero.
    fn take(&self, layout: Layout) -> Option<(*mut u8, usize)> {
        if layout.size() < LARGE || layout.align() > GRAIN {
            return None;
        }
        let length = whole(layout.size());
        let half = usize::from(layout.size() >= HUGE);
        let taken = self.blocks(half).take(length, self.half)?;
        let block = (self.start + half * self.half + taken.offset) as *mut u8;
        Some((block, layout.size().min(length - taken.fresh)))
    }
}

/// Bytes that a block takes of the range.
fn whole(size: usize) -> usize {
    size.next_multiple_of(GRAIN)
}

/// Large blocks from the range, where there is one, all others from mimalloc.
struct Allocator;

// SAFETY: a block of the range is as long as asked for, aligned to `GRAIN`, and nobody else's until it is given back: `Blocks`
// sees to that, and the range stays mapped for the life of the process. Every other block goes to mimalloc and back.
#[expect(unsafe_code, reason = "the interface of allocators")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match RANGE.get().and_then(|range| range.take(layout)) {
            Some((block, _)) => block,
            // SAFETY: the caller's promises are mimalloc's.
            None => unsafe { MiMalloc.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match RANGE.get().and_then(|range| range.take(layout)) {
            Some((block, used)) => {
                // SAFETY: the block is at least as long; what was never used is zero, as the system made it.
                unsafe { block.write_bytes(0, used) };
                block
            }
            // SAFETY: the caller's promises are mimalloc's.
            None => unsafe { MiMalloc.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(range) = RANGE.get()
            && let Some((half, offset)) = range.place(block)
        {
            range.blocks(half).give(offset, whole(layout.size()));
        } else {
            // SAFETY: what does not lie in the range is mimalloc's.
            unsafe { MiMalloc.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let range = RANGE.get().filter(|_| layout.size().max(size) >= LARGE);
        let Some(range) = range else {
            // SAFETY: no block as small lies in the range, and the caller's promises are mimalloc's.
            return unsafe { MiMalloc.realloc(block, layout, size) };
        };
        if size >= LARGE
            && let Some((half, offset)) = range.place(block)
            && half == usize::from(size >= HUGE)
            && range
                .blocks(half)
                .resize(offset, whole(layout.size()), whole(size), range.half)
        {
            return block;
        }
        // SAFETY: the alignment is that of a layout, and the caller promises that `size` does not overflow with it; the new
        // block is another one, and both are at least as long as what is copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// The half in which a block lies, if it lies in the range.
    fn half(block: &[u8]) -> Option<usize> {
        let (half, _) = RANGE.get()?.place(block.as_ptr().cast_mut())?;
        Some(half)
    }

    fn in_range(block: &[u8]) -> bool {
        half(block).is_some()
    }

    #[test]
    fn blocks_are_zero_where_asked_for_and_keep_their_bytes_when_they_grow_shrink_or_move() {
        // One that mimalloc allocated and that is freed when there is a range.
        let before = vec![7_u8; 2 * LARGE];
        assert!(!in_range(&before));
        keep_memory();
        keep_memory();
        let size = 3 * LARGE + 5;
        thread::scope(|scope| {
            for value in 1..=4_u8 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        assert!(vec![0_u8; size].iter().all(|byte| *byte == 0));
                        let mut block = vec![value; LARGE / 2];
                        for target in [2 * LARGE, size, LARGE + 1, LARGE / 2] {
                            block.resize(target, value);
                            block.shrink_to_fit();
                            let large = RANGE.get().is_some() && target >= LARGE;
                            assert_eq!(in_range(&block), large, "{target} bytes");
                            assert!(block.iter().all(|byte| *byte == value));
                        }
                    }
                });
            }
        });
        assert!(before.iter().all(|byte| *byte == 7));
        // The largest lie among themselves, whatever they were before.
        if RANGE.get().is_some() {
            let mut block = vec![5_u8; HUGE - GRAIN];
            assert_eq!(half(&block), Some(0));
            for (size, expected) in [(HUGE, 1), (HUGE + GRAIN, 1), (HUGE - GRAIN, 0)] {
                block.resize(size, 5);
                block.shrink_to_fit();
                assert_eq!(half(&block), Some(expected), "{size} bytes");
            }
            assert!(block.iter().all(|byte| *byte == 5));
        }
    }
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
