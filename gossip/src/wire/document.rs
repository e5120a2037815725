//! Documents and grants as they are signed and as they travel; how nodes tell each other which they hold.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Blob, Row, decode, encode};
use crate::documents::{BODY_BYTES_MAX, DocumentKey, Draft, DraftRow, Grant, ROWS_MAX};
use crate::metrics::Refusal;
use crate::names::{DocumentKind, DocumentName, OperatorName};

/// One signature over one or more revisions: what was signed, and the grant that says that the operator may. What the root
/// signs itself has an empty grant.
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

    /// Reads a packet; without a grant the root is meant to have signed it. No signature is looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Option<Grant>, Draft), Refusal> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let envelope: Self = decode::<_, { super::READ_FACTOR * DOCUMENT_BYTES_MAX }>(bytes)?;
        let (draft, grant_hash) = decode_content(&envelope.content.0)?;
        if envelope.grant.0.is_empty() {
            let is_bare = envelope.grant_signature.0.is_empty() && grant_hash == [0; 32];
            return match is_bare {
                true => Ok((envelope, None, draft)),
                false => Err(Refusal::Grant),
            };
        }
        let grant = decode_grant(&envelope.grant.0)?;
        if grant_hash != super::credentials::hash(&envelope.grant.0) {
            return Err(Refusal::Grant);
        }
        Ok((envelope, Some(grant), draft))
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

/// What a node holds, room by room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rooms {
    /// A kind and what tells its revisions from other sets; the empty kind stands for the deletions of all kinds. In order.
    pub(crate) rooms: Vec<(String, [u8; 32])>,
}

impl Rooms {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > ROOMS_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let rooms: Self = decode::<_, { super::READ_FACTOR * ROOMS_BYTES_MAX }>(bytes)?;
        if rooms.rooms.len() > ROOMS_MAX {
            return Err(Refusal::TooMany);
        }
        if !rooms.rooms.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Refusal::Malformed);
        }
        Ok(rooms)
    }
}

/// The deletions a node holds, by the first byte of their hashes: a digest for each part that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// In order.
    pub(crate) parts: Vec<(u8, [u8; 32])>,
}

impl Parts {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > PARTS_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let parts: Self = decode::<_, { super::READ_FACTOR * PARTS_BYTES_MAX }>(bytes)?;
        if !parts.parts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Refusal::Malformed);
        }
        Ok(parts)
    }
}

/// A page of what a node holds in one room, in order of hash.
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

/// Packets that were asked for, as many as fit.
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

/// One packet as its file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// When it came, in seconds since 1970.
    pub(crate) heard_at: u64,
    pub(crate) packet: Blob,
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
    rank: u32,
    not_before: u64,
    not_after: u64,
    serial: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct ContentWire {
    /// SHA-256 of the grant, so that a packet goes with one grant only; zeros where the root signs itself.
    grant: [u8; 32],
    issued: u64,
    kind: String,
    /// In order of name, each name once.
    rows: Vec<RowWire>,
}

#[derive(Serialize, Deserialize)]
struct RowWire {
    name: String,
    revision: u64,
    replaces: Option<[u8; 32]>,
    deleted: bool,
    body: String,
}

/// What tells one revision from another, whether it was signed alone or with others.
#[derive(Serialize, Deserialize)]
struct IdentityWire {
    grant: [u8; 32],
    issued: u64,
    kind: String,
    row: RowWire,
}

pub(crate) fn encode_grant(grant: &Grant) -> Vec<u8> {
    encode(&GrantWire {
        trust_domain: grant.trust_domain.clone(),
        operator: grant.operator.to_string(),
        public_key: grant.public_key,
        kinds: grant.kinds.iter().map(ToString::to_string).collect(),
        rank: grant.rank,
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
            rank: self.rank,
            not_before: self.not_before,
            not_after: self.not_after,
            serial: self.serial,
        })
    }
}

