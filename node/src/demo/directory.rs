//! Where the demo writes: a temporary directory that goes away with it, or one that the operator named and keeps.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Dropping it removes a temporary one.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    /// `keep` must be empty or not there yet: nothing of the operator's is mixed with the demo's.
    pub(super) fn open(keep: Option<&Path>) -> anyhow::Result<Self> {
        let Some(keep) = keep else {
            return Self::temporary();
        };
        let path = std::path::absolute(keep)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let mut entries =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            entries.next().is_none(),
            "{} is not empty; the demo wants a directory of its own",
            path.display()
        );
        Self { path, kept: true }.checked()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    fn temporary() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        for _ in 0..TRIES {
            let path = parent.join(format!("starling-demo-{:06x}", fastrand::u32(..1 << 24)));
            // Not recursive: it must not be there yet, so that nobody else prepared it.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self { path, kept: false }.checked(),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()));
                }
            }
        }
        anyhow::bail!("cannot find a free name in {}", parent.display())
    }

    fn checked(self) -> anyhow::Result<Self> {
        let length = self.path.as_os_str().len();
        ensure!(
            length <= PATH_BYTES_MAX,
            "{} is too long for the path of a unix socket; choose a shorter --dir",
            self.path.display()
        );
        Ok(self)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody is left to tell; it lies in a directory that is cleaned anyway.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

const TRIES: usize = 16;

/// A unix socket's path has at most 107 bytes; `/n1/admin.sock` takes 14 of them.
const PATH_BYTES_MAX: usize = 93;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_away() {
        let directory = Directory::open(None).unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_named_directory_is_empty_at_first_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        drop(Directory::open(Some(&path)).unwrap());
        assert!(path.is_dir());
        fs::write(path.join("mine"), "x").unwrap();
        assert!(
            Directory::open(Some(&path))
                .unwrap_err()
                .to_string()
                .contains("not empty")
        );
        let long = parent.path().join("x".repeat(100));
        assert!(
            Directory::open(Some(&long))
                .unwrap_err()
                .to_string()
                .contains("too long")
        );
    }
}
