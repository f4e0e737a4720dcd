//! Ctrl-C as a flag that long work looks at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

/// Within this a second signal is the first one's echo: `timeout` sends one to its child and one to its group.
const ECHO: Duration = Duration::from_secs(1);

/// Makes Ctrl-C (and a polite kill) set the flag; a second one, a second later, ends the program at once.
pub(crate) fn listen() {
    let mut first = None;
    // Without a handler the signal ends the program, as it would anyway.
    let _ = ctrlc::set_handler(move || {
        STOP.store(true, Ordering::Relaxed);
        if first.get_or_insert_with(Instant::now).elapsed() > ECHO {
            // exit() unloads CUDA's driver under CubeCL's thread, whose panic says nothing to the user.
            std::panic::set_hook(Box::new(|_| {}));
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
