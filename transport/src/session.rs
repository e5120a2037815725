//! One live connection between two proven identities.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::credential::{Credential, OwnRevocation};
use crate::endpoint::now;
use crate::h3::{Acceptor, Limits, StartError};
use crate::identities::{Identities, RefusedByPeer, WhyRefused};
use crate::identity::SpiffeId;
use crate::links::Links;
use crate::metrics;
use crate::svid::{Leaf, Refusal};

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

    /// Only gossip may go on with a revoked certificate of ours, for as long as the peer accepts it.
    pub(crate) fn own_revocation(self) -> OwnRevocation {
        match self {
            Self::H3 => OwnRevocation::Ends,
            Self::Gossip => OwnRevocation::LeftToPeer,
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
    peer: Credential,
    ends: SystemTime,
}

impl Session {
    /// A session over `conn`, unless one of the two ends stopped being good since the handshake. From then on it is closed as
    /// soon as one does.
    pub(crate) fn new(
        conn: quinn::Connection,
        protocol: Protocol,
        local: Credential,
        peer: Credential,
        identities: Arc<Identities>,
        links: &Links,
    ) -> Result<Self, SessionRefused> {
        let ends = judge(&identities, protocol, &local, &peer);
        let ends = ends.inspect_err(|_refused| conn.close(CLOSE_NO_ERROR.into(), b""))?;
        let session = Self {
            conn: conn.clone(),
            protocol,
            local: local.id().clone(),
            peer: peer.clone(),
            ends,
        };
        let (links, id) = (links.clone(), links.began(conn.clone()));
        tokio::spawn(async move {
            guard_validity(conn, protocol, local, peer, &identities).await;
            links.ended(id);
        });
        Ok(session)
    }

    /// Whom this end proved.
    pub fn local(&self) -> &SpiffeId {
        &self.local
    }

    /// Whom the other end proved.
    pub fn peer(&self) -> &SpiffeId {
        self.peer.id()
    }

    /// The certificate by which the other end proved it.
    pub fn peer_leaf(&self) -> &Leaf {
        self.peer.leaf()
    }

    /// When it ends because a certificate of one of the two chains does.
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

/// Which end of a connection is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionRefused {
    /// This one.
    Own(Refusal),
    /// The other one.
    Peer(Refusal),
}

impl SessionRefused {
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Own(refusal) | Self::Peer(refusal) => refusal,
        }
    }
}

/// When the first certificate of both chains ends.
fn judge(
    identities: &Identities,
    protocol: Protocol,
    local: &Credential,
    peer: &Credential,
) -> Result<SystemTime, SessionRefused> {
    let peer = identities.judge(peer).map_err(SessionRefused::Peer)?;
    let own = identities.judge_shown(local, protocol.own_revocation());
    Ok(own.map_err(SessionRefused::Own)?.min(peer))
}

/// Ends the connection as soon as one of its ends is no longer good. Ends itself with the connection.
async fn guard_validity(
    conn: quinn::Connection,
    protocol: Protocol,
    local: Credential,
    peer: Credential,
    identities: &Identities,
) {
    let good = identities.until_refused(|| judge(identities, protocol, &local, &peer));
    let began = now();
    let settle = async {
        tokio::time::sleep(SETTLED).await;
        identities.accepted(local.id(), conn.remote_address(), began);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = settle => {}
        error = conn.closed() => {
            if let Some(why) = refused(&error) {
                let (id, by) = (local.id().clone(), conn.remote_address());
                identities.refused(RefusedByPeer { id, by, why, at: now() });
            }
        }
        refused = good => {
            let refusal = refused.refusal();
            tracing::info!(peer.addr = %conn.remote_address(), reason = refusal.as_str(), "connection cut");
            metrics::connection_cut(refusal);
            conn.close(CLOSE_NO_ERROR.into(), b"");
        }
    }
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

/// A peer that refuses our certificate closes the connection within a round trip.
const SETTLED: Duration = Duration::from_secs(5);

/// H3_NO_ERROR (RFC 9114 §8.1).
const CLOSE_NO_ERROR: u32 = 0x100;
