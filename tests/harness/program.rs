//! Where programs are.

use std::env;
use std::path::{Path, PathBuf};

/// The agent under test: `STARLING_BIN`, else the release build beside this test's own build.
pub fn agent() -> PathBuf {
    if let Some(path) = env::var_os("STARLING_BIN") {
        return path.into();
    }
    let own = env::current_exe().expect("a running program has a path");
    // <target>/<profile>/deps/<test>
    let target = own
        .ancestors()
        .nth(3)
        .expect("cargo puts tests three levels down");
    target.join("release/starling")
}

/// The file called `name` in PATH or where Debian keeps what only root or a server's own wrapper runs.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .chain(postgres())
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// The same for a program that was asked for with [`crate::need!`].
pub fn path(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("no {name} on this machine"))
}

/// A file of the checkout.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `/usr/lib/postgresql/<version>/bin`, newest first.
fn postgres() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.reverse();
    found
}
