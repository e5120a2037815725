//! Writing to the terminal.

use std::io::{self, Write};

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
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints `text` and a newline to standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell if this cannot be printed.
    let _ = writeln!(io::stderr().lock(), "{}", visible::escape(text));
}
