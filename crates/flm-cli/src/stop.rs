//! Ctrl-C as a flag that long work looks at.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C (and a polite kill) set the flag; a second one ends the program at once.
pub(crate) fn listen() {
    // Without a handler the signal ends the program, as it would anyway.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
}

/// The flag.
pub(crate) fn flag() -> &'static AtomicBool {
    &STOP
}

/// Whether somebody asked to stop.
pub(crate) fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}
