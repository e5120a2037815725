//! Programs that are not ours, in `tests/peers`: HTTP/3 peers, and apps of protocols that Python speaks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::process::{Process, run};
use crate::program;
use crate::wait::wait_until;

/// The Python that has them installed: `STARLING_PYTHON`, else that of the checkout.
pub fn python() -> PathBuf {
    std::env::var_os("STARLING_PYTHON").map_or_else(
        || program::repository("target/venv/bin/python"),
        PathBuf::from,
    )
}

/// A program that the Python environment brings along, such as `envoy`.
pub fn bundled(name: &str) -> PathBuf {
    python().with_file_name(name)
}

/// A file of `tests/peers`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(name)
}

/// A script of `tests/peers`, to be run on `host`.
pub fn script(host: &Host, name: &str) -> Command {
    let mut command = host.command(python());
    command.arg(file(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script to its end and reads the JSON it prints.
#[track_caller]
pub fn answer(command: Command) -> Value {
    let printed = run(command);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// Starts a script of `tests/peers` that serves on `host` and says on which port.
#[track_caller]
pub fn serve(host: &Host, name: &str, log: &Path) -> (Process, SocketAddr) {
    let mut command = script(host, name);
    command.arg(host.ip().to_string());
    let mut process = Process::spawn(name, command, log);
    let mut port = None;
    wait_until(START, name, || {
        process.check();
        port = process.log().lines().find_map(|line| line.parse().ok());
        port.is_some()
    });
    let port: u16 = port.expect("it was waited for");
    (process, SocketAddr::new(host.ip(), port))
}

/// Python takes a while to import what it needs when the machine is busy.
const START: Duration = Duration::from_secs(30);
