//! Noticing that files changed, by polling.
//!
//! A poll every second costs one `stat` per file, needs no kernel watch that can overflow, and sees a replaced file
//! just as well as a rewritten one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a set of files looked like at one moment. Two are equal when no file came, went, or was written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<Stat>)>);

/// The times are those of content and of inode: a rename or chmod shows in the second only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Looks at `paths` now. A file that is missing or cannot be looked at is remembered as such.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut stats: Vec<_> = paths
            .into_iter()
            .map(|path| (Stat::of(&path), path))
            .map(|(s, p)| (p, s))
            .collect();
        stats.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self(stats)
    }
}

impl Stat {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The files in `directory` whose names do not start with a dot; none if it cannot be listed.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            !path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        })
        .collect()
}
