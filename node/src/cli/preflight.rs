//! `starling preflight`, hidden: the child in which an agent reads documents before it reads them itself.

use std::process::ExitCode;

use clap::Args;

use crate::documents::preflight;

/// Check documents that an agent writes to standard input
#[derive(Debug, Args)]
pub(super) struct Preflight {
    /// The agent's process
    #[arg(long, value_name = "PID")]
    parent: i32,
}

impl Preflight {
    pub(super) fn run(&self) -> ExitCode {
        preflight::run_child(self.parent)
    }
}
