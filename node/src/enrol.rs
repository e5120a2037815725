//! How a host joins: what it asks an issuer, what it is answered, and how it makes an identity of the answer.
//!
//! The joiner makes its keys, asks for certificates of exactly what its token names, and signs that, together with the
//! binding of the connection, with the token's key. So whoever else sees the request cannot use it, and what comes back
//! is of use only to whoever has the keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

mod join;
mod outcome;

pub use join::{JoinFailed, join};
pub use outcome::{Outcome, Turned};

use crate::token::Token;

/// A signed wish. The wish travels as the text that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// A [`Wish`], JSON.
    pub wish: String,
    /// Ed25519 with the token's key, base64.
    pub signature: String,
}

/// What a joiner wants. Everything but the requests stands in the token, and is held against the invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which invitation.
    pub invite: String,
    /// The issuer that made it.
    pub home: String,
    pub node: String,
    pub services: Vec<String>,
    /// Signing requests (DER, base64): the node's, then those of the services.
    pub requests: Vec<String>,
}

/// What an issuer answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    Joined(Joined),
    Refused(Turned),
}

/// A host is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Leaves in the order of the requests, PEM.
    pub leaves: Vec<String>,
    /// The issuer's certificate, which belongs behind each of them, PEM.
    pub issuer: String,
    /// Mesh ports to begin with.
    pub seeds: Vec<String>,
}

impl Reply {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Joined(_) => Outcome::Joined,
            Self::Refused(turned) => turned.outcome,
        }
    }
}

impl From<Result<Joined, Turned>> for Reply {
    fn from(decided: Result<Joined, Turned>) -> Self {
        decided.map_or_else(Self::Refused, Self::Joined)
    }
}

impl Asked {
    /// Signs `wish` for the connection with this binding.
    pub fn new(wish: &Wish, token: &Token, binding: &[u8; 32]) -> Self {
        let wish = serde_json::to_string(wish).expect("strings can be written");
        let signature = token.key().sign(&message(binding, &wish));
        Self {
            signature: STANDARD.encode(signature),
            wish,
        }
    }

    /// Whether the holder of the token's key said this on the connection with this binding.
    pub fn is_signed_by(&self, public_key: &[u8; 32], binding: &[u8; 32]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public_key);
        let message = message(binding, &self.wish);
        let signature = STANDARD.decode(&self.signature);
        signature.is_ok_and(|signature| key.verify(&message, &signature).is_ok())
    }

    /// What tells this wish from every other.
    pub fn hash(&self) -> [u8; 32] {
        let hash = digest(&SHA256, self.wish.as_bytes());
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// What is signed: for this purpose and no other, on this connection and no other.
fn message(binding: &[u8; 32], wish: &str) -> Vec<u8> {
    [PURPOSE, binding, wish.as_bytes()].concat()
}

const PURPOSE: &[u8] = b"starling-join/1\0";

#[cfg(test)]
mod tests;
