//! Documents and grants as they are signed and as they travel; how nodes tell each other which they hold.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Blob, Row, decode, encode};
use crate::documents::{BODY_BYTES_MAX, DocumentKey, Draft, Grant};
use crate::metrics::Refusal;
use crate::names::{DocumentKind, DocumentName, OperatorName};

/// A document as it travels: what the operator signed, and the grant that says that the operator may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) grant: Blob,
    pub(crate) grant_signature: Blob,
    pub(crate) content: Blob,
    pub(crate) signature: Blob,
}

impl Envelope {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a document. No signature is looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Grant, Draft), Refusal> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let envelope: Self = decode::<_, { super::READ_FACTOR * DOCUMENT_BYTES_MAX }>(bytes)?;
        let grant = decode_grant(&envelope.grant.0)?;
        let (draft, grant_hash) = decode_content(&envelope.content.0)?;
        if grant_hash != super::credentials::hash(&envelope.grant.0) {
            return Err(Refusal::Grant);
        }
        Ok((envelope, grant, draft))
    }
}

/// A grant with its signature, as an operator's file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedGrantWire {
    pub(crate) grant: Blob,
    pub(crate) signature: Blob,
}

impl SignedGrantWire {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Grant), Refusal> {
        if bytes.len() > GRANT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let signed: Self = decode::<_, { super::READ_FACTOR * GRANT_BYTES_MAX }>(bytes)?;
        let grant = decode_grant(&signed.grant.0)?;
        Ok((signed, grant))
    }
}

/// A page of what a node holds, in order of hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) rows: Vec<Row>,
    /// Whether there is more behind the last of `rows`.
    pub(crate) more: bool,
}

impl Listing {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > super::ANSWER_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let listing: Self = decode::<_, { super::READ_FACTOR * super::ANSWER_BYTES_MAX }>(bytes)?;
        if !listing.rows.is_sorted_by(|a, b| a.hash < b.hash) {
            return Err(Refusal::Malformed);
        }
        Ok(listing)
    }
}

impl Row {
    /// The document it is about, if that is one.
    pub(crate) fn key(&self) -> Option<DocumentKey> {
        Some(DocumentKey {
            kind: DocumentKind::parse(&self.kind).ok()?,
            name: DocumentName::parse(&self.name).ok()?,
        })
    }

    /// Its size on the wire, at most.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.kind.len() + self.name.len() + ROW_NUMBERS_BYTES_MAX
    }
}

/// Documents that were asked for, as many as fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bodies {
    pub(crate) documents: Vec<Blob>,
}

impl Bodies {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > super::ANSWER_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        decode::<_, { super::READ_FACTOR * super::ANSWER_BYTES_MAX }>(bytes)
    }
}

/// The revisions of one document as its file keeps them, with when each was heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) revisions: Vec<(u64, Blob)>,
}

impl Kept {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > KEPT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        decode::<_, { super::READ_FACTOR * KEPT_BYTES_MAX }>(bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct GrantWire {
    trust_domain: String,
    operator: String,
    public_key: [u8; 32],
    kinds: Vec<String>,
    not_before: u64,
    not_after: u64,
    serial: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct ContentWire {
    kind: String,
    name: String,
    revision: u64,
    issued: u64,
    /// SHA-256 of the grant, so that a document goes with one grant only.
    grant: [u8; 32],
    deleted: bool,
    body: String,
}

pub(crate) fn encode_grant(grant: &Grant) -> Vec<u8> {
    encode(&GrantWire {
        trust_domain: grant.trust_domain.clone(),
        operator: grant.operator.to_string(),
        public_key: grant.public_key,
        kinds: grant.kinds.iter().map(ToString::to_string).collect(),
        not_before: grant.not_before,
        not_after: grant.not_after,
        serial: grant.serial,
    })
}

fn decode_grant(bytes: &[u8]) -> Result<Grant, Refusal> {
    if bytes.len() > GRANT_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let wire: GrantWire = decode::<_, { super::READ_FACTOR * GRANT_BYTES_MAX }>(bytes)?;
    wire.check().ok_or(Refusal::Malformed)
}

impl GrantWire {
    fn check(self) -> Option<Grant> {
        let sorted = self.kinds.is_sorted_by(|a, b| a < b);
        let counts_ok = (1..=KINDS_MAX).contains(&self.kinds.len());
        let dates_ok = self.not_before <= self.not_after;
        if !sorted || !counts_ok || !dates_ok || self.trust_domain.len() > DOMAIN_BYTES_MAX {
            return None;
        }
        let kinds = self.kinds.iter().map(|kind| DocumentKind::parse(kind).ok());
        Some(Grant {
            kinds: kinds.collect::<Option<BTreeSet<_>>>()?,
            trust_domain: self.trust_domain,
            operator: OperatorName::parse(&self.operator).ok()?,
            public_key: self.public_key,
            not_before: self.not_before,
            not_after: self.not_after,
            serial: self.serial,
        })
    }
}

pub(crate) fn encode_content(draft: &Draft, grant_hash: [u8; 32]) -> Vec<u8> {
    encode(&ContentWire {
        kind: draft.key.kind.to_string(),
        name: draft.key.name.to_string(),
        revision: draft.revision,
        issued: draft.issued,
        grant: grant_hash,
        deleted: draft.deleted,
        body: draft.body.clone(),
    })
}

fn decode_content(bytes: &[u8]) -> Result<(Draft, [u8; 32]), Refusal> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let wire: ContentWire = decode::<_, { super::READ_FACTOR * DOCUMENT_BYTES_MAX }>(bytes)?;
    if wire.body.len() > BODY_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let grant = wire.grant;
    Ok((wire.check().ok_or(Refusal::Malformed)?, grant))
}

impl ContentWire {
    fn check(self) -> Option<Draft> {
        let number_ok = (1..REVISION_MAX).contains(&self.revision);
        let body_ok = !self.deleted || self.body.is_empty();
        (number_ok && body_ok).then_some(Draft {
            key: DocumentKey {
                kind: DocumentKind::parse(&self.kind).ok()?,
                name: DocumentName::parse(&self.name).ok()?,
            },
            revision: self.revision,
            issued: self.issued,
            deleted: self.deleted,
            body: self.body,
        })
    }
}

/// The longest document: a body, a grant and what stands around them.
pub(crate) const DOCUMENT_BYTES_MAX: usize = BODY_BYTES_MAX + GRANT_BYTES_MAX + 1024;

/// The longest grant with its signature: 16 kinds of 63 characters and a trust domain are 1.5 KiB.
pub(crate) const GRANT_BYTES_MAX: usize = 2 * 1024;

/// The longest file of one document: five revisions, each with a rival.
pub(crate) const KEPT_BYTES_MAX: usize = 10 * (DOCUMENT_BYTES_MAX + 32);

/// Kinds in one grant; there are a handful.
pub(crate) const KINDS_MAX: usize = 16;

/// Revisions stay far from where adding one would wrap.
const REVISION_MAX: u64 = 1 << 62;

/// A trust domain has the length of a DNS name at most.
const DOMAIN_BYTES_MAX: usize = 255;

/// Two lengths, a revision and a hash.
const ROW_NUMBERS_BYTES_MAX: usize = 2 + super::LENGTH_BYTES_MAX + 32;
