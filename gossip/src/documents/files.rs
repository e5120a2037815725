//! Documents on disk: a file for each packet, and an index that tells which revisions have to have an effect.
//!
//! A file that is broken is put aside, and what it held counts as lost: that it existed stays known from the index, so that a node
//! cannot be brought to forget a denial by spoiling a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::revision::Packet;
use super::system::{from_hex, hex};
use super::{Checker, DocumentKey, Documents, Revision};
use crate::state_file::write_atomically;
use crate::wire::Blob;
use crate::wire::document::{KEPT_BYTES_MAX, Kept};

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
}

/// What the files held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) revisions: Vec<Arc<Revision>>,
    /// What has to be there by the index and is not, by hash.
    pub(crate) lost: BTreeMap<[u8; 32], (DocumentKey, u64)>,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// Reads everything. What cannot be used is put aside and logged; only a directory that cannot be listed is an error.
    pub(crate) fn load(&self, checker: &Checker) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        for (hash, path) in self.list()? {
            match read(&hash, &path, checker) {
                Ok(revisions) => loaded.revisions.extend(revisions),
                Err(error) => set_aside(&path, &error),
            }
        }
        let held: BTreeSet<[u8; 32]> = loaded.revisions.iter().map(|held| held.hash).collect();
        for (hash, (key, revision)) in self.index() {
            if !held.contains(&hash) {
                tracing::error!(document = %key, revision, "document lost here; peers are asked for it");
                loaded.lost.insert(hash, (key, revision));
            }
        }
        Ok(loaded)
    }

    /// Brings the directory to what `documents` holds: new packets first, then the index, and what is not held any more last, so
    /// that a crash in between leaves too much and never too little.
    pub(crate) fn save(&self, documents: &Documents) -> io::Result<()> {
        let mut there: BTreeMap<[u8; 32], PathBuf> = self.list()?.into_iter().collect();
        let mut wanted = BTreeSet::new();
        for revision in documents.all() {
            let packet = &revision.packet;
            if wanted.insert(packet.hash) && there.remove(&packet.hash).is_none() {
                write_atomically(&self.dir.join(file_name(revision)), &keep(packet, revision))?;
            }
        }
        write_atomically(&self.dir.join(INDEX), index_text(documents).as_bytes())?;
        for (hash, path) in there {
            if !wanted.contains(&hash) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<([u8; 32], PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)?.take(FILES_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(hash) = name.to_str().and_then(hash_of) {
                files.push((hash, entry.path()));
            }
        }
        Ok(files)
    }

    /// What there has to be. A broken index is put aside: then the files are all that is known.
    fn index(&self) -> BTreeMap<[u8; 32], (DocumentKey, u64)> {
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

/// Reads the file of one packet; everything in it has to hold.
fn read(hash: &[u8; 32], path: &Path, checker: &Checker) -> io::Result<Vec<Arc<Revision>>> {
    let bytes = read_bounded(path, KEPT_BYTES_MAX as u64)?;
    let kept = Kept::decode(&bytes).map_err(|refusal| invalid(refusal.reason()))?;
    let checked = checker.check_proof(&kept.packet.0, kept.heard_at);
    let revisions = checked.map_err(|refusal| invalid(refusal.reason()))?;
    match revisions.first() {
        Some(first) if first.packet.hash == *hash => Ok(revisions),
        _ => Err(invalid("it holds something else than its name says")),
    }
}

fn keep(packet: &Packet, revision: &Revision) -> Vec<u8> {
    Kept {
        heard_at: revision.heard_at,
        packet: Blob(packet.bytes.to_vec()),
    }
    .encode()
}

/// Removes a file, or a directory that stands in its place.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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

/// What has an effect, and what is lost.
fn index_text(documents: &Documents) -> String {
    let mut text = String::new();
    let mut line = |key: &DocumentKey, revision: u64, hash: &[u8; 32]| {
        let _ = writeln!(text, "{key} {revision} {}", hex(hash));
    };
    for (key, document) in &documents.entries {
        for held in document.base().into_iter().chain(document.narrowings()) {
            line(key, held.revision, &held.hash);
        }
    }
    for (hash, (key, revision)) in &documents.lost_files {
        line(key, *revision, hash);
    }
    text
}

fn parse_line(line: &str) -> Option<([u8; 32], (DocumentKey, u64))> {
    let mut words = line.split(' ');
    let (key, revision, hash) = (words.next()?, words.next()?, words.next()?);
    words.next().is_none().then_some(())?;
    Some((from_hex(hash)?, (key.parse().ok()?, revision.parse().ok()?)))
}

/// Neither part of a key holds an `@`.
fn file_name(revision: &Revision) -> String {
    let (key, packet) = (&revision.key, &revision.packet);
    let hash = hex(&packet.hash);
    match packet.rows {
        1 => format!("{}@{}@{hash}", key.kind, key.name),
        rows => format!("{}@{rows}-together@{hash}", key.kind),
    }
}

fn hash_of(file_name: &str) -> Option<[u8; 32]> {
    let mut parts = file_name.split('@');
    let (_kind, _name, hash) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    from_hex(hash)
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const INDEX: &str = "index";

/// A line of at most 220 characters for each of 65,536 deletions and the texts of 16 keys, four times over.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Entries of the directory that are looked at: far more than all shares hold.
const FILES_MAX: usize = 1 << 20;
