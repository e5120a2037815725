//! For tests: a certificate authority with real signatures, a network in memory that loses, delays and parts, a count of the
//! metrics, and a [`suite`] of behaviours that every [`Network`] has to show.
#![expect(clippy::unwrap_used, reason = "test code fails by panicking")]

mod attacker;
mod authority;
mod counters;
mod memory;
mod operator;
pub mod suite;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

pub use self::attacker::{Attacker, Captured};
pub use self::authority::{Authority, Svid};
pub use self::counters::Counters;
pub use self::memory::{Faults, Memory};
pub use self::operator::Operator;
use crate::{
    Caps, Carrier, Catalogue, Clock, Documents, Labels, Local, LocalService, Membership, NodeName,
    ServiceName, Settings, Signer, State, Verifier,
};

/// Somewhere nodes can be started. In memory here; over QUIC where the agent's own carrier is tested.
#[async_trait]
pub trait Network: Send + Sync {
    /// The trust domain.
    fn trust_domain(&self) -> &str;

    /// A port for the node called `name`, with a certificate for it. A second port of the same name is the same node, restarted.
    async fn port(&self, name: &str) -> Port;

    /// The SVID of a service.
    fn service(&self, name: &str) -> Arc<dyn Signer>;

    /// Signs with the key of the root itself.
    fn sign_as_root(&self, message: &[u8]) -> Vec<u8>;

    /// The wall clock of its nodes.
    fn clock(&self) -> Clock;

    /// Time between two rounds of reconciliation; everything the suite waits for is measured in it.
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// What a node needs to take part.
#[derive(Clone)]
pub struct Port {
    /// Its name.
    pub name: NodeName,
    /// Where others reach it.
    pub addr: SocketAddr,
    /// How it reaches others.
    pub carrier: Arc<dyn Carrier>,
    /// Its SVID.
    pub signer: Arc<dyn Signer>,
    /// What it trusts.
    pub verifier: Arc<dyn Verifier>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub port: Port,
    /// What it announces; change it and call [`Node::announce`].
    pub local: Local,
    /// Its membership.
    pub membership: Membership,
}

impl Node {
    /// Settings with one interval of `network` and these seeds.
    pub fn settings(network: &dyn Network, seeds: &[SocketAddr]) -> Settings {
        Settings {
            seeds: seeds.iter().map(ToString::to_string).collect(),
            interval: network.interval(),
            clock: network.clock(),
            ..Settings::new(network.trust_domain())
        }
    }

    /// Starts a node that offers nothing yet.
    pub async fn start(network: &dyn Network, name: &str, seeds: &[SocketAddr]) -> Self {
        let port = network.port(name).await;
        Self::start_at(port, Self::settings(network, seeds))
    }

    /// Starts a node at a port.
    pub fn start_at(port: Port, settings: Settings) -> Self {
        let local = Local {
            node: port.name.clone(),
            signer: port.signer.clone(),
            addrs: vec![port.addr],
            zone: "here".into(),
            cell: 0,
            state: State::Serving,
            caps: Caps::ISSUER,
            services: Vec::new(),
            calls: Vec::new(),
        };
        let membership = Membership::start(
            settings,
            port.carrier.clone(),
            port.verifier.clone(),
            local.clone(),
        )
        .unwrap();
        Self {
            port,
            local,
            membership,
        }
    }

    /// Announces `self.local`.
    pub fn announce(&self) {
        self.membership.set_local(self.local.clone()).unwrap();
    }

    /// Announces one more service, or the same one anew.
    pub fn offer(&mut self, network: &dyn Network, service: &str, labels: &[(&str, &str)]) {
        let name = ServiceName::parse(service).unwrap();
        self.local.services.retain(|other| other.name != name);
        self.local.services.push(LocalService {
            name,
            protocol: "http".into(),
            labels: labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect::<Labels>(),
            weight: 100,
            healthy: true,
            signer: network.service(service),
        });
        self.announce();
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.port.name.as_str()
    }

    /// Its present catalogue.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.membership.catalogue()
    }

    /// The documents it holds.
    pub fn documents(&self) -> Arc<Documents> {
        self.membership.documents()
    }

    /// Waits until the documents are as `condition` wants them; tells how long that took. Panics after `limit`.
    pub async fn until_documents(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Documents) -> bool,
    ) -> Duration {
        let began = Instant::now();
        let mut changes = self.membership.document_changes();
        let met = async {
            while !condition(&self.documents()) {
                changes.changed().await.unwrap();
            }
        };
        if timeout(limit, met).await.is_err() {
            panic!(
                "{}: not within {limit:?}: {what}\n{:#?}",
                self.name(),
                self.documents()
            );
        }
        began.elapsed()
    }

    /// Waits until the catalogue is as `condition` wants it; tells how long that took. Panics after `limit`.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Catalogue) -> bool,
    ) -> Duration {
        let began = Instant::now();
        let mut changes = self.membership.changes();
        let met = async {
            while !condition(&self.catalogue()) {
                changes.changed().await.unwrap();
            }
        };
        if timeout(limit, met).await.is_err() {
            panic!(
                "{}: not within {limit:?}: {what}\n{:#?}",
                self.name(),
                self.catalogue()
            );
        }
        began.elapsed()
    }
}
