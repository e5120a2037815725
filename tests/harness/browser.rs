//! Chromium, as people look at the dashboard with it. Scripts of `tests/browser` drive it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::leashed;
use crate::{peers, program};

/// A script of `tests/browser`. Chromium ends with it.
pub fn script(name: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let mut command = leashed(peers::python());
    command
        .arg(file.join(name))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Where pictures of pages go: `target/screenshots`, to be looked at.
pub fn screenshots() -> PathBuf {
    program::repository("target/screenshots")
}

/// Why no script can run here.
pub(crate) fn missing() -> Option<String> {
    if program::find("chromium").is_none() {
        return Some("no chromium on this machine".to_owned());
    }
    let mut import = Command::new(peers::python());
    import.args(["-c", "import playwright, axe_playwright_python"]);
    let imported = import.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can_drive = imported.is_ok_and(|status| status.success());
    (!can_drive).then(|| "no playwright in the Python environment; use ./tests/run".to_owned())
}
