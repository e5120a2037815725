//! Nothing outlives the demo, not even when it is killed.
//!
//! The kernel sends a child SIGTERM when its parent ends. A child asks for that itself, at its start: between fork and
//! exec it could only be done in `unsafe` code, and a pipe to be watched for its end would need a thread in every agent.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Ends this process with `parent`, which must be the process that started it.
pub(crate) fn follow(parent: i32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before we asked.
    if getppid() == Pid::from_raw(parent) {
        return Ok(());
    }
    Err(io::Error::other(
        "the process that started this one has ended",
    ))
}
