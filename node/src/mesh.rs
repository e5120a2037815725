//! Introduces gossip to the transport: neither crate knows the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use starling_gossip::{
    Answer, Carrier, CarrierError, Inbound, ProofError, Proven, SignError, Signer, Verifier,
};
use starling_transport::{Courier, Identities, Leaf, SpiffeId, Svid};

/// Gossip's frames and questions, as messages between nodes that proved who they are.
#[derive(Debug)]
pub struct QuicCarrier(pub Courier);

#[async_trait::async_trait]
impl Carrier for QuicCarrier {
    async fn send(&self, to: SocketAddr, frame: Bytes) -> Result<(), CarrierError> {
        let sent = self.0.send(to, frame).await;
        sent.map(drop).map_err(|error| unreachable(to, error))
    }

    async fn ask(
        &self,
        to: SocketAddr,
        question: Bytes,
        answer_bytes_max: usize,
    ) -> Result<Answer, CarrierError> {
        let asked = self.0.ask(to, question, answer_bytes_max).await;
        let (peer, bytes) = asked.map_err(|error| unreachable(to, error))?;
        Ok(Answer {
            peer: peer.as_str().into(),
            bytes,
        })
    }

    async fn receive(&self) -> Option<Inbound> {
        let parcel = self.0.receive().await?;
        let (peer, from) = (parcel.peer.as_str().into(), parcel.from);
        Some(match parcel.answer {
            None => Inbound::Frame {
                peer,
                from,
                frame: parcel.body,
            },
            Some(answer) => Inbound::Question {
                peer,
                from,
                question: parcel.body,
                answer,
            },
        })
    }
}

fn unreachable(to: SocketAddr, error: starling_transport::MessageError) -> CarrierError {
    CarrierError::Unreachable {
        to,
        source: Some(Box::new(error)),
    }
}

/// Signs as one identity, with whatever SVID of it is in force.
#[derive(Debug)]
pub struct SvidSigner {
    identities: Arc<Identities>,
    id: SpiffeId,
}

impl SvidSigner {
    /// Signs as `id`.
    pub fn new(identities: Arc<Identities>, id: SpiffeId) -> Arc<Self> {
        Arc::new(Self { identities, id })
    }

    fn svid(&self) -> Option<Svid> {
        self.identities.current().svid(&self.id).cloned()
    }
}

impl Signer for SvidSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let svid = self.svid().ok_or_else(|| {
            SignError(format!(
                "this node no longer holds a certificate of {}",
                self.id
            ))
        })?;
        svid.sign(message)
            .map_err(|error| SignError(error.to_string()))
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        self.svid().map(|svid| svid.chain()).unwrap_or_default()
    }
}

/// Judges the chains and signatures of records as the transport judges those of connections.
#[derive(Debug)]
pub struct BundleVerifier {
    identities: Arc<Identities>,
    lines: Arc<KnownLines>,
}

impl BundleVerifier {
    pub fn new(identities: Arc<Identities>) -> Self {
        Self::noting(identities, Arc::default())
    }

    /// One that notes the lines of the certificates that it accepts.
    pub fn noting(identities: Arc<Identities>, lines: Arc<KnownLines>) -> Self {
        Self { identities, lines }
    }
}

impl Verifier for BundleVerifier {
    fn prove(&self, chain: &[Vec<u8>]) -> Result<Proven, ProofError> {
        let trust = self.identities.current().trust.clone();
        let proven = trust.verify_der_until(chain, SystemTime::now());
        let (leaf, ends) = proven.map_err(|refusal| {
            tracing::debug!(
                reason = refusal.as_str(),
                "a record's certificate was refused"
            );
            ProofError::Chain
        })?;
        self.lines.note(&leaf);
        Ok(Proven {
            identity: leaf.id.as_str().into(),
            not_before: unix_s(leaf.not_before),
            not_after: unix_s(ends),
            public_key: leaf.public_key,
        })
    }

    fn verify(&self, proven: &Proven, message: &[u8], signature: &[u8]) -> Result<(), ProofError> {
        let verdict = Leaf::verify_with(&proven.public_key, message, signature);
        verdict.map_err(|_refusal| ProofError::Signature)
    }

    fn root(&self, message: &[u8], signature: &[u8]) -> Result<(), ProofError> {
        let trust = self.identities.current().trust.clone();
        let verdict = trust.verify_root_signature(message, signature);
        verdict.map_err(|_refusal| ProofError::Signature)
    }
}

/// Seconds since 1970; zero before.
pub(crate) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

mod lines;

pub use lines::KnownLines;

#[cfg(test)]
mod tests;
