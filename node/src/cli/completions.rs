//! `starling completions` and `starling man`: what shells and `man` read, made from the command line itself.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print completions of this command line for a shell
///
/// For bash: `starling completions bash > /usr/share/bash-completion/completions/starling`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

/// Write manual pages, one for each command
///
/// As root: `starling man --out /usr/local/share/man/man1`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// An existing directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "starling", &mut text);
        match io::stdout().write_all(&text) {
            // Whoever reads has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write"),
        }
    }
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<()> {
        clap_mangen::generate_to(Cli::command(), &self.out)
            .with_context(|| format!("cannot write to {}", self.out.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().to_owned();
        Man { out }.run().unwrap();
        let mut completed = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "starling", &mut completed);
        let completed = String::from_utf8(completed).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            if command.is_hide_set() {
                continue;
            }
            let page = dir.path().join(format!("starling-{name}.1"));
            assert!(page.exists(), "{name}");
            assert!(completed.contains(&format!("starling,{name})")), "{name}");
        }
    }
}
