//! Our own manifest: made from what this node says of itself, numbered and signed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::local::{Caps, Local, LocalError, LocalService, State};
use crate::names::{NodeId, labels_ok};
use crate::proof::Verifier;
use crate::settings::{Clock, Settings};
use crate::state_file::write_atomically;
use crate::summary::Summary;
use crate::vetted::Vetted;
use crate::wire::Blob;
use crate::wire::credentials::{
    CHAIN_MAX, CREDENTIALS_BYTES_MAX, Credentials, ServiceProof, hash, proof_bytes,
};
use crate::wire::manifest::{
    ADDRS_MAX, CALLS_MAX, MANIFEST_BYTES_MAX, Manifest, Record, SERVICES_MAX, Service,
    signed_bytes, trust_domain_hash, word_ok,
};

/// What we announce now, and the counters of our life.
pub(crate) struct Own {
    trust_domain: String,
    identity: String,
    ttl_s: u32,
    clock: Clock,
    verifier: Arc<dyn Verifier>,
    pub(crate) local: Local,
    pub(crate) generation: u64,
    sequence: u64,
    credentials: Option<Proof>,
    /// The digest of the documents we hold.
    pub(crate) documents: Option<[u8; 32]>,
    /// How many of them have no effect here.
    pub(crate) documents_out_of_force: u16,
    /// How our calls go.
    pub(crate) summary: Option<Summary>,
    /// Whether everybody here reads more than the first version of a manifest.
    pub(crate) extras_are_read: bool,
}

/// Credentials, kept as long as the chains they were made from. Signatures differ each time, and with them the hash, so making
/// them anew for each manifest would have everybody ask for them again.
struct Proof {
    chains: Chains,
    hash: [u8; 32],
    vetted: Arc<Vetted>,
}

type Chains = (Vec<Vec<u8>>, BTreeMap<crate::ServiceName, Vec<Vec<u8>>>);

/// A signed manifest of ours.
pub(crate) struct Signed {
    pub(crate) record: Bytes,
    pub(crate) manifest: Manifest,
    pub(crate) vetted: Arc<Vetted>,
}

