//! A certificate authority in miniature: certificates are a few fields and an Ed25519 signature. What proves what is as real as
//! with X.509, so forgeries have to get past real signatures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::{ProofError, Proven, SignError, Signer, Verifier};

/// Issues certificates and verifies them.
#[derive(Debug, Clone)]
pub struct Authority {
    key: Arc<Ed25519KeyPair>,
    trust_domain: Arc<str>,
    /// From when to when what it issues is valid, in seconds since 1970.
    not_before: Arc<AtomicU64>,
    not_after: Arc<AtomicU64>,
}

impl Authority {
    /// An authority for this trust domain whose certificates have no end.
    pub fn new(trust_domain: &str) -> Self {
        Self {
            key: Arc::new(new_key()),
            trust_domain: trust_domain.into(),
            not_before: Arc::default(),
            not_after: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Sets the validity of what it issues from now on.
    pub fn set_validity(&self, not_before: u64, not_after: u64) {
        self.not_before.store(not_before, Ordering::Relaxed);
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// Signs with the root's own key.
    pub fn sign_as_root(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).as_ref().to_vec()
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// A certificate for a node.
    pub fn node(&self, name: &str) -> Svid {
        self.issue(&format!("spiffe://{}/node/{name}", self.trust_domain))
    }

    /// A certificate for a service.
    pub fn service(&self, name: &str) -> Svid {
        self.issue(&format!("spiffe://{}/svc/{name}", self.trust_domain))
    }

    /// A certificate for any identity.
    pub fn issue(&self, identity: &str) -> Svid {
        let key = new_key();
        let mut certificate = Vec::new();
        certificate.extend(self.not_before.load(Ordering::Relaxed).to_be_bytes());
        certificate.extend(self.not_after.load(Ordering::Relaxed).to_be_bytes());
        certificate.extend(key.public_key().as_ref());
        certificate.extend(identity.as_bytes());
        let signature = self.key.sign(&certificate);
        certificate.splice(0..0, signature.as_ref().iter().copied());
        Svid {
            identity: identity.into(),
            key: Arc::new(key),
            certificate,
        }
    }
}

impl Verifier for Authority {
    fn prove(&self, chain: &[Vec<u8>]) -> Result<Proven, ProofError> {
        let [certificate] = chain else {
            return Err(ProofError::Chain);
        };
        let (signature, fields) = certificate.split_at_checked(64).ok_or(ProofError::Chain)?;
        let root = UnparsedPublicKey::new(&ED25519, self.key.public_key());
        root.verify(fields, signature)
            .map_err(|_wrong| ProofError::Chain)?;
        let number = |at: usize| u64::from_be_bytes(fields[at..at + 8].try_into().unwrap());
        let identity = std::str::from_utf8(&fields[48..]).map_err(|_text| ProofError::Chain)?;
        Ok(Proven {
            identity: identity.into(),
            not_before: number(0),
            not_after: number(8),
            public_key: fields[16..48].to_vec(),
        })
    }

    fn verify(&self, proven: &Proven, message: &[u8], signature: &[u8]) -> Result<(), ProofError> {
        let key = UnparsedPublicKey::new(&ED25519, &proven.public_key);
        key.verify(message, signature)
            .map_err(|_wrong| ProofError::Signature)
    }

    fn root(&self, message: &[u8], signature: &[u8]) -> Result<(), ProofError> {
        let key = UnparsedPublicKey::new(&ED25519, self.key.public_key());
        key.verify(message, signature)
            .map_err(|_wrong| ProofError::Signature)
    }
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Svid {
    /// Whom it proves.
    pub identity: Arc<str>,
    key: Arc<Ed25519KeyPair>,
    certificate: Vec<u8>,
}

impl Signer for Svid {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.key.sign(message).as_ref().to_vec())
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.certificate.clone()]
    }
}

pub(super) fn new_key() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}
