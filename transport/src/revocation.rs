//! Who is no longer trusted although its certificate has not ended.
//!
//! Judged wherever a chain is judged: handshakes both ways, live connections whenever the set changes, and the records of
//! gossip. Certificates are told apart by identity and public key, never by their own hash: an ECDSA signature can be
//! written in two ways, so one certificate has several hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::SpiffeId;
use crate::svid::{Leaf, Refusal};

/// SHA-256 of a public key as it stands in certificates (DER `SubjectPublicKeyInfo`). Written `sha256:` and 64 hex
/// digits, as `openssl pkey -pubin -outform der | sha256sum` gives them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

/// What is not a [`KeyHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is `sha256:` and 64 hex digits")]
pub struct KeyHashError;

/// A set of revocations. Replaced whole, see [`Identities::revoke`](crate::Identities::revoke).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    identities: BTreeMap<SpiffeId, SystemTime>,
    keys: BTreeSet<KeyHash>,
}

impl KeyHash {
    /// The hash of a `SubjectPublicKeyInfo` in DER.
    pub fn of(spki: &[u8]) -> Self {
        let hash = digest(&SHA256, spki);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The hash of the public key of a certificate in DER.
    pub fn of_certificate(der: &[u8]) -> Result<Self, Refusal> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_detail| Refusal::BadEncoding)?;
        Ok(Self::of(cert.public_key().raw))
    }
}

impl FromStr for KeyHash {
    type Err = KeyHashError;

    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let hex = text.strip_prefix("sha256:").ok_or(KeyHashError)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(KeyHashError);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_detail| KeyHashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_detail| KeyHashError)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Revocations {
    /// Revokes every certificate with this key, of a leaf or of an intermediate that vouches for leaves.
    pub fn add_key(&mut self, key: KeyHash) {
        self.keys.insert(key);
    }

    /// Revokes the certificates of `id` that became valid before `issued_before`: what is issued later, after the host was
    /// set up anew, is good again. Of two times the later one counts.
    pub fn add_identity(&mut self, id: SpiffeId, issued_before: SystemTime) {
        let until = self.identities.entry(id).or_insert(issued_before);
        *until = (*until).max(issued_before);
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.keys.is_empty()
    }

    /// Whether this very leaf is revoked, whoever vouches for it.
    pub fn has_leaf(&self, leaf: &Leaf) -> bool {
        self.keys.contains(&leaf.key_hash)
            || self
                .identities
                .get(&leaf.id)
                .is_some_and(|before| leaf.not_before < *before)
    }

    /// Whether the key is revoked.
    pub fn has_key(&self, key: &KeyHash) -> bool {
        self.keys.contains(key)
    }

    /// Refuses a revoked leaf, and one that shows a revoked intermediate. An intermediate that is not shown cannot vouch.
    pub(crate) fn check(
        &self,
        leaf: &Leaf,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        if self.has_leaf(leaf) {
            return Err(Refusal::Revoked);
        }
        for cert in intermediates {
            if self.has_key(&KeyHash::of_certificate(cert)?) {
                return Err(Refusal::RevokedIssuer);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_read_as_it_is_written(bytes in any::<[u8; 32]>()) {
            let key = KeyHash(bytes);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn any_other_text_is_refused(text in "(sha256:)?[0-9a-fg ]{0,70}") {
            let good = text.len() == 71 && text.starts_with("sha256:") && text[7..].bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<KeyHash>().is_ok(), good);
        }
    }
}
