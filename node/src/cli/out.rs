//! Writing to the terminal. A reader who goes away, as `head` does, ends no command in the middle of its work.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::visible;

/// Prints `text` and a newline to standard output. What is invisible in it is shown as an escape: texts, names and reasons are
/// others'.
pub(super) fn say(text: &str) -> io::Result<()> {
    print(&visible::escape(text))
}

/// The same for JSON.
pub(super) fn say_json(json: &str) -> io::Result<()> {
    print(&visible::escape_json(json))
}

/// Prints codes that steer the terminal, and a newline.
pub(super) fn steer(codes: &'static str) -> io::Result<()> {
    print(codes)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            IS_CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        printed => printed,
    }
}

/// Whether nobody reads standard output any more. A command that only prints ends then.
pub(super) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints `text` and a newline to standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell if this cannot be printed.
    let _ = writeln!(io::stderr().lock(), "{}", visible::escape(text));
}
