//! The verified view of the mesh, as one immutable snapshot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::local::State;
use crate::names::{Labels, NodeName, ServiceName};

/// Everyone and everything we have proof of, at one moment. Replaced whole, never changed.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Grows by one with each snapshot.
    pub version: u64,
    /// Our own name.
    pub local: NodeName,
    /// When this snapshot was made.
    pub built_at: Instant,
    /// Every member we hold a manifest of, ourselves and the dead included.
    pub members: BTreeMap<NodeName, Arc<Member>>,
    /// The instances worth trying, by service: those of nodes that left or are dead are not in it, except where that would take
    /// away more than half of a service; then they stand here as [`Liveness::Suspect`].
    pub services: BTreeMap<ServiceName, Vec<Arc<Instance>>>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its SPIFFE ID.
    pub identity: Arc<str>,
    /// Where it is reached, best first; never empty.
    pub addrs: Vec<SocketAddr>,
    /// Its failure domain.
    pub zone: Arc<str>,
    /// Its cell.
    pub cell: u32,
    /// Whether it takes new work.
    pub state: State,
    /// Which life of the node this is; a restart has a higher one.
    pub generation: u64,
    /// Counts what it announced in this life.
    pub sequence: u64,
    /// Whether we believe it runs.
    pub liveness: Liveness,
    /// When we took in its present manifest.
    pub heard_at: Instant,
    /// When its liveness last changed.
    pub liveness_at: Instant,
    /// The services its apps call.
    pub calls: Vec<ServiceName>,
    /// Services it announces without proof that it may; they are left out of the catalogue.
    pub unproven: Vec<ServiceName>,
    /// When its certificate runs out, in seconds since 1970.
    pub not_after: u64,
}

/// One service on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The node it runs on.
    pub node: NodeName,
    /// The service it is an instance of.
    pub service: ServiceName,
    /// What it speaks: `tcp`, `http`.
    pub protocol: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its share of calls compared to others; a draining node's is 0.
    pub weight: u32,
    /// Whether its health check passes, as its own node says.
    pub healthy: bool,
    /// Where its node is reached.
    pub addr: SocketAddr,
    /// Its node's failure domain.
    pub zone: Arc<str>,
    /// Whether we believe its node runs: alive or suspect.
    pub liveness: Liveness,
    /// When anything above last changed.
    pub changed_at: Instant,
}

/// Whether we believe that a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It does.
    Alive,
    /// It may not: try others first.
    Suspect,
    /// It does not: gossip lost it and our own probe went unanswered.
    Dead,
}

impl Catalogue {
    /// A mesh of nobody, as before the start.
    pub(crate) fn empty(local: NodeName) -> Self {
        Self {
            version: 0,
            local,
            built_at: Instant::now(),
            members: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// The instances of a service; empty if nobody offers it.
    pub fn instances(&self, service: &str) -> &[Arc<Instance>] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// The member of that name.
    pub fn member(&self, node: &str) -> Option<&Arc<Member>> {
        self.members.get(node)
    }
}
