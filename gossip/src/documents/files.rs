//! Documents on disk: a file for each packet, and an index that tells which revisions have to have an effect.
//!
//! A file that is broken is put aside, and what it held counts as lost: that it existed stays known from the index, so that a node
//! cannot be brought to forget a denial by spoiling a file. What is in force and cannot be written is named in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::Journal;
use super::revision::Packet;
use super::system::{from_hex, hex};
use super::{Checker, DocumentKey, Documents, Revision};
use crate::state_file::write_with;
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
    /// Whether the journal names something: the index does not have it yet.
    pub(crate) has_journal: bool,
}

/// What happened to documents that could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaved {
    /// How many texts in force are not in the index on disk.
    pub count: usize,
    /// How many of them the journal does not name either: a crash of the agent forgets them.
    pub unnoted: usize,
    /// Why they could not be written, or noted.
    pub error: String,
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
        let journal = self.journal().read();
        loaded.has_journal = !journal.is_empty();
        for (hash, (key, revision)) in self.index().into_iter().chain(journal) {
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
                self.write(&file_name(revision), &keep(packet, revision))?;
            }
        }
        self.write(INDEX, index_text(documents).as_bytes())?;
        for (hash, path) in there {
            if !wanted.contains(&hash) {
                remove(&path)?;
            }
        }
        self.journal().clear()
    }

    /// Allocates what [`Self::note`] needs.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.journal().prepare()
    }

    /// Notes what `documents` has in force and the index on disk does not name, because of `error`.
    pub(crate) fn note(&self, documents: &Documents, error: &io::Error) -> Unsaved {
        let saved = self.index();
        let lines = index_lines(documents);
        let mut lines: Vec<_> = lines
            .filter(|line| !saved.contains_key(line.hash))
            .collect();
        // What denies most first, in case there is not room for all.
        lines.sort_by_key(|line| order_of_loss(line.key));
        let texts: Vec<_> = lines.iter().map(ToString::to_string).collect();
        let noted = self.journal().note(&texts);
        let error = match &noted {
            Ok(_) => error.to_string(),
            Err(why) => format!("{error}; failed to note it: {why}"),
        };
        Unsaved {
            count: lines.len(),
            unnoted: noted.unwrap_or(lines.len()),
            error,
        }
    }

    fn journal(&self) -> Journal {
        Journal::new(&self.dir, self.unfinished())
    }

    /// One name for all: there is one writer, and crashes leave one file behind.
    fn unfinished(&self) -> PathBuf {
        self.dir.join(UNFINISHED)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_with(&self.unfinished(), &self.dir.join(name), bytes)
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

/// A text that has an effect, or that is lost.
struct Line<'d> {
    key: &'d DocumentKey,
    revision: u64,
    hash: &'d [u8; 32],
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.revision, hex(self.hash))
    }
}

fn index_text(documents: &Documents) -> String {
    let mut text = String::new();
    for line in index_lines(documents) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// What has an effect, and what is lost.
fn index_lines(documents: &Documents) -> impl Iterator<Item = Line<'_>> {
    let held = documents.entries.iter().flat_map(|(key, document)| {
        let texts = document.base().into_iter().chain(document.narrowings());
        texts.map(move |held| Line {
            key,
            revision: held.revision,
            hash: &held.hash,
        })
    });
    let lost = documents.lost_files.iter();
    let lost = lost.map(|(hash, (key, revision))| Line {
        key,
        revision: *revision,
        hash,
    });
    held.chain(lost)
}

/// Smaller is noted first: without a revocation or a policy more is allowed than was.
fn order_of_loss(key: &DocumentKey) -> u8 {
    match key.kind.as_str() {
        kind if kind.ends_with("revocation") => 0,
        "policy" => 1,
        _ => 2,
    }
}

pub(super) fn parse_line(line: &str) -> Option<([u8; 32], (DocumentKey, u64))> {
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

pub(super) fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const INDEX: &str = "index";

/// What a file is called while it is written.
const UNFINISHED: &str = "unfinished";

/// A line of at most 220 characters for each of 65,536 deletions and the texts of 16 keys, four times over.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Entries of the directory that are looked at: far more than all shares hold.
const FILES_MAX: usize = 1 << 20;
