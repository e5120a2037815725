//! Documents: what operators say for the whole mesh, signed by them and held by every node.
//!
//! A document is text under a kind and a name. What it means is not known here, but for the kinds that say whose word counts
//! ([`system`], [`operators`]). Every revision travels with its operator's [`Grant`], which the mesh's root signed, so each proves itself
//! wherever it comes from. The highest number wins; two that differ under one number are a fork: the lower hash wins and both are
//! kept, so that all nodes show the same. What a revoked operator signed counts only where it allows less.

mod check;
mod draft;
mod files;
mod journal;
mod library;
pub mod operators;
pub mod revision;
pub mod rooms;
mod store;
pub mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use self::check::Checker;
pub use self::draft::{Draft, DraftRow, Grant, GrantError, SignedGrant};
pub(crate) use self::files::Files;
pub use self::files::Unsaved;
pub(crate) use self::library::Library;
pub use self::operators::Operators;
pub use self::revision::{Revision, Signer, key_hash};
use self::rooms::Fills;
pub use self::rooms::{Fill, Room};
pub use self::store::Standing;
pub(crate) use self::store::{digest, rooms_digest};
use crate::metrics::Refusal;
use crate::names::{DocumentKind, DocumentName, NameError};

/// Which document: `policy/orders`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey {
    /// What it is about.
    pub kind: DocumentKind,
    /// Its name among those of its kind.
    pub name: DocumentName,
}

/// Why a text does not name a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no `/` in it.
    #[error("a document is named by its kind and its name, as in policy/orders")]
    Slash,
    /// Its kind or its name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// One document: what is held of it, and what of that has an effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Newest first; under one number the one that wins first. Never empty.
    revisions: Vec<Arc<Revision>>,
    /// Of each of `revisions`.
    standings: Vec<Standing>,
    base: Option<Arc<Revision>>,
    narrowings: Vec<Arc<Revision>>,
}

/// All documents a node holds. Immutable; a change makes another.
#[derive(Clone, Default)]
pub struct Documents {
    /// Counts the changes.
    pub version: u64,
    /// By kind and name, the deleted ones included.
    pub entries: BTreeMap<DocumentKey, Arc<Document>>,
    /// Those known to exist from this revision on that are not here: their files are broken or gone, or a list names them and
    /// nobody had them yet. A peer or an operator gives them back.
    pub lost: BTreeMap<DocumentKey, u64>,
    /// Whose word counts.
    pub operators: Operators,
    /// Set while something of this could not be written to disk. It is tried again.
    pub unsaved: Option<Arc<Unsaved>>,
    /// What had an effect and whose files are broken or gone, by hash.
    lost_files: BTreeMap<[u8; 32], (DocumentKey, u64)>,
    /// Everything in `entries`.
    by_hash: BTreeMap<[u8; 32], Arc<Revision>>,
    /// One revision of each packet.
    packets: BTreeMap<[u8; 32], [u8; 32]>,
    /// What is offered to others, by room.
    offered: BTreeMap<String, BTreeSet<[u8; 32]>>,
    digests: BTreeMap<String, [u8; 32]>,
    fills: Fills,
    /// Keys of which peers offered more than there is room for.
    over: BTreeSet<(Room, [u8; 32])>,
    digest: Option<[u8; 32]>,
}

/// A document that was taken from its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Of which document; of several the first.
    pub key: DocumentKey,
    /// Its revision.
    pub revision: u64,
    /// What names the revision.
    pub hash: [u8; 32],
    /// How many revisions came together.
    pub rows: usize,
    /// Whether they were not held before.
    pub is_news: bool,
}

/// Why a document was not taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It does not hold, or there is no place for it.
    #[error("{}", why(*.0))]
    Refused(Refusal),
    /// Its number is not the next one.
    #[error("{key} is at revision {newest}, so only revision {} can follow", .newest + 1)]
    Stale {
        /// Of which document.
        key: DocumentKey,
        /// The newest there is.
        newest: u64,
    },
    /// It could not be kept on disk.
    #[error("it cannot be kept on disk")]
    Keep(#[source] std::io::Error),
}

impl Document {
    /// The newest revision that counts in full. `None` if all that is held of it was signed by revoked keys.
    pub fn base(&self) -> Option<&Arc<Revision>> {
        self.base.as_ref()
    }

    /// What revoked keys signed above the base, newest first: texts that count only where they allow less. A deletion counts as
    /// an empty text.
    pub fn narrowings(&self) -> &[Arc<Revision>] {
        &self.narrowings
    }

    /// The revision to show: the base, or else the newest narrowing, or else the newest of those that have no effect.
    pub fn newest(&self) -> &Arc<Revision> {
        let effective = self.base.as_ref().or_else(|| self.narrowings.first());
        effective.unwrap_or(&self.revisions[0])
    }

    /// Whether anything of it has an effect besides a deletion.
    pub fn is_live(&self) -> bool {
        !self.narrowings.is_empty() || self.base.as_ref().is_some_and(|base| !base.deleted)
    }

    /// Everything held of it: newest first, and under one revision the one that wins first.
    pub fn revisions(&self) -> &[Arc<Revision>] {
        &self.revisions
    }

