//! One live connection between two proven identities.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::metrics::counter;
use tokio::sync::watch;

use crate::endpoint::{now, peer_chain};
use crate::h3::{Acceptor, Limits, StartError};
use crate::identities::{Identities, RefusedByPeer, WhyRefused};
use crate::identity::SpiffeId;
use crate::links::Links;
use crate::metrics;
use crate::svid::Leaf;

/// What is spoken on a connection, agreed by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/3: traffic between services.
    H3,
    /// Messages between agents.
    Gossip,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::H3, Self::Gossip];

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::H3 => b"h3",
            Self::Gossip => b"starling-gossip/1",
        }
    }

    pub(crate) fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.alpn() == alpn)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::H3 => "h3",
            Self::Gossip => "gossip",
        }
    }
}

/// A connection whose two ends have proved who they are. It ends by itself when either certificate ends, or when the
/// trust bundle no longer vouches for the peer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    conn: quinn::Connection,
    protocol: Protocol,
    local: SpiffeId,
    peer: Arc<Leaf>,
    ends: SystemTime,
}

impl Session {
    pub(crate) fn new(
        conn: quinn::Connection,
        protocol: Protocol,
        local: &Leaf,
        peer: Leaf,
        identities: Arc<Identities>,
        links: &Links,
    ) -> Self {
        let ends = local.not_after.min(peer.not_after);
        let guarded = guard_validity(conn.clone(), local.id.clone(), ends, identities);
        let (links, id) = (links.clone(), links.began(conn.clone()));
        tokio::spawn(async move {
            guarded.await;
            links.ended(id);
        });
        Self {
            conn,
            protocol,
            local: local.id.clone(),
            peer: Arc::new(peer),
            ends,
        }
    }

    /// Whom this end proved.
    pub fn local(&self) -> &SpiffeId {
        &self.local
    }

    /// Whom the other end proved.
    pub fn peer(&self) -> &SpiffeId {
        &self.peer.id
    }

    /// The certificate by which the other end proved it.
    pub fn peer_leaf(&self) -> &Leaf {
        &self.peer
    }

    /// When it ends because one of the two certificates does.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Where its packets come from now; may change when the peer roams (RFC 9000 §9).
    pub fn peer_addr(&self) -> SocketAddr {
        self.conn.remote_address()
    }

    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Round-trip time as QUIC estimates it.
    pub fn rtt(&self) -> Duration {
        self.conn.rtt()
    }

    /// Whether it is still open.
    pub fn is_open(&self) -> bool {
        self.conn.close_reason().is_none()
    }

    /// Resolves when it has ended, for whatever reason.
    pub async fn closed(&self) {
        self.conn.closed().await;
    }

    /// Ends it at once.
    pub fn close(&self) {
        self.conn.close(CLOSE_NO_ERROR.into(), b"");
    }

    /// Serves HTTP/3 on a session that a peer dialled.
    pub async fn serve(&self, limits: Limits) -> Result<Acceptor, StartError> {
        Acceptor::start(self.conn.clone(), limits).await
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.conn.stable_id() == other.conn.stable_id()
    }

    pub(crate) fn quinn(&self) -> &quinn::Connection {
        &self.conn
    }
}

/// Ends the connection when a leaf ends, when we no longer hold the identity that we proved, or when the bundle in force
/// no longer vouches for the peer. Ends itself with the connection.
async fn guard_validity(
    conn: quinn::Connection,
    local: SpiffeId,
    ends: SystemTime,
    identities: Arc<Identities>,
) {
    let mut changes = identities.changes();
    let reason = loop {
        // Looked at again every minute at the most, so that a clock set forward is noticed too.
        let left = ends.duration_since(now()).unwrap_or_default();
        tokio::select! {
            error = conn.closed() => {
                if let Some(why) = refused(&error) {
                    let by = conn.remote_address();
                    identities.refused(RefusedByPeer { id: local, by, why, at: now() });
                }
                return;
            }
            () = tokio::time::sleep(left.min(CLOCK_LOOK)) => if ends <= now() { break "expired" },
            Some(()) = changed(&mut changes) => if !still_trusted(&conn, &local, &identities) { break "untrusted" },
        }
    };
    tracing::info!(peer.addr = %conn.remote_address(), reason, "connection cut");
    counter!(metrics::CONNECTIONS_CUT, "reason" => reason).increment(1);
    conn.close(CLOSE_NO_ERROR.into(), b"");
}

/// Whether the peer closed because of our certificate. The client of a TLS 1.3 handshake learns of that only after it.
fn refused(error: &quinn::ConnectionError) -> Option<WhyRefused> {
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => {
            WhyRefused::of_close(u64::from(close.error_code))
        }
        _ => None,
    }
}

async fn changed(changes: &mut watch::Receiver<u64>) -> Option<()> {
    changes.changed().await.ok()
}

fn still_trusted(conn: &quinn::Connection, local: &SpiffeId, identities: &Identities) -> bool {
    let set = identities.current();
    let peer = peer_chain(conn).is_some_and(|chain| set.trust.verify(&chain, now()).is_ok());
    peer && set.svid(local).is_some()
}

const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// H3_NO_ERROR (RFC 9114 §8.1).
const CLOSE_NO_ERROR: u32 = 0x100;
