//! The operator's side: a grant, and revisions to be signed.

use std::collections::BTreeSet;

use super::DocumentKey;
use crate::names::{DocumentKind, DocumentName, OperatorName};
use crate::proof::{ProofError, Verifier};
use crate::wire::Blob;
use crate::wire::credentials::hash;
use crate::wire::document::{
    Envelope, GRANT_BYTES_MAX, KINDS_MAX, SignedGrantWire, encode_content, encode_grant,
};

/// What the mesh's root allows an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The mesh.
    pub trust_domain: String,
    /// The operator's name.
    pub operator: OperatorName,
    /// The operator's Ed25519 key.
    pub public_key: [u8; 32],
    /// The kinds of documents that the operator may sign.
    pub kinds: BTreeSet<DocumentKind>,
    /// Who may revoke the operator's key: those of a smaller rank.
    pub rank: u32,
    /// From when, in seconds since 1970.
    pub not_before: u64,
    /// Until when, in seconds since 1970. It ends nothing that was signed before.
    pub not_after: u64,
    /// Tells one grant from another.
    pub serial: [u8; 16],
}

/// A grant with the root's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedGrant {
    grant: Grant,
    wire: SignedGrantWire,
}

/// Revisions of one kind before they are signed, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Of what kind all of them are.
    pub kind: DocumentKind,
    /// Now, in seconds since 1970. No revision's number may be larger.
    pub issued: u64,
    /// One to [`ROWS_MAX`](super::ROWS_MAX), in order of name, each name once.
    pub rows: Vec<DraftRow>,
}

/// One revision in a [`Draft`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftRow {
    /// Of which document of the kind.
    pub name: DocumentName,
    /// Its number, one more than the newest there is.
    pub revision: u64,
    /// The hash of the revision that it replaces, if there is one.
    pub replaces: Option<[u8; 32]>,
    /// Whether it deletes the document; then the body is empty.
    pub deleted: bool,
    /// The text.
    pub body: String,
}

/// Why bytes are not a grant, or a grant cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Not what [`SignedGrant::encode`] wrote.
    #[error("this is not an operator's grant")]
    Malformed,
    /// None, or more than a grant may have.
    #[error("a grant names 1 to {KINDS_MAX} kinds of documents")]
    Kinds,
}

impl Grant {
    /// What the root signs. The beginning keeps it apart from everything else the same key signs.
    pub fn to_sign(&self) -> Vec<u8> {
        grant_message(&self.trust_domain, &encode_grant(self))
    }

    /// Puts the root's signature to it.
    pub fn signed(self, signature: Vec<u8>) -> Result<SignedGrant, GrantError> {
        if !(1..=KINDS_MAX).contains(&self.kinds.len()) {
            return Err(GrantError::Kinds);
        }
        let wire = SignedGrantWire {
            grant: Blob(encode_grant(&self)),
            signature: Blob(signature),
        };
        SignedGrant::decode(&wire.encode())
    }
}

impl SignedGrant {
    /// What it allows.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// As an operator's file keeps it.
    pub fn encode(&self) -> Vec<u8> {
        self.wire.encode()
    }

    /// Reads what [`SignedGrant::encode`] wrote. The signature is not checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, GrantError> {
        if bytes.len() > GRANT_BYTES_MAX {
            return Err(GrantError::Malformed);
        }
        let (wire, grant) =
            SignedGrantWire::decode(bytes).map_err(|_refusal| GrantError::Malformed)?;
        Ok(Self { grant, wire })
    }

    /// Whether a trusted root made this operator.
    pub fn is_genuine(&self, verifier: &dyn Verifier) -> Result<(), ProofError> {
        let message = grant_message(&self.grant.trust_domain, &self.wire.grant.0);
        verifier.root(&message, &self.wire.signature.0)
    }
}

impl Draft {
    /// What the operator signs.
    pub fn to_sign(&self, grant: &SignedGrant) -> Vec<u8> {
        let content = encode_content(self, hash(&grant.wire.grant.0));
        content_message(&grant.grant.trust_domain, &content)
    }

    /// The packet as it travels, with the operator's signature.
    pub fn signed(&self, grant: &SignedGrant, signature: Vec<u8>) -> Vec<u8> {
        Envelope {
            grant: grant.wire.grant.clone(),
            grant_signature: grant.wire.signature.clone(),
            content: Blob(encode_content(self, hash(&grant.wire.grant.0))),
            signature: Blob(signature),
        }
        .encode()
    }

    /// What the root signs, for the kinds that are the root's own.
    pub fn to_sign_as_root(&self, trust_domain: &str) -> Vec<u8> {
        content_message(trust_domain, &encode_content(self, NO_GRANT))
    }

    /// The packet as it travels, with the root's signature.
    pub fn signed_by_root(&self, signature: Vec<u8>) -> Vec<u8> {
        Envelope {
            grant: Blob(Vec::new()),
            grant_signature: Blob(Vec::new()),
            content: Blob(encode_content(self, NO_GRANT)),
            signature: Blob(signature),
        }
        .encode()
    }
}

impl DraftRow {
    /// Which document it is about.
    pub fn key(&self, kind: &DocumentKind) -> DocumentKey {
        DocumentKey {
            kind: kind.clone(),
            name: self.name.clone(),
        }
    }
}

/// Stands for the grant in what the root signs.
const NO_GRANT: [u8; 32] = [0; 32];

/// What a root signs to make an operator. Trust domains hold no zero byte, so the parts cannot be shifted.
pub(super) fn grant_message(trust_domain: &str, grant: &[u8]) -> Vec<u8> {
    [
        b"starling-operator/1\0",
        trust_domain.as_bytes(),
        b"\0",
        grant,
    ]
    .concat()
}

/// What an operator signs to publish a document.
pub(super) fn content_message(trust_domain: &str, content: &[u8]) -> Vec<u8> {
    [
        b"starling-document/1\0",
        trust_domain.as_bytes(),
        b"\0",
        content,
    ]
    .concat()
}
