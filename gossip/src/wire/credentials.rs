//! The credentials: the chains that prove a node and the services it offers. Too large and too lasting to travel with each
//! manifest, so a manifest names them by hash, and who lacks them asks for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Blob, decode, encode};
use crate::metrics::Refusal;
use crate::names::ServiceName;

/// Chains and proofs of one node, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The node's chain, DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) services: BTreeMap<ServiceName, ServiceProof>,
}

/// Why a node may offer a service: the service's key signed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceProof {
    pub(crate) chain: Vec<Vec<u8>>,
    /// Over [`proof_bytes`].
    pub(crate) signature: Vec<u8>,
}

impl Credentials {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut pool = Pool::default();
        let chain = pool.put(&self.chain);
        let services = self
            .services
            .iter()
            .map(|(name, proof)| ServiceWire {
                name: name.to_string(),
                chain: pool.put(&proof.chain),
                signature: Blob(proof.signature.clone()),
            })
            .collect();
        encode(&CredentialsWire {
            certificates: pool.certificates,
            chain,
            services,
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > CREDENTIALS_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let wire: CredentialsWire =
            decode::<_, { super::READ_FACTOR * CREDENTIALS_BYTES_MAX }>(bytes)?;
        let counts_ok = wire.services.len() <= super::manifest::SERVICES_MAX
            && wire.certificates.len() <= CERTIFICATES_MAX;
        if !counts_ok {
            return Err(Refusal::TooMany);
        }
        wire.check().ok_or(Refusal::Malformed)
    }
}

/// The hash by which a manifest names credentials.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What a service's key signs to let a node offer it. Names hold no zero byte, so the parts cannot be shifted.
pub(crate) fn proof_bytes(node_identity: &str, service: &ServiceName) -> Vec<u8> {
    [
        b"starling-service/1\0",
        node_identity.as_bytes(),
        b"\0",
        service.as_str().as_bytes(),
    ]
    .concat()
}

/// Chains share their intermediates, so certificates are sent once and chains point to them.
#[derive(Serialize, Deserialize)]
struct CredentialsWire {
    certificates: Vec<Blob>,
    chain: Vec<u16>,
    services: Vec<ServiceWire>,
}

#[derive(Serialize, Deserialize)]
struct ServiceWire {
    name: String,
    chain: Vec<u16>,
    signature: Blob,
}

#[derive(Default)]
struct Pool {
    certificates: Vec<Blob>,
}

impl Pool {
    fn put(&mut self, chain: &[Vec<u8>]) -> Vec<u16> {
        chain
            .iter()
            .map(|certificate| self.index(certificate))
            .collect()
    }

    fn index(&mut self, certificate: &[u8]) -> u16 {
        let known = self
            .certificates
            .iter()
            .position(|other| other.0 == certificate);
        let index = known.unwrap_or_else(|| {
            self.certificates.push(Blob(certificate.to_vec()));
            self.certificates.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }
}

impl CredentialsWire {
    fn check(self) -> Option<Credentials> {
        let pick = |indices: &[u16]| -> Option<Vec<Vec<u8>>> {
            let length_ok = (1..=CHAIN_MAX).contains(&indices.len());
            let certificate = |&index: &u16| {
                self.certificates
                    .get(usize::from(index))
                    .map(|blob| blob.0.clone())
            };
            length_ok.then(|| indices.iter().map(certificate).collect())?
        };
        let mut services = BTreeMap::new();
        for service in &self.services {
            let name = ServiceName::parse(&service.name).ok()?;
            let proof = ServiceProof {
                chain: pick(&service.chain)?,
                signature: service.signature.0.clone(),
            };
            services.insert(name, proof);
        }
        let all_different = services.len() == self.services.len();
        all_different.then_some(Credentials {
            chain: pick(&self.chain)?,
            services,
        })
    }
}

/// The largest credentials: 128 services with leaves of 1.4 KiB, the most that a line makes of them, and intermediates of 32
/// issuers. At the limit a node refuses to announce more.
pub(crate) const CREDENTIALS_BYTES_MAX: usize = 224 * 1024;

/// Certificates in a chain: leaf, two intermediates, and one to spare. Longer ones cost more to check than they are worth.
pub(crate) const CHAIN_MAX: usize = 4;

/// Different certificates in credentials: a leaf per service and the intermediates.
const CERTIFICATES_MAX: usize = 256;
