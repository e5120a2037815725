//! What this node says of itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::names::{Labels, NodeName, ServiceName};
use crate::proof::{SignError, Signer};

/// What this node announces. Hand a changed copy to [`Membership::set_local`](crate::Membership::set_local).
#[derive(Clone)]
pub struct Local {
    /// Our name.
    pub node: NodeName,
    /// Signs with the node's SVID.
    pub signer: Arc<dyn Signer>,
    /// Where other nodes reach us, best first. The first one is where gossip goes.
    pub addrs: Vec<SocketAddr>,
    /// Failure domain, such as a rack; empty if there is only one.
    pub zone: String,
    /// The cell we gossip in. Manifests of other cells are refused.
    pub cell: u32,
    /// Whether we take new work.
    pub state: State,
    /// What we do for others beside carrying calls.
    pub caps: Caps,
    /// The instances we offer.
    pub services: Vec<LocalService>,
    /// The services our apps call.
    pub calls: Vec<ServiceName>,
}

/// One instance on this node.
#[derive(Clone)]
pub struct LocalService {
    /// The service it is an instance of.
    pub name: ServiceName,
    /// What it speaks: `tcp`, `http`.
    pub protocol: String,
    /// Its labels; see [`labels_ok`](crate::names::labels_ok).
    pub labels: Labels,
    /// Its share of calls compared to others.
    pub weight: u32,
    /// Whether its health check passes.
    pub healthy: bool,
    /// Signs with the service's SVID: without it nobody believes that we may offer the service.
    pub signer: Arc<dyn Signer>,
}

/// Whether a node takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// It does.
    #[default]
    Serving,
    /// It finishes what it has and is about to leave.
    Draining,
    /// It is gone on purpose.
    Left,
}

/// What a node does for others. A bit keeps its meaning for ever; those we do not know are carried and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Caps(pub u32);

impl Caps {
    /// It renews certificates.
    pub const ISSUER: Self = Self(1);

    /// It reads manifests that say more than the first version does. The crate says so by itself.
    pub const READS_EXTRAS: Self = Self(2);

    /// Whether all of `other` is among these.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Why what we would announce cannot be announced. What was announced before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No address to be reached at, or more than can be announced.
    #[error("a node announces 1 to 8 addresses")]
    Addresses,
    /// The zone or a protocol is too long or not plain text.
    #[error("`{0}` is not a plain word of at most 63 characters")]
    Word(String),
    /// Labels with unusual characters, or too many.
    #[error("the labels of service `{0}` cannot be announced")]
    Labels(ServiceName),
    /// The same service twice.
    #[error("service `{0}` is listed twice")]
    Duplicate(ServiceName),
    /// More than fits in one manifest or its credentials.
    #[error("the node announces too much: {bytes} bytes of at most {bytes_max}")]
    TooLarge {
        /// What it comes to.
        bytes: usize,
        /// What may be.
        bytes_max: usize,
    },
    /// More services or calls than can be announced.
    #[error("a node announces at most 128 services and 256 calls")]
    TooMany,
    /// A chain with no certificate or with too many.
    #[error("a certificate chain has 1 to 4 certificates")]
    Chain,
    /// The node's certificate does not prove the node's name to ourselves; to others it would not either.
    #[error("the node's certificate does not prove its name in this trust domain")]
    Unproven,
    /// The node's name changed, which only a restart can do.
    #[error("a running node cannot change its name")]
    Renamed,
    /// The generation of the new life that another address means could not be kept.
    #[error("the generation cannot be kept")]
    Generation(#[source] std::io::Error),
    /// A key could not be used.
    #[error("the {whose} key could not sign")]
    Sign {
        /// `node`, or the name of a service.
        whose: String,
        /// Why not.
        source: SignError,
    },
}

impl Local {
    /// Services that a node announces at most.
    pub const SERVICES_MAX: usize = crate::wire::manifest::SERVICES_MAX;

    /// Services that a node says it calls at most.
    pub const CALLS_MAX: usize = crate::wire::manifest::CALLS_MAX;
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("node", &self.node)
            .field("addrs", &self.addrs)
            .field("zone", &self.zone)
            .field("cell", &self.cell)
            .field("state", &self.state)
            .field("caps", &self.caps)
            .field("services", &self.services)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalService")
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .field("labels", &self.labels)
            .field("weight", &self.weight)
            .field("healthy", &self.healthy)
            .finish_non_exhaustive()
    }
}
