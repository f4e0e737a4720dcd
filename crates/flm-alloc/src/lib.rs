//! The allocator of the binaries: mimalloc, configured for training on a CPU.
//!
//! A training step allocates and frees the same few gigabytes of large tensors again and again. If
//! that memory returns to the system, each page is cleared before its next use and mapped 4 KiB at
//! a time. This takes a quarter of the time of a large step. So memory is kept for the life of the
//! process, in large pages (docs/internals/performance.md has the figures).
//!
//! Linking this crate makes mimalloc the global allocator; [`keep_memory`] sets it up.

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header, which the bindings do not export.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory and asks for large pages. Call it first in `main`.
///
/// mimalloc's own environment variables, such as `MIMALLOC_PURGE_DELAY=10`, take precedence.
#[expect(unsafe_code, reason = "the allocator's settings are C functions")]
pub fn keep_memory() {
    // SAFETY: both calls set a number in mimalloc's table of options and check its index.
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
        mi_option_set_default(mi_option_large_os_pages, 1);
    }
}

/// Compiles the README's examples as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
