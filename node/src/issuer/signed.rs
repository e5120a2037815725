//! What issuers say to each other, signed with the keys of their intermediates: the certificate of a node proves only a node.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::join::{IssuerSignature, SignedAnswer};

use crate::token::InviteId;

/// An [`IssuerSignature`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// DER, base64.
    intermediate: String,
    /// Base64.
    signature: String,
}

/// A home's answer to a request that another issuer passed on. It travels as the text that was signed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redeemed {
    /// A [`Reply`](crate::enrol::Reply), JSON.
    answer: String,
    proof: Proof,
}

impl Proof {
    pub(super) fn new(signature: &IssuerSignature) -> Self {
        Self {
            intermediate: STANDARD.encode(&signature.intermediate),
            signature: STANDARD.encode(&signature.signature),
        }
    }

    /// Nothing of it is verified yet.
    pub(super) fn read(&self) -> Option<IssuerSignature> {
        Some(IssuerSignature {
            intermediate: STANDARD.decode(&self.intermediate).ok()?,
            signature: STANDARD.decode(&self.signature).ok()?,
        })
    }
}

impl Redeemed {
    /// None if the answer is no text.
    pub(super) fn new(answer: SignedAnswer) -> Option<Self> {
        Some(Self {
            proof: Proof::new(&answer.signature),
            answer: String::from_utf8(answer.answer).ok()?,
        })
    }

    /// Nothing of it is verified yet.
    pub(super) fn read(self) -> Option<SignedAnswer> {
        Some(SignedAnswer {
            signature: self.proof.read()?,
            answer: self.answer.into_bytes(),
        })
    }
}

/// What `by` signs to pass a request on to `home`, and to no other.
pub(super) fn passed(by: &NodeName, home: &NodeName, binding: &[u8; 32], request: &str) -> Vec<u8> {
    let request = digest(&SHA256, request.as_bytes());
    let names = format!("{by}\0{home}\0");
    [PASSED, names.as_bytes(), binding, request.as_ref()].concat()
}

/// What `home` signs to say that its invitation is spent.
pub(super) fn spent(home: &NodeName, id: InviteId) -> Vec<u8> {
    [SPENT, home.as_str().as_bytes(), b"\0", &id.0].concat()
}

const PASSED: &[u8] = b"starling-join-passed/1\0";
const SPENT: &[u8] = b"starling-join-spent/1\0";
