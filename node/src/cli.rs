//! The command line: one file per command. Only here is anything printed to standard output.
//!
//! Exit codes: 0 it worked, 1 it did not, 2 the command line was not understood.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ca::CaError;
use crate::config::Problems;
use crate::state::StateError;

mod agent;
mod ask;
mod ca;
pub(crate) mod client;
mod demo;
mod init;
mod nodes;
mod out;
mod services;
mod status;
mod table;
mod validate;

/// A service mesh with no control plane: one agent per host.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Ca(ca::Ca),
    Agent(agent::Agent),
    Validate(validate::Validate),
    Status(status::Status),
    Nodes(nodes::Nodes),
    Services(services::Services),
    #[command(hide = true)]
    DemoApp(demo::DemoApp),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        // `starling nodes | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&report(&error));
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Init(command) => command.run(),
            Self::Ca(command) => command.run(),
            Self::Agent(command) => command.run(),
            Self::Validate(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Nodes(command) => command.run(),
            Self::Services(command) => command.run(),
            Self::DemoApp(command) => command.run(),
        }
    }
}

/// What went wrong, down to its cause, and what puts it right if the error knows.
fn report(error: &anyhow::Error) -> String {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        return problems.to_string();
    }
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let what = format!("error: {}", causes.join(": "));
    match error.chain().find_map(hint) {
        Some(hint) => format!("{what}\n  hint: {hint}"),
        None => what,
    }
}

fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<StateError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<CaError>() {
        return error.hint();
    }
    error
        .downcast_ref::<client::ClientError>()
        .and_then(client::ClientError::hint)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What the small commands need of tokio.
fn block_on<F: Future>(work: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_is_for() {
        fn check(command: &clap::Command) {
            if command.is_hide_set() {
                return;
            }
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.is_hide_set() || arg.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&command);
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_its_hint() {
        let state = StateError::TooOpen {
            path: "/s".into(),
            mode: 0o755,
        };
        let error = anyhow::Error::new(CaError::State(state)).context("cannot start");
        assert_eq!(
            report(&error),
            "error: cannot start: /s is open to other users (mode 0755)\n  hint: `chmod -R go= /s`"
        );
    }
}
