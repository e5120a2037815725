//! What the preflight found of each revision, remembered over restarts.
//!
//! A revision counts as checked only by the build that checked it: a parser of another build may fail where this one does not.
//! So after an upgrade everything is checked again, in a child process first, what was held back included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use starling_gossip::Documents;
use starling_gossip::documents::system::{from_hex, hex};

use super::preflight::Evidence;
use crate::policy::ServiceSet;
use crate::state::{StateDir, StateError};

/// SHA-256 of what the operator signed.
pub(super) type Hash = [u8; 32];

/// Whether a revision may be read by the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clearance {
    Cleared,
    /// A process of this build ended while it read or tried it, twice.
    Held {
        evidence: Evidence,
        coverage: ServiceSet,
    },
    /// Not decided yet. What it covers is known if an earlier build or the check that is under way said so.
    Pending {
        coverage: ServiceSet,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Cleared,
    /// Read by the agent itself, as there was no child process. Not remembered over a restart.
    Unsandboxed,
    Held {
        build: String,
        evidence: Evidence,
        coverage: ServiceSet,
    },
}

/// The clearances of the revisions that this node holds.
#[derive(Debug)]
pub(super) struct Clearances {
    build: String,
    entries: BTreeMap<Hash, Entry>,
    /// What a check said before it ended.
    reported: BTreeMap<Hash, ServiceSet>,
    is_changed: bool,
}

impl Clearances {
    /// Reads the file. One that is missing or broken, or was written by another build, clears nothing: all is checked again.
    pub(super) fn open(state: &StateDir, build: &str) -> Self {
        let none = Self {
            build: build.to_owned(),
            entries: BTreeMap::new(),
            reported: BTreeMap::new(),
            is_changed: false,
        };
        let text = match state.read(FILE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(StateError::Missing { .. }) => return none,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    error = format!("{error:#}"),
                    "document clearances cannot be read; all documents are checked again"
                );
                return none;
            }
        };
        match parse(&text, build) {
            Some(entries) => Self { entries, ..none },
            None => {
                tracing::error!(
                    file = FILE,
                    "the file of document clearances is broken; all documents are checked again"
                );
                none
            }
        }
    }

    pub(super) fn of(&self, hash: &Hash) -> Clearance {
        match self.entries.get(hash) {
            Some(Entry::Cleared | Entry::Unsandboxed) => Clearance::Cleared,
            Some(Entry::Held {
                build,
                evidence,
                coverage,
            }) if *build == self.build => Clearance::Held {
                evidence: *evidence,
                coverage: coverage.clone(),
            },
            Some(Entry::Held { coverage, .. }) => Clearance::Pending {
                coverage: coverage.clone(),
            },
            None => Clearance::Pending {
                coverage: self.reported.get(hash).cloned().unwrap_or(ServiceSet::All),
            },
        }
    }

    pub(super) fn clear(&mut self, hash: Hash) {
        self.set(hash, Entry::Cleared);
    }

    pub(super) fn clear_unsandboxed(&mut self, hash: Hash) {
        self.set(hash, Entry::Unsandboxed);
    }

    /// Holds it back until another build tries it again.
    pub(super) fn hold(&mut self, hash: Hash, evidence: Evidence) {
        let coverage = self.reported.get(&hash).cloned().unwrap_or(ServiceSet::All);
        let build = self.build.clone();
        let entry = Entry::Held {
            build,
            evidence,
            coverage,
        };
        self.set(hash, entry);
    }

    /// A check that has not ended said what the policy is about.
    pub(super) fn report(&mut self, hash: Hash, coverage: ServiceSet) {
        self.reported.insert(hash, coverage);
    }

    /// Forgets what is no longer held.
    pub(super) fn keep_only(&mut self, documents: &Documents) {
        let held = documents.entries.values();
        let held: BTreeSet<Hash> = held
            .flat_map(|document| document.revisions())
            .map(|revision| revision.hash)
            .collect();
        let before = self.entries.len();
        self.entries.retain(|hash, _| held.contains(hash));
        self.reported.retain(|hash, _| held.contains(hash));
        self.is_changed |= self.entries.len() != before;
    }

    /// The text of the file if it changed since it was last asked for.
    pub(super) fn changed_text(&mut self) -> Option<String> {
        std::mem::take(&mut self.is_changed).then(|| self.to_text())
    }

    fn to_text(&self) -> String {
        let mut text = format!("build {}\n", self.build);
        for (hash, entry) in &self.entries {
            let hash = hex(hash);
            // Writing to a `String` does not fail.
            let _ = match entry {
                Entry::Cleared => writeln!(text, "cleared {hash}"),
                Entry::Unsandboxed => Ok(()),
                Entry::Held {
                    build,
                    evidence,
                    coverage,
                } => writeln!(text, "held {hash} {build} {evidence} {coverage}"),
            };
        }
        text
    }

    fn set(&mut self, hash: Hash, entry: Entry) {
        self.is_changed |= self.entries.get(&hash) != Some(&entry);
        self.entries.insert(hash, entry);
        self.reported.remove(&hash);
    }
}

