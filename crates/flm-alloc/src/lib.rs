//! The allocator of the binaries: mimalloc, set up for training on a CPU.
//!
//! A training step allocates and frees the same few gigabytes of large tensors again and again. Given back to the system, each
//! page is cleared before its next use and mapped 4 KiB at a time: a quarter of the time of a large step. So memory is kept for
//! the life of the process, in large pages (docs/performance.md has the figures).
//!
//! Linking this crate makes mimalloc the global allocator; [`keep_memory`] sets it up.

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory and asks for large pages. Call it first in `main`. mimalloc's own variables, such as `MIMALLOC_PURGE_DELAY=10`,
/// take precedence.
#[expect(unsafe_code, reason = "the allocator's settings are C functions")]
pub fn keep_memory() {
    // SAFETY: both set a number in mimalloc's table of options, whose indices they check.
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
        mi_option_set_default(mi_option_large_os_pages, 1);
    }
}

/// The snippets of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