impl Own {
    pub(crate) fn new(
        settings: &Settings,
        verifier: Arc<dyn Verifier>,
        local: Local,
        generation: u64,
    ) -> Self {
        let ttl_s = u32::try_from(settings.ttl.as_secs())
            .unwrap_or(u32::MAX)
            .clamp(1, 3600);
        Self {
            trust_domain: settings.trust_domain.clone(),
            identity: format!("spiffe://{}/node/{}", settings.trust_domain, local.node),
            ttl_s,
            clock: settings.clock.clone(),
            verifier,
            local,
            generation,
            sequence: 0,
            credentials: None,
            documents: None,
            documents_out_of_force: 0,
            summary: None,
            extras_are_read: false,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId::of(&self.identity)
    }

    /// Begins another life: what is signed from now on outranks all that was signed before.
    pub(crate) fn new_life(&mut self, generation: u64) {
        self.generation = generation;
        self.sequence = 0;
    }

    /// Signs `local` as the newest there is to say about us. After an error all is as before.
    pub(crate) fn sign(&mut self, local: Local) -> Result<Signed, LocalError> {
        check(&local)?;
        if local.node != self.local.node {
            return Err(LocalError::Renamed);
        }
        self.renew_credentials(&local)?;
        let proof = self.credentials.as_ref().expect("just renewed");
        let sequence = self.sequence + 1;
        let mut manifest = self.manifest(&local, sequence, proof.hash);
        let mut bytes = manifest.encode();
        if bytes.len() > MANIFEST_BYTES_MAX {
            // What the node is for comes before how its calls go.
            manifest.summary = None;
            bytes = manifest.encode();
        }
        check_size(bytes.len(), MANIFEST_BYTES_MAX)?;
        let signature = local
            .signer
            .sign(&signed_bytes(&self.trust_domain, &bytes))
            .map_err(|source| LocalError::Sign {
                whose: "node".into(),
                source,
            })?;
        let record = Record {
            manifest: Blob(bytes),
            signature: Blob(signature),
        }
        .encode();
        let vetted = proof.vetted.clone();
        self.sequence = sequence;
        self.local = local;
        Ok(Signed {
            record: record.into(),
            manifest,
            vetted,
        })
    }

    fn manifest(&self, local: &Local, sequence: u64, credentials: [u8; 32]) -> Manifest {
        let mut services: Vec<Service> = local.services.iter().map(announced).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Manifest {
            trust_domain: trust_domain_hash(&self.trust_domain),
            node: self.id(),
            generation: self.generation,
            sequence,
            // chitchat's version of a life grows by one with each manifest, as the sequence does.
            kv_version: sequence,
            issued: self.clock.now_s(),
            ttl_s: self.ttl_s,
            cell: local.cell,
            state: local.state,
            addrs: local.addrs.clone(),
            zone: local.zone.clone(),
            caps: local.caps.0 | Caps::READS_EXTRAS.0,
            services: if local.state == State::Left {
                Vec::new()
            } else {
                services
            },
            calls: local.calls.clone(),
            credentials,
            docs: self.documents,
            docs_out_of_force: self.documents_out_of_force,
            summary: self.summary.clone().filter(|_| self.extras_are_read),
            later: Vec::new(),
        }
    }

    /// Makes the credentials anew if a certificate or the list of services changed.
    fn renew_credentials(&mut self, local: &Local) -> Result<(), LocalError> {
        let services = local
            .services
            .iter()
            .map(|service| (service.name.clone(), service.signer.chain()))
            .collect();
        let chains: Chains = (local.signer.chain(), services);
        if self
            .credentials
            .as_ref()
            .is_some_and(|proof| proof.chains == chains)
        {
            return Ok(());
        }
        let mut credentials = Credentials {
            chain: chains.0.clone(),
            services: BTreeMap::new(),
        };
        for service in &local.services {
            let signature = service
                .signer
                .sign(&proof_bytes(&self.identity, &service.name))
                .map_err(|source| LocalError::Sign {
                    whose: service.name.to_string(),
                    source,
                })?;
            let proof = ServiceProof {
                chain: chains.1[&service.name].clone(),
                signature,
            };
            credentials.services.insert(service.name.clone(), proof);
        }
        let chain_too_long = |chain: &Vec<Vec<u8>>| chain.is_empty() || chain.len() > CHAIN_MAX;
        if chain_too_long(&chains.0) || chains.1.values().any(chain_too_long) {
            return Err(LocalError::Chain);
        }
        let bytes = credentials.encode();
        check_size(bytes.len(), CREDENTIALS_BYTES_MAX)?;
        let vetted = Vetted::check(&bytes, &self.trust_domain, &*self.verifier)
            .ok()
            .filter(|vetted| vetted.id == self.id())
            .ok_or(LocalError::Unproven)?;
        self.credentials = Some(Proof {
            chains,
            hash: hash(&bytes),
            vetted: Arc::new(vetted),
        });
        Ok(())
    }
}

fn announced(service: &LocalService) -> Service {
    Service {
        name: service.name.clone(),
        protocol: service.protocol.clone(),
        labels: service.labels.clone(),
        weight: service.weight,
        healthy: service.healthy,
    }
}

/// Everything a receiver would refuse is refused here first.
fn check(local: &Local) -> Result<(), LocalError> {
    let addr_ok = |addr: &std::net::SocketAddr| !addr.ip().is_unspecified() && addr.port() != 0;
    if !(1..=ADDRS_MAX).contains(&local.addrs.len()) || !local.addrs.iter().all(addr_ok) {
        return Err(LocalError::Addresses);
    }
    if !word_ok(&local.zone) {
        return Err(LocalError::Word(local.zone.clone()));
    }
    for (index, service) in local.services.iter().enumerate() {
        if service.protocol.is_empty() || !word_ok(&service.protocol) {
            return Err(LocalError::Word(service.protocol.clone()));
        }
        if !labels_ok(&service.labels) {
            return Err(LocalError::Labels(service.name.clone()));
        }
        if local.services[..index]
            .iter()
            .any(|other| other.name == service.name)
        {
            return Err(LocalError::Duplicate(service.name.clone()));
        }
    }
    let count = local
        .services
        .len()
        .max(local.calls.len() * SERVICES_MAX / CALLS_MAX);
    if count > SERVICES_MAX {
        Err(LocalError::TooMany)
    } else {
        Ok(())
    }
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), LocalError> {
    if bytes > bytes_max {
        Err(LocalError::TooLarge { bytes, bytes_max })
    } else {
        Ok(())
    }
}

/// The generation of a life that begins now: later than all before it, though the clock may have gone back. With a file, it is
/// kept there before it is used.
pub(crate) fn next_generation(now_ms: u64, at_least: u64, file: Option<&Path>) -> io::Result<u64> {
    let Some(file) = file else {
        return Ok(now_ms.max(at_least));
    };
    let named = |error: &dyn std::fmt::Display, kind| {
        io::Error::new(kind, format!("{}: {error}", file.display()))
    };
    let kept: u64 = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(|_source| {
            let what = "it holds no number; if this host's clock is right, remove it";
            named(&what, io::ErrorKind::InvalidData)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(named(&error, error.kind())),
    };
    let generation = now_ms.max(at_least).max(kept.saturating_add(1));
    write_atomically(file, format!("{generation}\n").as_bytes())
        .map_err(|error| named(&error, error.kind()))?;
    Ok(generation)
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("generation", &self.generation)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_grow_though_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("generation");
        assert_eq!(next_generation(1_000, 0, Some(&file)).unwrap(), 1_000);
        assert_eq!(next_generation(500, 0, Some(&file)).unwrap(), 1_001);
        assert_eq!(next_generation(500, 5_000, Some(&file)).unwrap(), 5_000);
        assert_eq!(next_generation(9_000, 0, Some(&file)).unwrap(), 9_000);
    }

    #[test]
    fn a_spoilt_generation_file_is_an_error_not_a_restart_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("generation");
        std::fs::write(&file, "12x").unwrap();
        assert!(next_generation(1_000, 0, Some(&file)).is_err());
    }
}
