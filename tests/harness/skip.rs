//! Tests that cannot run say so, and `.ci/run` fails on any that did not.

use std::fs::OpenOptions;
use std::io::Write;

use crate::{browser, peers, program};

/// What a test cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// For network namespaces and for becoming another user.
    Root,
    /// The release build of the agent.
    Agent,
    /// The Python environment with HTTP/3 peers.
    Python,
    /// Chromium, and what drives it.
    Browser,
    /// A program in PATH.
    Program(&'static str),
}

/// Leaves the test with `skipped: why` unless all that it needs is there.
#[macro_export]
macro_rules! need {
    ($($need:expr),+ $(,)?) => {
        if let Some(why) = $crate::skip::missing(&[$($need),+]) {
            $crate::skip::tell(&why);
            return;
        }
    };
}

/// The first need that is not met, as a reason.
pub fn missing(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| need.missing())
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "takes root".to_owned()),
            Self::Agent => (!program::agent().is_file()).then(|| {
                "no release build of the agent; use ./tests/run or `cargo build --release`"
                    .to_owned()
            }),
            Self::Python => (!peers::python().is_file())
                .then(|| "no Python environment; use ./tests/run".to_owned()),
            Self::Browser => browser::missing(),
            Self::Program(name) => program::find(name)
                .is_none()
                .then(|| format!("no {name} on this machine")),
        }
    }
}

/// Prints the reason past the test runner, which hides what passing tests print, and notes it for the end of the run.
pub fn tell(why: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    // A note that cannot be written must not fail what could not run anyway.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("STARLING_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
