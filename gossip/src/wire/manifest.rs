//! The manifest: what one node says of itself, signed with the key of its SVID.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::summary::{decode_summary, encode_summary};
use super::{Blob, decode, decode_as, encode, encode_as};
use crate::local::State;
use crate::metrics::Refusal;
use crate::names::{Labels, NodeId, ServiceName, labels_ok};
use crate::summary::Summary;

/// A manifest that has the right shape. Whether it is true only its signature tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) trust_domain: [u8; 16],
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// The version chitchat knows this manifest by. Signed, so that nobody can push it ahead.
    pub(crate) kv_version: u64,
    /// Seconds since 1970. For noticing what is long past, never for ordering.
    pub(crate) issued: u64,
    pub(crate) ttl_s: u32,
    pub(crate) cell: u32,
    pub(crate) state: State,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) zone: String,
    /// Bits for what later versions can do.
    pub(crate) caps: u32,
    pub(crate) services: Vec<Service>,
    pub(crate) calls: Vec<ServiceName>,
    /// SHA-256 of the credentials.
    pub(crate) credentials: [u8; 32],
    /// The digest of the documents the node holds, if it holds any.
    pub(crate) docs: Option<[u8; 32]>,
    /// How many of them have no effect on the node in their newest revision.
    pub(crate) docs_out_of_force: u16,
    /// How its calls go.
    pub(crate) summary: Option<Summary>,
    /// What later versions say.
    pub(crate) later: Vec<Extra>,
}

/// What was not in the first manifests. Those who do not know a tag carry it and ignore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub(crate) tag: u16,
    pub(crate) body: Blob,
}

/// One announced instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) protocol: String,
    pub(crate) labels: Labels,
    pub(crate) weight: u32,
    pub(crate) healthy: bool,
}

/// A manifest as it travels: the very bytes that were signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) manifest: Blob,
    pub(crate) signature: Blob,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a record and the manifest in it. The signature is not looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Manifest), Refusal> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let record: Self = decode::<_, { super::READ_FACTOR * RECORD_BYTES_MAX }>(bytes)?;
        let manifest = Manifest::decode(&record.manifest.0)?;
        Ok((record, manifest))
    }
}

impl Manifest {
    /// As the first version, which everybody reads, unless there is more to say.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let manifest = ManifestWire::from(self);
        let extras = self.extras();
        if extras.is_empty() {
            encode(&manifest)
        } else {
            encode_as(EXTENDED, &ExtendedWire { manifest, extras })
        }
    }

    fn extras(&self) -> Vec<Extra> {
        let summary = self.summary.as_ref().map(|summary| Extra {
            tag: SUMMARY_TAG,
            body: Blob(encode_summary(summary)),
        });
        summary.into_iter().chain(self.later.clone()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        const LIMIT: usize = super::READ_FACTOR * MANIFEST_BYTES_MAX;
        if bytes.first() != Some(&EXTENDED) {
            let wire: ManifestWire = decode::<_, LIMIT>(bytes)?;
            return wire.check().ok_or(Refusal::Malformed);
        }
        let wire: ExtendedWire = decode_as::<_, LIMIT>(EXTENDED, bytes)?;
        wire.check().ok_or(Refusal::Malformed)
    }

    /// Whether the node announces the same as in `other`, how its calls go aside.
    pub(crate) fn tells_same(&self, other: &Self) -> bool {
        let same = |other: &Self| Self {
            sequence: other.sequence,
            kv_version: other.kv_version,
            issued: other.issued,
            summary: other.summary.clone(),
            ..self.clone()
        };
        *other == same(other)
    }

    /// Where gossip with this node goes. Fixed for one generation.
    pub(crate) fn gossip_addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// What orders the manifests of one node.
    pub(crate) fn order(&self) -> (u64, u64) {
        (self.generation, self.sequence)
    }
}

/// What a node signs to publish a manifest. The beginning keeps it apart from everything else the same key signs.
pub(crate) fn signed_bytes(trust_domain: &str, manifest: &[u8]) -> Vec<u8> {
    [
        b"starling-manifest/1\0",
        trust_domain.as_bytes(),
        b"\0",
        manifest,
    ]
    .concat()
}

/// The trust domain as manifests name it.
pub(crate) fn trust_domain_hash(trust_domain: &str) -> [u8; 16] {
    NodeId::of(trust_domain).bytes()
}

/// Whether a zone or protocol is a plain word, so that it can stand in logs and metrics as it is.
pub(crate) fn word_ok(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
}

/// A manifest with more than the first version has.
#[derive(Serialize, Deserialize)]
struct ExtendedWire {
    manifest: ManifestWire,
    extras: Vec<Extra>,
}

#[derive(Serialize, Deserialize)]
struct ManifestWire {
    trust_domain: [u8; 16],
    node: [u8; 16],
    generation: u64,
    sequence: u64,
    kv_version: u64,
    issued: u64,
    ttl_s: u32,
    cell: u32,
    state: StateWire,
    addrs: Vec<SocketAddr>,
    zone: String,
    caps: u32,
    services: Vec<ServiceWire>,
    calls: Vec<String>,
    credentials: [u8; 32],
    docs: Option<[u8; 32]>,
    docs_out_of_force: u16,
}

#[derive(Serialize, Deserialize)]
enum StateWire {
    Serving,
    Draining,
    Left,
}

#[derive(Serialize, Deserialize)]
struct ServiceWire {
    name: String,
    protocol: String,
    labels: Labels,
    weight: u32,
    healthy: bool,
}

