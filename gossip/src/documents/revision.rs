//! One signed revision of a document, and the packet that it came in.

use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{SHA256, digest};

use super::DocumentKey;
use super::system::Statement;
use crate::names::OperatorName;
use crate::wire::Row;

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
    pub signer: Signer,
    /// Whether it says that the document is deleted.
    pub deleted: bool,
    /// The text; empty if deleted.
    pub body: Arc<str>,
    /// The hash of the revision that it replaced, by its operator's word.
    pub replaces: Option<[u8; 32]>,
    /// What names it: SHA-256 over all that was signed of it.
    pub hash: [u8; 32],
    /// When this node first had it, in seconds since 1970.
    pub heard_at: u64,
    /// What it says, if it is of a kind that this crate reads itself.
    pub(crate) statement: Option<Statement>,
    /// As it travels.
    pub(crate) packet: Arc<Packet>,
}

/// Who signed a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The operator's name, [`ROOT`] if it was the root.
    pub operator: OperatorName,
    /// The operator's Ed25519 key, zeros if it was the root.
    pub public_key: [u8; 32],
    /// What names the key, see [`key_hash`]; zeros if it was the root.
    pub key_hash: [u8; 32],
    /// The rank in the grant, 0 if it was the root.
    pub rank: u32,
    /// When the grant ends, in seconds since 1970.
    pub granted_until: u64,
    /// The kinds in the grant.
    pub kinds: Arc<std::collections::BTreeSet<crate::names::DocumentKind>>,
}

/// Bytes with one signature, which hold one or more revisions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) bytes: Bytes,
    pub(crate) hash: [u8; 32],
    /// How many revisions were signed together.
    pub(crate) rows: usize,
}

impl Revision {
    /// Who signed it.
    pub fn operator(&self) -> &OperatorName {
        &self.signer.operator
    }

    /// What decides whether another node has a place for it.
    pub(crate) fn row(&self) -> Row {
        Row {
            kind: self.key.kind.to_string(),
            name: self.key.name.to_string(),
            revision: self.revision,
            issued: self.issued,
            deleted: self.deleted,
            hash: self.hash,
            signer: self.signer.key_hash,
            rank: self.signer.rank,
            packet: self.packet.hash,
            packet_bytes: u32::try_from(self.packet.bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// Newest first; of two under one number the lower hash first.
    pub(crate) fn order(&self, other: &Self) -> std::cmp::Ordering {
        (other.revision, self.hash).cmp(&(self.revision, other.hash))
    }

    /// The packet with its signature.
    pub fn packet(&self) -> &[u8] {
        &self.packet.bytes
    }

    /// What it says, if it is of a kind that this crate reads itself and no deletion.
    pub fn statement(&self) -> Option<&Statement> {
        self.statement.as_ref()
    }

    /// How many revisions were signed together with it, itself included.
    pub fn rows(&self) -> usize {
        self.packet.rows
    }
}

impl Signer {
    /// Whether the root itself signed.
    pub fn is_root(&self) -> bool {
        self.key_hash == ROOT_KEY
    }
}

/// The hash that names an operator's Ed25519 key: SHA-256 over its `SubjectPublicKeyInfo` (RFC 8410), as
/// `openssl pkey -pubout -outform der | sha256sum` gives it.
pub fn key_hash(public_key: &[u8; 32]) -> [u8; 32] {
    let spki = [&ED25519_SPKI[..], public_key].concat();
    let hash = digest(&SHA256, &spki);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The name of the root among those who sign.
pub const ROOT: &str = "root";

/// Stands for the root's key, which no operator has.
pub(crate) const ROOT_KEY: [u8; 32] = [0; 32];

/// What stands before the 32 bytes in a `SubjectPublicKeyInfo` of Ed25519 (RFC 8410).
const ED25519_SPKI: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];
