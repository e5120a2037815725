//! Who is no longer trusted although its certificate has not ended.
//!
//! Judged wherever a chain is judged: handshakes both ways, live connections whenever the set changes, and the records of
//! gossip. Certificates are told apart by what they say and by public key, never by their own hash: an ECDSA signature can
//! be written in two ways, so one certificate has several hashes. What was renewed is judged by its [line](crate::line).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::SpiffeId;
use crate::line::{HostHash, LineName};
use crate::svid::{DATED_BACK, Leaf, Refusal, common_name, system_time};

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
    certificates: BTreeMap<Revoked, SystemTime>,
    issuers: BTreeMap<HostHash, SystemTime>,
    keys: BTreeSet<KeyHash>,
    /// With the identity, as an issuer's thief can write the name of another's line into a leaf.
    lines: BTreeSet<(LineName, SpiffeId)>,
}

/// Which certificates: those whose line began before a moment. What begins later is of a host that was set up anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// Those of an identity, on all hosts.
    Identity(SpiffeId),
    /// Those issued to a host: of its node and of the services on it.
    Host(String),
    /// Those of an identity that were issued to one host.
    IdentityOn(SpiffeId, String),
    /// Those of whose line the issuer on a host signed a leaf, with an intermediate that became valid before the moment.
    Issuer(String),
}

impl KeyHash {
    /// The hash of a `SubjectPublicKeyInfo` in DER.
    pub fn of(spki: &[u8]) -> Self {
        let hash = digest(&SHA256, spki);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// A hash that was made already.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
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

    /// Revokes every certificate of an identity that names this line.
    pub fn add_line(&mut self, line: LineName, id: SpiffeId) {
        self.lines.insert((line, id));
    }

    /// Revokes what began before `issued_before`. Of two times the later one counts.
    pub fn add(&mut self, what: Revoked, issued_before: SystemTime) {
        let until = match what {
            Revoked::Issuer(host) => self
                .issuers
                .entry(HostHash::of(&host))
                .or_insert(issued_before),
            what => self.certificates.entry(what).or_insert(issued_before),
        };
        *until = (*until).max(issued_before);
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a leaf that is revoked by its key, its line or its names, and one of whose line a revoked issuer signed a leaf.
    pub fn check_leaf(&self, leaf: &Leaf) -> Result<(), Refusal> {
        if self.has_leaf(leaf) {
            return Err(Refusal::Revoked);
        }
        self.check_signers(leaf)
    }

    /// Refuses a leaf of whose line a revoked issuer signed one.
    pub fn check_signers(&self, leaf: &Leaf) -> Result<(), Refusal> {
        let mut signers = leaf.signers.iter();
        if signers.any(|(host, not_before)| self.has_signer(host, not_before)) {
            return Err(Refusal::RevokedIssuer);
        }
        Ok(())
    }

    pub(crate) fn has_leaf(&self, leaf: &Leaf) -> bool {
        let id = || leaf.id.clone();
        let here = |host: &String| {
            self.has(Revoked::Host(host.clone()), leaf.begins)
                || self.has(Revoked::IdentityOn(id(), host.clone()), leaf.begins)
        };
        self.has_key(&leaf.key_hash)
            || self.has_line(leaf)
            || self.has(Revoked::Identity(id()), leaf.begins)
            || leaf.host.as_ref().is_some_and(here)
    }

    /// Whether the key is revoked.
    pub fn has_key(&self, key: &KeyHash) -> bool {
        self.keys.contains(key)
    }

    /// Whether the line that the leaf names is revoked.
    pub fn has_line(&self, leaf: &Leaf) -> bool {
        let line = leaf.line.as_ref();
        line.is_some_and(|line| self.lines.contains(&(line.name, leaf.id.clone())))
    }

    /// The keys that are revoked.
    pub fn keys(&self) -> impl Iterator<Item = &KeyHash> {
        self.keys.iter()
    }

    /// From when on certificates of `id` on `host` are good, if earlier ones are revoked.
    pub fn good_from(&self, id: &SpiffeId, host: Option<&str>) -> Option<SystemTime> {
        let on = host.into_iter().flat_map(|host| {
            [
                Revoked::Host(host.to_owned()),
                Revoked::IdentityOn(id.clone(), host.to_owned()),
            ]
        });
        let about = on.chain([Revoked::Identity(id.clone())]);
        about
            .filter_map(|what| self.certificates.get(&what).copied())
            .max()
    }

    fn has(&self, what: Revoked, begins: SystemTime) -> bool {
        let until = self.certificates.get(&what);
        until.is_some_and(|before| begins < *before)
    }

    /// Intermediates are dated back like leaves; what counts is when one was made, or one that replaces a revoked one would
    /// count as revoked for some minutes.
    fn has_signer(&self, host: HostHash, not_before: SystemTime) -> bool {
        let until = self.issuers.get(&host);
        until.is_some_and(|before| not_before + DATED_BACK < *before)
    }

    /// Whether nobody may vouch with this intermediate, a certificate in DER.
    pub fn has_intermediate(&self, der: &[u8]) -> Result<bool, Refusal> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_detail| Refusal::BadEncoding)?;
        let signer = signer(&cert);
        Ok(self.has_key(&KeyHash::of(cert.public_key().raw))
            || signer.is_some_and(|(host, not_before)| self.has_signer(host, not_before)))
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
        self.check_leaf(leaf)?;
        for cert in intermediates {
            if self.has_intermediate(cert)? {
                return Err(Refusal::RevokedIssuer);
            }
        }
        Ok(())
    }
}

/// The host of an intermediate of ours, and the start of its validity. None for an intermediate of another CA.
pub(crate) fn signer(cert: &X509Certificate<'_>) -> Option<(HostHash, SystemTime)> {
    let name = common_name(cert)?;
    let not_before = system_time(cert.validity().not_before.timestamp());
    Some((HostHash::of(issuer_host(&name)?), not_before))
}

/// The common name of the intermediate of the issuer on `host`. The mark tells it from its successors.
pub fn issuer_name(host: &str, mark: u32) -> String {
    format!("{ISSUER}{host} {mark:08x}")
}

fn issuer_host(common_name: &str) -> Option<&str> {
    let (host, _mark) = common_name.strip_prefix(ISSUER)?.rsplit_once(' ')?;
    Some(host)
}

const ISSUER: &str = "starling issuer ";

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

        #[test]
        fn an_issuer_s_name_says_its_host(host in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", mark in any::<u32>()) {
            let name = issuer_name(&host, mark);
            prop_assert_eq!(issuer_host(&name), Some(host.as_str()));
        }
    }
}
