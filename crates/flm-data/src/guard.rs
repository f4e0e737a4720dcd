//! Guards against parsers of other crates that panic on damaged files.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

static QUIET_HOOK: Once = Once::new();

thread_local! {
    /// Whether a panic of this thread is caught and must not be printed.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a parser and returns `None` if it panics. Such a panic means a damaged file, not a bug in
/// this program, so it prints nothing. Values that the parser left half modified must not be used
/// again.
pub(crate) fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    QUIET_HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                loud(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(parse));
    IS_GUARDED.set(false);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Output is only visible from outside, so the test runs itself again in a separate process.
    #[test]
    fn a_panic_that_is_caught_is_silent() {
        const INSIDE: &str = "FLM_TEST_PANICS";
        if std::env::var_os(INSIDE).is_some() {
            assert_eq!(guarded::<()>(|| panic!("a footer asserts")), None);
            catch_unwind(|| panic!("a real one")).unwrap_err();
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "a_panic_that_is_caught_is_silent"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("a real one"), "{printed}");
        assert!(!printed.contains("a footer asserts"), "{printed}");
    }
}
