//! Documents: what operators say for the whole mesh, signed by them and held by every node.
//!
//! A document is text under a kind and a name. What it means is not known here. Every revision travels with its operator's
//! [`Grant`], which the mesh's root signed, so each proves itself wherever it comes from. The highest revision wins; two that
//! differ under one revision are a fork: the lower hash wins and both are kept, so that all nodes show the same.

mod check;
mod draft;
mod files;
mod library;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::check::Checker;
pub use self::draft::{Draft, Grant, GrantError, SignedGrant};
pub(crate) use self::files::Files;
pub(crate) use self::library::Library;
pub(crate) use self::store::{Inserted, digest};
use crate::metrics::Refusal;
use crate::names::{DocumentKind, DocumentName, NameError, OperatorName};

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

/// One revision that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Of which document.
    pub key: DocumentKey,
    /// Its number, from 1.
    pub revision: u64,
    /// When its operator signed it, in seconds since 1970, by the operator's clock.
    pub issued: u64,
    /// Who signed it.
    pub operator: OperatorName,
    /// With which key.
    pub public_key: [u8; 32],
    /// Whether it says that the document is deleted.
    pub deleted: bool,
    /// The text; empty if deleted.
    pub body: Arc<str>,
    /// SHA-256 of what the operator signed.
    pub hash: [u8; 32],
    /// When this node first had it, in seconds since 1970.
    pub heard_at: u64,
    /// As it travels.
    pub(crate) bytes: Bytes,
}

/// One document: the newest revision, up to four before it, and the rivals of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Newest first; under one revision the one that wins first. Never empty.
    revisions: Vec<Arc<Revision>>,
}

/// All documents a node holds. Immutable; a change makes another.
#[derive(Clone, Default)]
pub struct Documents {
    /// Counts the changes.
    pub version: u64,
    /// By kind and name, the deleted ones included.
    pub entries: BTreeMap<DocumentKey, Arc<Document>>,
    /// Those known to exist from this revision on whose files are broken or gone. A peer or an operator gives them back.
    pub lost: BTreeMap<DocumentKey, u64>,
    /// Everything in `entries`.
    by_hash: BTreeMap<[u8; 32], Arc<Revision>>,
    bytes: usize,
    digest: Option<[u8; 32]>,
}

/// A document that was taken from its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Of which document.
    pub key: DocumentKey,
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of what the operator signed.
    pub hash: [u8; 32],
}

/// Why a document was not taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It does not hold, or there is no place for it.
    #[error("{}", why(*.0))]
    Refused(Refusal),
    /// There is this revision already, or a newer one.
    #[error("there is a newer revision already: {newest}")]
    Stale {
        /// The newest there is.
        newest: u64,
    },
    /// It could not be kept on disk.
    #[error("it cannot be kept on disk")]
    Keep(#[source] std::io::Error),
}

impl Document {
    /// The revision that counts.
    pub fn newest(&self) -> &Arc<Revision> {
        &self.revisions[0]
    }

    /// Everything held of it: newest first, and under one revision the one that wins first.
    pub fn revisions(&self) -> &[Arc<Revision>] {
        &self.revisions
    }

    /// Newest first, without those that lost to another one of the same number.
    pub fn winners(&self) -> impl Iterator<Item = &Arc<Revision>> {
        let revisions = &self.revisions;
        let wins = |at: usize| at == 0 || revisions[at - 1].revision != revisions[at].revision;
        (0..revisions.len())
            .filter(move |at| wins(*at))
            .map(move |at| &revisions[at])
    }

    /// The one that the newest revision won against, if two were signed under its number.
    pub fn rival(&self) -> Option<&Arc<Revision>> {
        let newest = self.newest().revision;
        self.revisions
            .get(1)
            .filter(|second| second.revision == newest)
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
            .map_or(0, |document| document.newest().revision);
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
            .filter(|(_, document)| !document.newest().deleted)
    }
}

fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TooLarge => "it is longer than a document may be (64 KiB)",
        Refusal::OtherMesh => "its operator belongs to another mesh",
        Refusal::Kind => "its operator may not sign documents of this kind",
        Refusal::Grant => "no root of this mesh made its operator",
        Refusal::GrantDates => "its operator's grant has ended or not begun",
        Refusal::Signature => "its signature is wrong",
        Refusal::Revoked => "its operator's key is revoked",
        Refusal::Future => "it was issued in the future; a clock is wrong",
        Refusal::Full => {
            "the mesh holds as many documents as it may (512, 8 MiB with their history)"
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

/// The longest text of a document: some 600 grants of usual size.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Revisions kept of each document.
pub const HISTORY_MAX: usize = 5;

/// Documents that an operator may make, the deleted ones not counted. Peers may bring twice as many: what two sides of a
/// partition took in has to fit together.
pub const LIVE_MAX: usize = 512;

/// Bytes of all revisions of all documents that an operator may fill. Peers may bring twice as many.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Documents, the deleted ones included. A deleted one stays known for ever, lest an old copy bring it back.
pub const KEYS_MAX: usize = 1024;
