//! Credentials that were checked, and a cache of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::Refusal;
use crate::names::{NodeId, NodeName, ServiceName};
use crate::proof::{Proven, Verifier};
use crate::wire::credentials::{Credentials, ServiceProof, hash, proof_bytes};

/// Credentials whose chains and proofs were checked. Whether they are within their time is asked anew each time.
#[derive(Debug)]
pub(crate) struct Vetted {
    /// As they travel.
    pub(crate) bytes: Bytes,
    pub(crate) id: NodeId,
    pub(crate) name: NodeName,
    pub(crate) node: Proven,
    services: BTreeMap<ServiceName, Window>,
}

/// From when to when something is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    not_before: u64,
    not_after: u64,
}

impl Vetted {
    /// Checks the node's chain, and each service's chain and proof. A service that proves nothing is just not in it; a node that
    /// proves nothing has no credentials.
    pub(crate) fn check(
        bytes: &[u8],
        trust_domain: &str,
        verifier: &dyn Verifier,
    ) -> Result<Self, Refusal> {
        let Credentials { chain, services } = Credentials::decode(bytes)?;
        let node = verifier
            .prove(&chain)
            .map_err(|_chain| Refusal::Credentials)?;
        let name = node_name(&node.identity, trust_domain).ok_or(Refusal::Credentials)?;
        let services = services
            .iter()
            .filter_map(|(service, proof)| {
                let window = prove_service(proof, &node.identity, service, trust_domain, verifier)?;
                Some((service.clone(), window))
            })
            .collect();
        let id = NodeId::of(&node.identity);
        Ok(Self {
            bytes: Bytes::copy_from_slice(bytes),
            id,
            name,
            node,
            services,
        })
    }

    /// Whether the node's own chain is within its time.
    pub(crate) fn node_valid(&self, now_s: u64) -> bool {
        Window {
            not_before: self.node.not_before,
            not_after: self.node.not_after,
        }
        .contains(now_s)
    }

    /// Whether the node may offer `service` now.
    pub(crate) fn service_valid(&self, service: &ServiceName, now_s: u64) -> bool {
        self.services
            .get(service)
            .is_some_and(|window| window.contains(now_s))
    }
}

impl Window {
    fn contains(self, now_s: u64) -> bool {
        now_s + SKEW_S >= self.not_before && now_s <= self.not_after.saturating_add(SKEW_S)
    }
}

/// The name in a node's SPIFFE ID, if it is one of this trust domain.
pub(crate) fn node_name(identity: &str, trust_domain: &str) -> Option<NodeName> {
    named(identity, trust_domain, "/node/").and_then(|name| NodeName::parse(name).ok())
}

fn named<'a>(identity: &'a str, trust_domain: &str, kind: &str) -> Option<&'a str> {
    identity
        .strip_prefix("spiffe://")?
        .strip_prefix(trust_domain)?
        .strip_prefix(kind)
}

fn prove_service(
    proof: &ServiceProof,
    node_identity: &str,
    service: &ServiceName,
    trust_domain: &str,
    verifier: &dyn Verifier,
) -> Option<Window> {
    let proven = verifier.prove(&proof.chain).ok()?;
    let speaks_for_it = named(&proven.identity, trust_domain, "/svc/") == Some(service.as_str());
    let message = proof_bytes(node_identity, service);
    let signed = speaks_for_it && verifier.verify(&proven, &message, &proof.signature).is_ok();
    signed.then_some(Window {
        not_before: proven.not_before,
        not_after: proven.not_after,
    })
}

/// Checked credentials by their hash.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    by_hash: HashMap<[u8; 32], Arc<Vetted>>,
}

impl Cache {
    pub(crate) fn find(&self, hash: &[u8; 32]) -> Option<Arc<Vetted>> {
        self.by_hash.get(hash).cloned()
    }

    /// Keeps `vetted`. When full, those that no manifest in use names make room.
    pub(crate) fn keep(&mut self, vetted: Arc<Vetted>) {
        if self.by_hash.len() >= CACHE_MAX {
            self.by_hash.retain(|_, kept| Arc::strong_count(kept) > 1);
        }
        if self.by_hash.len() < CACHE_MAX {
            self.by_hash.insert(hash(&vetted.bytes), vetted);
        }
    }

    /// Forgets everything, so that all is checked against the trust of today.
    pub(crate) fn clear(&mut self) {
        self.by_hash.clear();
    }
}

/// How far clocks may be apart, in seconds.
pub(crate) const SKEW_S: u64 = 5 * 60;

/// Credentials kept: twice the nodes we would know, for renewals. At the limit those in use stay and new ones are not cached.
const CACHE_MAX: usize = 1024;
