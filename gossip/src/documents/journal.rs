//! Names of documents that are in force and could not be written, in a file whose blocks were allocated before the disk was full.
//!
//! Overwriting it needs neither blocks nor inodes, so it works on a full disk. A document named here that is not held at the next
//! start counts as lost: it denies until a peer or an operator gives it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::files::{invalid, parse_line};
use crate::documents::DocumentKey;
use crate::state_file::write_with;

/// The file. Lines as in the index, then zeros.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
    /// What a file is called while it is written.
    unfinished: PathBuf,
}

impl Journal {
    pub(crate) fn new(dir: &Path, unfinished: PathBuf) -> Self {
        let path = dir.join(JOURNAL);
        Self { path, unfinished }
    }

    /// Allocates the file, unless it is there. Holds what was noted before.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let is_ready = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.is_file() && found.len() == BYTES as u64);
        if is_ready {
            return Ok(());
        }
        write_with(&self.unfinished, &self.path, &vec![0; BYTES])
    }

    /// What is noted, by hash. Lines that cannot be read are logged and left out.
    pub(crate) fn read(&self) -> BTreeMap<[u8; 32], (DocumentKey, u64)> {
        let text = match self.text() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "failed to read the journal of documents");
                return BTreeMap::new();
            }
        };
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| {
            let parsed = parse_line(line);
            if parsed.is_none() {
                tracing::error!(file = %self.path.display(), "a line of the journal of documents is broken");
            }
            parsed
        });
        lines.collect()
    }

    /// Adds `lines`, those that are not there yet and as many as fit; the first ones first. Returns how many did not fit. They are
    /// on disk when it returns.
    pub(crate) fn note(&self, lines: &[String]) -> io::Result<usize> {
        let text = self.text()?;
        let noted = String::from_utf8_lossy(&text);
        let noted: BTreeSet<&str> = noted.lines().collect();
        let new = lines.iter().filter(|line| !noted.contains(line.as_str()));
        let mut added = Vec::new();
        let mut left_out = 0;
        for line in new {
            // A zero stays behind the last line.
            match text.len() + added.len() + line.len() + 1 < BYTES {
                true => added.extend_from_slice(format!("{line}\n").as_bytes()),
                false => left_out += 1,
            }
        }
        if !added.is_empty() {
            self.overwrite(text.len(), &added)?;
        }
        Ok(left_out)
    }

    /// Forgets what is noted.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match self.text() {
            Ok(text) if text.is_empty() => Ok(()),
            Ok(text) => self.overwrite(0, &vec![0; text.len()]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What stands before the first zero.
    fn text(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open(&self.path)?
            .take(BYTES as u64)
            .read_to_end(&mut bytes)?;
        let end = bytes.iter().position(|byte| *byte == 0);
        bytes.truncate(end.unwrap_or(bytes.len()));
        Ok(bytes)
    }

    fn overwrite(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut file = open(&self.path)?;
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(bytes)?;
        file.sync_data()
    }
}

/// Opens a regular file that is there; links are not followed.
fn open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    OpenOptions::new().read(true).write(true).open(path)
}

const JOURNAL: &str = "journal";

/// Room for some 8,000 documents of usual names, and for 4,700 with the longest.
const BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> String {
        format!("policy/p{n} {n} {n:064x}")
    }

    fn journal(dir: &Path) -> Journal {
        Journal::new(dir, dir.join("unfinished"))
    }

    #[test]
    fn what_is_noted_reads_back_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        assert!(journal.note(&[line(1)]).is_err(), "it is not allocated");
        journal.prepare().unwrap();
        assert!(journal.read().is_empty());
        assert_eq!(journal.note(&[line(1), line(2)]).unwrap(), 0);
        // Twice is once.
        assert_eq!(journal.note(&[line(2), line(3)]).unwrap(), 0);
        journal.prepare().unwrap();
        let revisions: Vec<_> = journal.read().into_values().map(|(_, at)| at).collect();
        assert_eq!(revisions, [1, 2, 3]);
        journal.clear().unwrap();
        assert!(journal.read().is_empty());
        let length = fs::metadata(dir.path().join(JOURNAL)).unwrap().len();
        assert_eq!(length, BYTES as u64, "its blocks stay allocated");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        journal.prepare().unwrap();
        let lines: Vec<_> = (0..20_000).map(line).collect();
        let left_out = journal.note(&lines).unwrap();
        let noted = journal.read().len();
        assert_eq!(noted + left_out, lines.len());
        assert!(noted > 8_000, "{noted}");
        assert_eq!(journal.note(&lines).unwrap(), left_out);
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        journal.prepare().unwrap();
        journal.note(&[line(1)]).unwrap();
        journal
            .overwrite(line(1).len() + 1, b"policy/p2 2 00")
            .unwrap();
        assert_eq!(journal.read().len(), 1);
    }
}