impl From<&Manifest> for ManifestWire {
    fn from(manifest: &Manifest) -> Self {
        Self {
            trust_domain: manifest.trust_domain,
            node: manifest.node.bytes(),
            generation: manifest.generation,
            sequence: manifest.sequence,
            kv_version: manifest.kv_version,
            issued: manifest.issued,
            ttl_s: manifest.ttl_s,
            cell: manifest.cell,
            state: match manifest.state {
                State::Serving => StateWire::Serving,
                State::Draining => StateWire::Draining,
                State::Left => StateWire::Left,
            },
            addrs: manifest.addrs.clone(),
            zone: manifest.zone.clone(),
            caps: manifest.caps,
            services: manifest.services.iter().map(ServiceWire::from).collect(),
            calls: manifest.calls.iter().map(ToString::to_string).collect(),
            credentials: manifest.credentials,
            docs: manifest.docs,
            docs_out_of_force: manifest.docs_out_of_force,
        }
    }
}

impl From<&Service> for ServiceWire {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.to_string(),
            protocol: service.protocol.clone(),
            labels: service.labels.clone(),
            weight: service.weight,
            healthy: service.healthy,
        }
    }
}

impl ExtendedWire {
    /// Each tag once and in order, and at least one, or the first version would have been used.
    fn check(self) -> Option<Manifest> {
        let counts_ok = (1..=EXTRAS_MAX).contains(&self.extras.len());
        if !counts_ok || !self.extras.is_sorted_by(|a, b| a.tag < b.tag) {
            return None;
        }
        let mut manifest = self.manifest.check()?;
        for extra in self.extras {
            if extra.tag == SUMMARY_TAG {
                manifest.summary = Some(decode_summary(&extra.body.0)?);
            } else {
                manifest.later.push(extra);
            }
        }
        Some(manifest)
    }
}

impl ManifestWire {
    /// Everything that can be said about a manifest without knowing anything else.
    fn check(self) -> Option<Manifest> {
        let addrs_ok = (1..=ADDRS_MAX).contains(&self.addrs.len())
            && self
                .addrs
                .iter()
                .all(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
        let numbers_ok = self.generation > 0
            && (1..NUMBER_MAX).contains(&self.sequence)
            && (1..NUMBER_MAX).contains(&self.kv_version)
            && (1..=TTL_S_MAX).contains(&self.ttl_s);
        let counts_ok = self.services.len() <= SERVICES_MAX && self.calls.len() <= CALLS_MAX;
        if !addrs_ok || !numbers_ok || !counts_ok || !word_ok(&self.zone) {
            return None;
        }
        let services: Vec<Service> = self
            .services
            .into_iter()
            .map(ServiceWire::check)
            .collect::<Option<_>>()?;
        let calls = self
            .calls
            .iter()
            .map(|name| ServiceName::parse(name).ok())
            .collect::<Option<_>>()?;
        // In order and each once, so that there is one way to say it.
        services
            .is_sorted_by(|a, b| a.name < b.name)
            .then_some(Manifest {
                trust_domain: self.trust_domain,
                node: NodeId::from_bytes(self.node),
                generation: self.generation,
                sequence: self.sequence,
                kv_version: self.kv_version,
                issued: self.issued,
                ttl_s: self.ttl_s,
                cell: self.cell,
                state: match self.state {
                    StateWire::Serving => State::Serving,
                    StateWire::Draining => State::Draining,
                    StateWire::Left => State::Left,
                },
                addrs: self.addrs,
                zone: self.zone,
                caps: self.caps,
                services,
                calls,
                credentials: self.credentials,
                docs: self.docs,
                docs_out_of_force: self.docs_out_of_force,
                summary: None,
                later: Vec::new(),
            })
    }
}

impl ServiceWire {
    fn check(self) -> Option<Service> {
        let name = ServiceName::parse(&self.name).ok()?;
        let ok = word_ok(&self.protocol) && !self.protocol.is_empty() && labels_ok(&self.labels);
        ok.then_some(Service {
            name,
            protocol: self.protocol,
            labels: self.labels,
            weight: self.weight,
            healthy: self.healthy,
        })
    }
}

/// The longest manifest: 100 services with short labels are 6 KiB. At the limit a node refuses to announce more.
pub(crate) const MANIFEST_BYTES_MAX: usize = 16 * 1024;

/// The longest record: a manifest, a P-256 signature (72 bytes) or one up to RSA-4096 (512), lengths.
pub(crate) const RECORD_BYTES_MAX: usize = MANIFEST_BYTES_MAX + 1024;

/// Addresses of one node: a few interfaces, two families.
pub(crate) const ADDRS_MAX: usize = 8;

/// Services of one node; their proofs have to fit in its credentials.
pub(crate) const SERVICES_MAX: usize = 128;

/// Services one node's apps call.
pub(crate) const CALLS_MAX: usize = 256;

const WORD_BYTES_MAX: usize = 63;

/// The version of a manifest with extras.
const EXTENDED: u8 = 2;

/// Extras of one manifest: a few versions' worth.
const EXTRAS_MAX: usize = 8;

const SUMMARY_TAG: u16 = 1;

/// A manifest is good for an hour at most, so that one that was kept back cannot come to life much later.
const TTL_S_MAX: u32 = 3600;

/// Counters stay far from where adding one would wrap.
const NUMBER_MAX: u64 = 1 << 62;
