//! Documents on disk: a file for each with its revisions, and an index that tells which there have to be.
//!
//! A file that is broken is put aside and counts as lost: that it existed stays known from the index, so that a node cannot be
//! brought to forget a denial by spoiling a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Checker, Document, DocumentKey, Documents, Revision};
use crate::metrics::Refusal;
use crate::state_file::write_atomically;
use crate::wire::Blob;
use crate::wire::document::{KEPT_BYTES_MAX, Kept};

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// Reads everything. What cannot be used is put aside and told; only a directory that cannot be listed is an error.
    pub(crate) fn load(&self, checker: &Checker) -> io::Result<Documents> {
        let mut documents = Documents::default();
        for (key, path) in self.list()? {
            match read(&key, &path, checker) {
                Ok(revisions) => {
                    for revision in revisions {
                        // What was taken in once has a place, whatever the limits are today.
                        let _ = documents.insert(Arc::new(revision), usize::MAX >> 32);
                    }
                }
                Err(error) => set_aside(&path, &error),
            }
        }
        for (key, revision) in self.index() {
            if documents.newest_revision(&key) < revision {
                tracing::error!(document = %key, revision, "document lost here; peers are asked for it");
                documents.lost.insert(key, revision);
            }
        }
        Ok(documents)
    }

    /// Writes the files of `changed` as `documents` has them, and the index.
    pub(crate) fn save(&self, documents: &Documents, changed: &[DocumentKey]) -> io::Result<()> {
        for key in changed {
            let path = self.dir.join(file_name(key));
            match documents.get(key) {
                Some(document) => write_atomically(&path, &keep(document).encode())?,
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        write_atomically(&self.dir.join(INDEX), index_text(documents).as_bytes())
    }

    fn list(&self) -> io::Result<Vec<(DocumentKey, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)?.take(FILES_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(key) = name.to_str().and_then(key_of) {
                files.push((key, entry.path()));
            }
        }
        Ok(files)
    }

    /// What there has to be. A broken index is put aside: then the files are all that is known.
    fn index(&self) -> BTreeMap<DocumentKey, u64> {
        let path = self.dir.join(INDEX);
        let text = read_bounded(&path, INDEX_BYTES_MAX)
            .and_then(|bytes| String::from_utf8(bytes).map_err(invalid));
        let parsed = text.and_then(|text| {
            let lines = text
                .lines()
                .map(|line| parse_line(line).ok_or_else(|| invalid("line")));
            lines.collect::<io::Result<_>>()
        });
        match parsed {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                set_aside(&path, &error);
                BTreeMap::new()
            }
        }
    }
}

/// Reads the file of one document; everything in it has to hold.
fn read(key: &DocumentKey, path: &Path, checker: &Checker) -> io::Result<Vec<Revision>> {
    let bytes = read_bounded(path, KEPT_BYTES_MAX as u64)?;
    let kept = Kept::decode(&bytes).map_err(|refusal| invalid(refusal.reason()))?;
    if kept.revisions.is_empty() {
        return Err(invalid("it is empty"));
    }
    let mut revisions = Vec::new();
    for (heard_at, Blob(bytes)) in kept.revisions {
        match checker.check_proof(&bytes, heard_at) {
            Ok(revision) if revision.key == *key => revisions.push(revision),
            Ok(other) => return Err(invalid(format!("it holds {}", other.key))),
            Err(Refusal::Revoked) => {}
            Err(refusal) => return Err(invalid(refusal.reason())),
        }
    }
    Ok(revisions)
}

fn keep(document: &Document) -> Kept {
    let revisions = document.revisions().iter();
    let revisions = revisions.map(|held| (held.heard_at, Blob(held.bytes.to_vec())));
    Kept {
        revisions: revisions.collect(),
    }
}

/// Puts a file that cannot be used beside itself, in place of the one put there before.
fn set_aside(path: &Path, error: &io::Error) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".broken");
    let moved = fs::rename(path, &aside);
    tracing::error!(
        file = %path.display(),
        %error,
        set_aside = moved.is_ok(),
        "a file of documents is broken"
    );
}

/// Reads a regular file; links are not followed.
fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

fn index_text(documents: &Documents) -> String {
    let held = documents.entries.keys();
    let keys: std::collections::BTreeSet<_> = held.chain(documents.lost.keys()).collect();
    let lines = keys
        .into_iter()
        .map(|key| format!("{key} {}\n", documents.newest_revision(key)));
    lines.collect()
}

fn parse_line(line: &str) -> Option<(DocumentKey, u64)> {
    let (key, revision) = line.split_once(' ')?;
    Some((key.parse().ok()?, revision.parse().ok()?))
}

/// Neither part of a key holds an `@`.
fn file_name(key: &DocumentKey) -> String {
    format!("{}@{}", key.kind, key.name)
}

fn key_of(file_name: &str) -> Option<DocumentKey> {
    file_name.replacen('@', "/", 1).parse().ok()
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const INDEX: &str = "index";

/// 2,048 lines of at most 150 characters.
const INDEX_BYTES_MAX: u64 = 512 * 1024;

/// Entries of the directory that are looked at: as many documents as there may be, each with one set aside.
const FILES_MAX: usize = 3 * 2048;
