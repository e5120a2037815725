//! Writing to the terminal.

use std::io::{self, Write};

/// Prints `text` and a newline to standard output.
pub(super) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints `text` and a newline to standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell if this cannot be printed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