fn parse(text: &str, build: &str) -> Option<BTreeMap<Hash, Entry>> {
    let mut lines = text.lines();
    let is_ours = lines.next()?.strip_prefix("build ")? == build;
    let mut entries = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["cleared", hash] => {
                let hash = from_hex(hash)?;
                if is_ours {
                    entries.insert(hash, Entry::Cleared);
                }
            }
            ["held", hash, build, evidence, coverage] => {
                let entry = Entry::Held {
                    build: build.to_owned(),
                    evidence: evidence.parse().ok()?,
                    coverage: coverage.parse().ok()?,
                };
                entries.insert(from_hex(hash)?, entry);
            }
            _ => return None,
        }
    }
    Some(entries)
}

/// What tells this program from other builds, also from those of the same version: its size, and when it was installed.
pub(super) fn build() -> String {
    use std::os::unix::fs::MetadataExt;
    let version = env!("CARGO_PKG_VERSION");
    match std::fs::metadata("/proc/self/exe") {
        Ok(file) => format!(
            "{version}+{:x}.{:x}.{:x}",
            file.size(),
            file.mtime(),
            file.mtime_nsec()
        ),
        Err(_unknown) => version.to_owned(),
    }
}

/// Beside the documents.
pub(super) const FILE: &str = "documents/clearance";

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn written_by(build: &str, state: &StateDir) {
        let mut one = Clearances::open(state, build);
        one.clear([1; 32]);
        one.report([2; 32], "=orders".parse().unwrap());
        one.hold([2; 32], Evidence::Segv);
        one.clear_unsandboxed([3; 32]);
        let text = one.changed_text().unwrap();
        assert_eq!(one.changed_text(), None);
        state.write(FILE, text.as_bytes()).unwrap();
    }

    fn pending(coverage: &str) -> Clearance {
        Clearance::Pending {
            coverage: coverage.parse().unwrap(),
        }
    }

    #[test]
    fn a_clearance_counts_for_the_build_that_gave_it() {
        let (_dir, state) = state();
        written_by("b1", &state);
        let same = Clearances::open(&state, "b1");
        assert_eq!(same.of(&[1; 32]), Clearance::Cleared);
        let held = Clearance::Held {
            evidence: Evidence::Segv,
            coverage: "=orders".parse().unwrap(),
        };
        assert_eq!(same.of(&[2; 32]), held);
        assert_eq!(same.of(&[3; 32]), pending("*"));
        let other = Clearances::open(&state, "b2");
        assert_eq!(other.of(&[1; 32]), pending("*"));
        assert_eq!(other.of(&[2; 32]), pending("=orders"));
    }

    #[test]
    fn a_broken_file_clears_nothing() {
        let (_dir, state) = state();
        for broken in [
            "",
            "nonsense",
            "build b1\nheld 12",
            "build b1\ncleared zz\n",
        ] {
            state.write(FILE, broken.as_bytes()).unwrap();
            assert_eq!(Clearances::open(&state, "b1").of(&[1; 32]), pending("*"));
        }
    }
}
