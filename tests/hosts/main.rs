//! Hosts that are network namespaces: what crosses a wire, what happens when one is cut, and what a host's end costs.

mod check;
mod churn;
mod discovery;
mod enrolment;
mod lines;
mod partition;
mod quickstart;
mod secrecy;
mod stories;
mod talks;

use std::path::Path;
use std::time::Duration;

use harness::process::Process;
use harness::{Host, program};

/// Within this, every agent knows of a change: the promise of the mesh.
const SEEN: Duration = Duration::from_secs(2);
/// For what only has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Agents share this machine's files, so each gets a `/run` of its own for the admin socket.
pub(crate) fn agent(host: &Host, example: &Path, state: &str, logs: &Path) -> Process {
    let mut command = host.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"",
    ]);
    command
        .arg(program::agent())
        .args(["agent", "--state", state, "--config"])
        .arg(example.join(host.name()));
    let log = logs.join(format!("{}.log", host.name()));
    Process::spawn(host.name(), command, &log)
}
