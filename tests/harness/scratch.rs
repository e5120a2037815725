//! A directory for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Removed at the end, but kept when the test fails or `STARLING_KEEP` is set, and then its path is printed.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// An empty directory that other users (PostgreSQL's) may enter. Its path is short enough for unix sockets.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("st-")
            .tempdir()
            .expect("a temporary directory can be made");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        Self(Some(directory))
    }

    pub fn path(&self) -> &Path {
        self.0
            .as_ref()
            .expect("it is there until it is dropped")
            .path()
    }

    /// A new directory in it.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        path
    }

    /// A new file in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).expect("a file can be written");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let is_kept = std::thread::panicking() || std::env::var_os("STARLING_KEEP").is_some();
        if let Some(directory) = self.0.take().filter(|_| is_kept) {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}
