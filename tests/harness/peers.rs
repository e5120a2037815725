//! HTTP/3 programs that are not ours, in `tests/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::host::Host;
use crate::process::run;
use crate::program;

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
