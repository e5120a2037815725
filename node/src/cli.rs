//! The command line: one file per command. Only here is anything printed to standard output.
//!
//! Exit codes: 0 it worked, 1 it did not, 2 the command line was not understood, 3 `explain` found a call denied or `check`
//! an error, 4 `check` found warnings only.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::admin::SocketError;
use crate::ca::CaError;
use crate::config::Problems;
use crate::enrol::JoinFailed;
use crate::operator::OperatorError;
use crate::renewal::Ended;
use crate::state::StateError;

mod agent;
mod apply;
mod ask;
mod ca;
mod chain;
mod check;
pub(crate) mod client;
mod completions;
mod delete;
mod demo;
mod diff;
mod doubts;
mod edges;
mod explain;
mod get;
mod history;
mod init;
mod invite;
mod join;
mod judge;
mod leave;
mod login;
mod merge;
mod nodes;
mod operator;
mod operator_key;
mod out;
mod preflight;
mod revoke;
mod rollback;
mod root_revocation;
mod routes;
mod services;
mod sign;
mod signed;
mod starter;
mod status;
mod table;
mod tap;
mod top;
mod units;
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
    Invite(invite::Invite),
    Join(join::Join),
    Leave(leave::Leave),
    Ca(ca::Ca),
    Agent(agent::Agent),
    Validate(validate::Validate),
    Check(check::Check),
    Status(status::Status),
    Nodes(nodes::Nodes),
    Services(services::Services),
    Edges(edges::Edges),
    Top(top::Top),
    Routes(routes::Routes),
    Explain(explain::Explain),
    Tap(tap::Tap),
    Login(login::Login),
    #[command(hide = true)]
    Judge(judge::Judge),
    Operator(operator::Operator),
    Apply(apply::Apply),
    Get(get::Get),
    Delete(delete::Delete),
    History(history::History),
    Rollback(rollback::Rollback),
    Revoke(revoke::Revoke),
    Decommission(revoke::Decommission),
    Completions(completions::Completions),
    Man(completions::Man),
    #[command(hide = true)]
    DemoApp(demo::DemoApp),
    #[command(hide = true)]
    Preflight(preflight::Preflight),
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
    if let Command::Preflight(command) = &cli.command {
        return command.run();
    }
    match protect(&cli.command).and_then(|()| cli.command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        // `starling nodes | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<explain::Denied>() => ExitCode::from(3),
        Err(error) if error.is::<check::Found>() => check::code(&error),
        Err(error) => {
            out::complain(&report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Private keys are in memory from here on: no core dumps, and no other process of this user looks in.
fn protect(command: &Command) -> anyhow::Result<()> {
    if !command.holds_keys() {
        return Ok(());
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot protect the memory of this process")
}

impl Command {
    /// Whether it reads or makes private keys, or tokens.
    fn holds_keys(&self) -> bool {
        match self {
            Self::Init(_)
            | Self::Invite(_)
            | Self::Join(_)
            | Self::Ca(_)
            | Self::Agent(_)
            | Self::Tap(_)
            | Self::Login(_)
            | Self::Operator(_)
            | Self::Apply(_)
            | Self::Delete(_)
            | Self::Rollback(_)
            | Self::Revoke(_)
            | Self::Decommission(_) => true,
            Self::Demo(_)
            | Self::Leave(_)
            | Self::Validate(_)
            | Self::Check(_)
            | Self::Status(_)
            | Self::Nodes(_)
            | Self::Services(_)
            | Self::Edges(_)
            | Self::Top(_)
            | Self::Routes(_)
            | Self::Explain(_)
            | Self::Judge(_)
            | Self::Get(_)
            | Self::History(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::DemoApp(_)
            | Self::Preflight(_) => false,
        }
    }

    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Init(command) => command.run(),
            Self::Invite(command) => command.run(),
            Self::Join(command) => command.run(),
            Self::Leave(command) => command.run(),
            Self::Ca(command) => command.run(),
            Self::Agent(command) => command.run(),
            Self::Validate(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Nodes(command) => command.run(),
            Self::Services(command) => command.run(),
            Self::Edges(command) => command.run(),
            Self::Top(command) => command.run(),
            Self::Routes(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Tap(command) => command.run(),
            Self::Login(command) => command.run(),
            Self::Judge(command) => command.run(),
            Self::Operator(command) => command.run(),
            Self::Apply(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::History(command) => command.run(),
            Self::Rollback(command) => command.run(),
            Self::Revoke(command) => command.run(),
            Self::Decommission(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
            Self::DemoApp(command) => command.run(),
            Self::Preflight(_) => unreachable!("its exit code is its answer"),
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
    if let Some(error) = error.downcast_ref::<SocketError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<CaError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<OperatorError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<sign::NoKey>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<sign::NotAllowed>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<invite::OwnInvitation>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<Ended>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<JoinFailed>() {
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

/// Lets time pass. Parking the thread may return at once.
fn pause(time: Duration) -> io::Result<()> {
    block_on(async move { tokio::time::sleep(time).await })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;
    use crate::state::StateDir;

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

    /// Runs a command line and tells what an operator would read on an error.
    fn run(line: &str, dir: &Path) -> Result<(), String> {
        let words = line.replace("DIR", &dir.display().to_string());
        let cli = Cli::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
        cli.command
            .run()
            .map_err(|error| report(&error).replace(&dir.display().to_string(), "DIR"))
    }

    #[test]
    fn a_mesh_begins_and_a_second_host_gets_its_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let run = |line: &str| run(line, dir.path());
        run("starling init --trust-domain example.org --node n1 --service web --state DIR/n1")
            .unwrap();
        run(
            "starling ca issue --node n2 --service orders --service db --state DIR/n1 --out DIR/n2",
        )
        .unwrap();
        run("starling ca issue --node n1 --service web --state DIR/n1 --out DIR/n1 --lifetime 7d")
            .unwrap();
        for (name, services) in [("n1", 1), ("n2", 2)] {
            let set = StateDir::open(&dir.path().join(name))
                .unwrap()
                .identities()
                .unwrap();
            assert_eq!(
                (set.node.id().node_name(), set.services.len()),
                (Some(name), services)
            );
        }
        assert_eq!(
            run("starling init --trust-domain example.org --node n1 --state DIR/n2").unwrap_err(),
            "error: DIR/n2/trust.pem exists already\n  \
             hint: this host has an identity already; use another --state, or move the old directory away first"
        );
        assert_eq!(
            run("starling ca issue --node n3 --state DIR/n2 --out DIR/n3").unwrap_err(),
            "error: DIR/n2 holds no CA\n  \
             hint: run this on the host where `starling init` was run, or name its state directory with --state"
        );
    }

    #[test]
    fn nothing_is_written_for_a_command_that_cannot_work() {
        let dir = tempfile::tempdir().unwrap();
        for line in [
            "starling init --trust-domain Example.org --node n1 --state DIR/x",
            "starling init --trust-domain example.org --node N1 --state DIR/x",
            "starling init --trust-domain example.org --node n1 --service ../a --state DIR/x",
            "starling init --trust-domain example.org --node n1 --lifetime 2y --state DIR/x",
            "starling ca issue --node n2 --out DIR/x --state DIR/nowhere",
        ] {
            run(line, dir.path()).expect_err(line);
            assert!(!dir.path().join("x").exists(), "{line}");
        }
    }

    #[test]
    fn an_agent_does_not_start_on_what_it_should_not_trust() {
        let dir = tempfile::tempdir().unwrap();
        let run = |line: &str| run(line, dir.path());
        std::fs::create_dir(dir.path().join("config")).unwrap();
        let missing = run("starling agent --config DIR/config --state DIR/state").unwrap_err();
        assert!(
            missing.starts_with("error: DIR/state does not exist\n  hint: `starling init"),
            "{missing}"
        );
        let no_config = run("starling agent --config DIR/nowhere --state DIR/state").unwrap_err();
        assert!(
            no_config.starts_with("error: DIR/nowhere: cannot be read"),
            "{no_config}"
        );
    }

    #[test]
    fn validate_tells_of_every_path_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let run = |line: &str| run(line, dir.path());
        std::fs::write(dir.path().join("good.toml"), "zone = \"a\"").unwrap();
        std::fs::write(dir.path().join("bad.toml"), "zoen = \"a\"").unwrap();
        run("starling validate DIR/good.toml").unwrap();
        run("starling validate DIR").unwrap();
        assert_eq!(
            run("starling validate DIR/bad.toml DIR/good.toml DIR/nowhere.toml").unwrap_err(),
            "error: DIR/bad.toml:1: unknown key `zoen`\n  hint: did you mean `zone`?\n\
             error: DIR/nowhere.toml: cannot be read: No such file or directory (os error 2)"
        );
    }
}