pub(crate) fn encode_content(draft: &Draft, grant_hash: [u8; 32]) -> Vec<u8> {
    encode(&ContentWire {
        grant: grant_hash,
        issued: draft.issued,
        kind: draft.kind.to_string(),
        rows: draft.rows.iter().map(RowWire::of).collect(),
    })
}

/// The hash that names one row of a draft.
pub(crate) fn row_hash(draft: &Draft, row: &DraftRow, grant_hash: [u8; 32]) -> [u8; 32] {
    super::credentials::hash(&encode(&IdentityWire {
        grant: grant_hash,
        issued: draft.issued,
        kind: draft.kind.to_string(),
        row: RowWire::of(row),
    }))
}

fn decode_content(bytes: &[u8]) -> Result<(Draft, [u8; 32]), Refusal> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let wire: ContentWire = decode::<_, { super::READ_FACTOR * DOCUMENT_BYTES_MAX }>(bytes)?;
    let body_bytes: usize = wire.rows.iter().map(|row| row.body.len()).sum();
    if body_bytes > BODY_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    if wire.rows.len() > ROWS_MAX {
        return Err(Refusal::TooMany);
    }
    let grant = wire.grant;
    Ok((wire.check()?, grant))
}

impl RowWire {
    fn of(row: &DraftRow) -> Self {
        Self {
            name: row.name.to_string(),
            revision: row.revision,
            replaces: row.replaces,
            deleted: row.deleted,
            body: row.body.clone(),
        }
    }
}

impl ContentWire {
    fn check(self) -> Result<Draft, Refusal> {
        if self.rows.is_empty() || !self.rows.is_sorted_by(|a, b| a.name < b.name) {
            return Err(Refusal::Malformed);
        }
        let issued = self.issued;
        let row = |row: RowWire| {
            // A number beyond the date could be the last there is; so one more always fits, and all nodes judge alike.
            if row.revision == 0 || row.revision > issued {
                return Err(Refusal::Number);
            }
            if row.deleted && !row.body.is_empty() {
                return Err(Refusal::Malformed);
            }
            let name = DocumentName::parse(&row.name).map_err(|_error| Refusal::Malformed)?;
            Ok(DraftRow {
                name,
                revision: row.revision,
                replaces: row.replaces,
                deleted: row.deleted,
                body: row.body,
            })
        };
        Ok(Draft {
            kind: DocumentKind::parse(&self.kind).map_err(|_error| Refusal::Malformed)?,
            issued,
            rows: self.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        })
    }
}

/// The longest packet: texts, the names and numbers of its rows, a grant and what stands around them.
pub(crate) const DOCUMENT_BYTES_MAX: usize =
    BODY_BYTES_MAX + ROWS_MAX * ROW_HEAD_BYTES_MAX + GRANT_BYTES_MAX + 1024;

/// A name, a number, a hash and two lengths.
const ROW_HEAD_BYTES_MAX: usize = 128;

/// The longest grant with its signature: 16 kinds of 63 characters and a trust domain are 1.5 KiB.
pub(crate) const GRANT_BYTES_MAX: usize = 2 * 1024;

/// The longest file of a packet.
pub(crate) const KEPT_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 64;

/// Kinds in one grant; there are a handful.
pub(crate) const KINDS_MAX: usize = 16;

/// A trust domain has the length of a DNS name at most.
const DOMAIN_BYTES_MAX: usize = 255;

/// Rooms of one node: a handful of kinds, those of later versions included.
pub(crate) const ROOMS_MAX: usize = 64;
const ROOMS_BYTES_MAX: usize = ROOMS_MAX * 128 + 16;
const PARTS_BYTES_MAX: usize = 256 * 40 + 16;

/// Lengths, numbers, two hashes and a key's hash.
const ROW_NUMBERS_BYTES_MAX: usize = 2 + 4 * super::LENGTH_BYTES_MAX + 3 * 32 + 2;