    /// Everything held of it with what becomes of it for the sake of who signed it.
    pub fn standings(&self) -> impl Iterator<Item = (&Arc<Revision>, Standing)> {
        self.revisions.iter().zip(self.standings.iter().copied())
    }

    /// Newest first, without those that lost to another one of the same number and those of revoked keys.
    pub fn winners(&self) -> impl Iterator<Item = &Arc<Revision>> {
        let mut before = None;
        let counting = self
            .standings()
            .filter(|(_, standing)| *standing == Standing::Counts);
        counting
            .map(|(revision, _)| revision)
            .filter(move |held| before.replace(held.revision) != Some(held.revision))
    }

    /// The one that the newest revision won against, if two were signed under its number.
    pub fn rival(&self) -> Option<&Arc<Revision>> {
        let newest = self.newest();
        let mut others = self
            .standings()
            .filter(|(held, _)| held.hash != newest.hash);
        let rival = others.find(|(held, standing)| {
            *standing == Standing::Counts && held.revision == newest.revision
        });
        rival.map(|(held, _)| held)
    }
}

impl Documents {
    /// The document of this key; deleted ones are there too.
    pub fn get(&self, key: &DocumentKey) -> Option<&Arc<Document>> {
        self.entries.get(key)
    }

    /// The newest revision known to exist of a document, 0 if none does.
    pub fn newest_revision(&self, key: &DocumentKey) -> u64 {
        let held = self
            .get(key)
            .map_or(0, |document| document.revisions[0].revision);
        held.max(self.lost.get(key).copied().unwrap_or(0))
    }

    /// What tells this set from others. `None` if it is empty.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    /// Documents that are not deleted.
    pub fn live(&self) -> impl Iterator<Item = (&DocumentKey, &Arc<Document>)> {
        self.entries
            .iter()
            .filter(|(_, document)| document.is_live())
    }

    /// Whether another set holds as little for these as for `other`: the same keys count, and the same have no room.
    pub(crate) fn judges_like(&self, other: &Self) -> bool {
        self.version == other.version
            || (self.operators == other.operators
                && self.over == other.over
                && self.lost == other.lost)
    }

    /// What revoked keys signed that no list names: what it denies stays denied here, and nobody else is offered it.
    pub fn unlisted(&self) -> impl Iterator<Item = &Arc<Revision>> {
        let narrowings = self
            .entries
            .values()
            .flat_map(|document| document.narrowings());
        narrowings.filter(|held| self.standing(held) == Standing::Unlisted)
    }

    /// What each key has in each room.
    pub fn fills(&self) -> impl Iterator<Item = (&Room, &[u8; 32], Fill)> {
        self.fills.iter()
    }

    /// Keys of which peers offered more than their shares have room for; what is held of them stays in force, and is offered to
    /// nobody.
    pub fn over(&self) -> &BTreeSet<(Room, [u8; 32])> {
        &self.over
    }

    /// What a key has signed of a kind that is its newest of each document, not deleted: what a bundle may hold together.
    pub fn texts_of(&self, kind: &DocumentKind, key: &[u8; 32]) -> Vec<Arc<Revision>> {
        let of_kind = self.entries.iter().filter(|(of, _)| of.kind == *kind);
        let newest = of_kind.filter_map(|(of, _)| self.of_key(of, key));
        newest.filter(|held| !held.deleted).cloned().collect()
    }
}

fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TooLarge => "it is longer than a document may be (64 KiB)",
        Refusal::TooMany => "more documents are signed together than may be (1,024)",
        Refusal::OtherMesh => "its operator belongs to another mesh",
        Refusal::Kind => "its operator may not sign documents of this kind",
        Refusal::Grant => "no root of this mesh made its operator",
        Refusal::GrantDates => "its operator's grant has ended or not begun",
        Refusal::Signature => "its signature is wrong",
        Refusal::Revoked => "its operator's key is revoked",
        Refusal::Future => "it was issued in the future; a clock is wrong",
        Refusal::Number => "its number is beyond its date",
        Refusal::Rank => {
            "an operator's key is revoked by a key of a smaller rank, by itself, or by the root"
        }
        Refusal::OwnRevocation => "a key cannot take its own revocation back",
        Refusal::NotItsSigner => "only the operator's key that signed it takes it back",
        Refusal::Full => {
            "its operator's share is full (512 documents of a kind, 1 MiB with their signatures)"
        }
        _ => "it is not a document",
    }
}

impl FromStr for DocumentKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, name) = text.split_once('/').ok_or(KeyError::Slash)?;
        Ok(Self {
            kind: DocumentKind::parse(kind)?,
            name: DocumentName::parse(name)?,
        })
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents")
            .field("version", &self.version)
            .field("entries", &self.entries.keys())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

/// Words that stand among the kinds of a grant and are none: the operator may look at calls, or at a dashboard. There are no
/// documents of these kinds, so whoever may only look cannot fill the library.
pub const RIGHTS: [&str; 2] = ["tap", "see"];

/// The longest text of a document, and of all documents signed together: some 600 grants of usual size.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Revisions signed together: what fits with texts of the length of a revocation.
pub const ROWS_MAX: usize = 1024;

/// Numbers under which older revisions of a document are kept.
pub const HISTORY_MAX: usize = 5;
