//! Ctrl-C as a flag that long work polls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

/// A second signal within this time is an echo of the first: `timeout` signals both its child and
/// its group.
const ECHO: Duration = Duration::from_secs(1);

/// Makes Ctrl-C and SIGTERM set the flag. A second signal after [`ECHO`] ends the program at once.
pub(crate) fn listen() {
    let mut first = None;
    // If no handler can be installed, the signal ends the program.
    let _ = ctrlc::set_handler(move || {
        STOP.store(true, Ordering::Relaxed);
        if first.get_or_insert_with(Instant::now).elapsed() > ECHO {
            // `exit` unloads the CUDA driver under CubeCL's thread; its panic message is
            // suppressed.
            std::panic::set_hook(Box::new(|_| {}));
            std::process::exit(130);
        }
    });
}

/// Sets the flag.
pub(crate) fn ask() {
    STOP.store(true, Ordering::Relaxed);
}

/// Returns the flag.
pub(crate) fn flag() -> &'static AtomicBool {
    &STOP
}

/// Whether a stop was requested.
pub(crate) fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}
