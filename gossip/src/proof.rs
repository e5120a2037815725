//! Signing and checking, without knowing how keys are kept or which roots are trusted.

use std::fmt::Debug;
use std::sync::Arc;

use ring::signature::{ED25519, UnparsedPublicKey};

/// Signs with the key of one SVID, of the node or of a service.
pub trait Signer: Send + Sync + 'static {
    /// Signs `message` with the leaf's key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The certificates that prove the key, DER, leaf first.
    fn chain(&self) -> Vec<Vec<u8>>;
}

/// Checks chains against the trust bundle and signatures against proven keys.
pub trait Verifier: Send + Sync + 'static {
    /// Checks `chain` (DER, leaf first) up to a trusted root, revocation included, and says who it proves. It may refuse what is
    /// out of its validity; gossip compares `not_before` and `not_after` with the clock as well, again and again.
    fn prove(&self, chain: &[Vec<u8>]) -> Result<Proven, ProofError>;

    /// Checks that `signature` over `message` was made with the proven key.
    fn verify(&self, proven: &Proven, message: &[u8], signature: &[u8]) -> Result<(), ProofError>;

    /// Checks that `signature` over `message` was made with the key of a trusted root itself, not of anything a root signed.
    fn root(&self, message: &[u8], signature: &[u8]) -> Result<(), ProofError>;
}

/// Checks an Ed25519 signature.
pub fn verify_operator(
    public_key: &[u8; 32],
    message: &[u8],
    signature: &[u8],
) -> Result<(), ProofError> {
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(message, signature)
        .map_err(|_wrong| ProofError::Signature)
}

/// Who a chain proves, with what key, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The SPIFFE ID of the leaf.
    pub identity: Arc<str>,
    /// From when the leaf is valid, in seconds since 1970.
    pub not_before: u64,
    /// Until when the leaf is valid, in seconds since 1970.
    pub not_after: u64,
    /// The leaf's key, in whatever form the [`Verifier`] reads again.
    pub public_key: Vec<u8>,
}

/// The key could not be used.
#[derive(Debug, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct SignError(pub String);

/// Why a chain or a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The chain does not lead to a trusted root, is malformed, revoked or out of its validity.
    #[error("the certificate chain is not trusted")]
    Chain,
    /// The signature does not belong to the message and key.
    #[error("the signature is wrong")]
    Signature,
}
