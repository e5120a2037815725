//! chitchat behind our own names: it picks partners, finds who lacks what, and watches heartbeats.
//!
//! What it exchanges passes through an [`Outlet`] on the way out and the guard on the way in; it never sees bytes of a peer.

pub(crate) mod codec;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, DeletionStatus,
    FailureDetectorConfig, VersionedValue, spawn_chitchat,
};
use tokio::sync::mpsc;

use self::codec::{CLUSTER, KEY, Message};
use crate::names::NodeId;

/// Where what chitchat wants to say goes. Must not wait.
pub(crate) trait Outlet: Send + Sync + 'static {
    /// `reply` is the nonce of the handshake that this continues; without one it begins another.
    fn say(&self, to: SocketAddr, message: Message, reply: Option<u64>);
}

/// Something that passed the guard, on its way to chitchat.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) from: SocketAddr,
    pub(crate) nonce: u64,
    pub(crate) message: ChitchatMessage,
}

/// One run of chitchat, for one life of this node. Dropping it ends the run.
pub(crate) struct Engine {
    handle: ChitchatHandle,
    inbox: mpsc::Sender<Delivery>,
}

impl Engine {
    pub(crate) async fn start(
        id: ChitchatId,
        interval: Duration,
        dead_grace: Duration,
        outlet: Arc<dyn Outlet>,
    ) -> anyhow::Result<Self> {
        let (inbox, outbox) = mpsc::channel(INBOX_MAX);
        let config = ChitchatConfig {
            listen_addr: id.gossip_advertise_addr,
            chitchat_id: id,
            cluster_id: CLUSTER.into(),
            gossip_interval: interval,
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::new(
                PHI_THRESHOLD,
                PHI_WINDOW,
                10 * interval,
                interval,
                dead_grace,
            ),
            marked_for_deletion_grace_period: TOMBSTONE_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let wire = Wire {
            inbox: outbox,
            outlet,
            reply: None,
        };
        let handle = spawn_chitchat(config, Vec::new(), &Opening(Mutex::new(Some(wire)))).await?;
        Ok(Self { handle, inbox })
    }

    /// Which life this run is for.
    pub(crate) fn id(&self) -> &ChitchatId {
        self.handle.chitchat_id()
    }

    /// Opens a handshake with whoever is at `addr`.
    pub(crate) fn gossip(&self, addr: SocketAddr) {
        // Fails only if the run has ended, which its supervisor sees.
        let _ = self.handle.gossip(addr);
    }

    /// Hands over what passed the guard; says whether there was room.
    pub(crate) fn deliver(&self, delivery: Delivery) -> bool {
        self.inbox.try_send(delivery).is_ok()
    }

    /// Makes our own version `version`.
    pub(crate) async fn announce(&self, version: u64) {
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let own = chitchat.self_node_state();
        while own.max_version() < version {
            let next = own.max_version() + 1;
            own.set(KEY, next);
        }
    }

    /// Tells which versions we hold by whatever means, so that they stand in digests and others can miss them. chitchat takes
    /// up lives it has not heard of, except those it has just forgotten.
    pub(crate) async fn learned(&self, versions: &[(ChitchatId, u64)]) {
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        for (id, version) in versions {
            let version = *version;
            let behind = chitchat
                .node_state(id)
                .is_none_or(|state| state.max_version() < version);
            if behind {
                let value = VersionedValue {
                    value: version.to_string(),
                    version,
                    status: DeletionStatus::Set,
                };
                let value = std::iter::once((KEY.to_string(), value));
                chitchat.reset_node_state_if_update(id, value, version, 0);
            }
        }
    }

    /// The lives the failure detector holds alive, ourselves aside, in order.
    pub(crate) async fn alive(&self) -> Vec<(NodeId, u64)> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let mut alive: Vec<(NodeId, u64)> = chitchat
            .live_nodes()
            .filter(|id| *id != chitchat.self_chitchat_id())
            .filter_map(|id| Some((NodeId::parse(&id.node_id)?, id.generation_id)))
            .collect();
        alive.sort_unstable();
        alive
    }

    /// Ends the run as a panic in it would.
    #[cfg(test)]
    pub(crate) fn abort(&self) {
        self.handle.abort();
    }

    /// Ends when the run does, with the reason.
    pub(crate) fn ended(&self) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        self.handle.termination_watcher()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}

/// The id by which chitchat knows one life of a node.
pub(crate) fn chitchat_id(node: NodeId, generation: u64, addr: SocketAddr) -> ChitchatId {
    ChitchatId::new(node.to_string(), generation, addr)
}

struct Opening(Mutex<Option<Wire>>);

#[async_trait]
impl Transport for Opening {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wire = wire.ok_or_else(|| anyhow::anyhow!("opened twice"))?;
        Ok(Box::new(wire))
    }
}

/// chitchat takes one message, answers it if there is an answer, and only then takes the next. So the nonce of what it took
/// last is that of what it answers.
struct Wire {
    inbox: mpsc::Receiver<Delivery>,
    outlet: Arc<dyn Outlet>,
    reply: Option<u64>,
}

#[async_trait]
impl Socket for Wire {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        match Message::read(&message) {
            Some(message @ Message::Syn { .. }) => self.outlet.say(to, message, None),
            Some(message) => self.outlet.say(to, message, self.reply.take()),
            None => tracing::error!("chitchat speaks in a way we do not know"),
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let delivery = self
            .inbox
            .recv()
            .await
            .ok_or_else(|| anyhow::anyhow!("the membership is closed"))?;
        self.reply = Some(delivery.nonce);
        Ok((delivery.from, delivery.message))
    }
}

/// Messages waiting for chitchat. It takes one in well under a millisecond, so more than this is a flood; they are dropped.
const INBOX_MAX: usize = 128;

/// Silence of eight mean intervals is suspicious.
const PHI_THRESHOLD: f64 = 8.0;

/// Intervals remembered per node, 0.8 KiB; chitchat's own default takes 8.
const PHI_WINDOW: usize = 100;

/// Nothing is ever deleted, a manifest replaces the one before.
const TOMBSTONE_GRACE: Duration = Duration::from_secs(30 * 60);
