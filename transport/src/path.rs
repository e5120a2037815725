//! Looking at the way to another agent: whether it answers, how soon, and how large packets may be.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::Endpoint as QuinnEndpoint;
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::{Callee, DialError, Endpoint, peer_credential};
use crate::identity::SpiffeId;
use crate::session::Protocol;
use crate::svid::Leaf;
use crate::tuning;

/// What a handshake with a peer told of the path to it.
#[derive(Debug, Clone)]
pub struct Path {
    /// What the peer proved.
    pub peer: Leaf,
    /// How long the handshake took, retransmissions included.
    pub handshake: Duration,
    /// Round-trip time as QUIC estimates it.
    pub rtt: Duration,
    /// Bytes of UDP payload that were seen to arrive there in one packet; at most [`MTU_MAX`].
    pub mtu: u16,
}

/// From which port a path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The mesh port, as all traffic is.
    MeshPort,
    /// A port that was never used, as the first packet of a stranger is: firewalls that let in answers only do not know it.
    AnotherPort,
}

impl Endpoint {
    /// Makes a connection of its own to `callee` at `addr`, finds out how large packets may be, and closes it. Nothing of it
    /// is pooled or counted as a dial. Takes `budget` at most, and a few round trips where nothing is wrong.
    pub async fn measure(
        &self,
        caller: &SpiffeId,
        callee: &Callee,
        addr: SocketAddr,
        from: From,
        budget: Duration,
    ) -> Result<Path, DialError> {
        let began = Instant::now();
        let other = match from {
            From::MeshPort => None,
            From::AnotherPort => Some(another_socket(addr)?),
        };
        let socket = other.as_ref().unwrap_or_else(|| self.quinn());
        let settings = tuning::measuring();
        let dialled = self.connect(socket, caller, callee, addr, Protocol::H3, settings);
        let dialled = timeout(budget, dialled).await;
        let (conn, _) = dialled.unwrap_or(Err(DialError::TimedOut { addr, budget }))?;
        let handshake = began.elapsed();
        let mtu = settled_mtu(&conn, began + budget).await;
        // The peer may refuse our certificate after our side of the handshake is done (RFC 8446 §4.4.2.4).
        if let Some(source) = conn.close_reason() {
            return Err(DialError::handshake(addr, source));
        }
        let rtt = conn.rtt();
        let peer = peer_credential(&conn).ok_or(DialError::NoIdentity { addr })?;
        let peer = peer.leaf().clone();
        conn.close(CLOSE_NO_ERROR.into(), b"");
        if other.is_some() {
            // Its socket goes with it, and the peer should hear of the end before.
            let _ = timeout(CLOSE_WAIT, socket.wait_idle()).await;
        }
        Ok(Path {
            peer,
            handshake,
            rtt,
            mtu,
        })
    }
}

/// A client on a port that the system chooses.
fn another_socket(addr: SocketAddr) -> Result<QuinnEndpoint, DialError> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    QuinnEndpoint::client(any).map_err(|source| DialError::Socket { source })
}

/// The size that the search came to: it is over at the largest, or when no further probe is sent.
async fn settled_mtu(conn: &quinn::Connection, deadline: Instant) -> u16 {
    let (mut probes, mut since) = (0, Instant::now());
    loop {
        let path = conn.stats().path;
        if path.sent_plpmtud_probes != probes {
            (probes, since) = (path.sent_plpmtud_probes, Instant::now());
        }
        let is_over = path.current_mtu >= tuning::MTU_MAX
            || since.elapsed() > QUIET + 6 * path.rtt
            || Instant::now() >= deadline
            || conn.close_reason().is_some();
        if is_over {
            return path.current_mtu;
        }
        sleep(LOOK).await;
    }
}

/// Packets of this size are sent before anything is known of a path: one that does not carry them makes every new
/// connection wait until QUIC gives up on the size.
pub const MTU_NEEDED: u16 = tuning::INITIAL_MTU;

/// The largest packets that are tried.
pub const MTU_MAX: u16 = tuning::MTU_MAX;

/// A lost probe is noticed within three round trips and the time that a peer may take to acknowledge, 25 ms.
const QUIET: Duration = Duration::from_millis(400);
const LOOK: Duration = Duration::from_millis(5);
const CLOSE_WAIT: Duration = Duration::from_millis(100);

/// H3_NO_ERROR (RFC 9114 §8.1).
const CLOSE_NO_ERROR: u32 = 0x100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revocations;
    use crate::testing::Ca;

    const BUDGET: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_path_that_is_whole_carries_the_largest_packets_from_either_port() {
        let ca = Ca::new();
        let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
        let callee = Callee::Exactly(ca.node("b"));
        for from in [From::MeshPort, From::AnotherPort] {
            let caller = ca.node("a");
            let measured = a.endpoint.measure(&caller, &callee, b.addr, from, BUDGET);
            let path = measured.await.unwrap();
            assert_eq!((path.mtu, &path.peer.id), (MTU_MAX, &ca.node("b")));
            assert!(b.endpoint.accept().await.is_some());
        }
        let from = b.endpoint.heard_from(a.addr);
        assert!(from.is_some(), "the mesh port was heard");
    }

    #[tokio::test]
    async fn a_refused_certificate_is_no_path_that_loses_large_packets() {
        let ca = Ca::new();
        let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
        let mut revocations = Revocations::default();
        revocations.add_key(a.identities.current().node.leaf().key_hash);
        b.identities.revoke(revocations);
        let (caller, callee) = (ca.node("a"), Callee::Exactly(ca.node("b")));
        for from in [From::MeshPort, From::AnotherPort] {
            let measured = a.endpoint.measure(&caller, &callee, b.addr, from, BUDGET);
            let error = measured.await.unwrap_err();
            assert!(matches!(error, DialError::Handshake { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn silence_is_waited_for_within_the_budget() {
        let ca = Ca::new();
        let a = ca.endpoint("a", &["web"]);
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let budget = Duration::from_millis(200);
        let (caller, addr) = (ca.node("a"), silent.local_addr().unwrap());
        let from = From::MeshPort;
        let measured = a
            .endpoint
            .measure(&caller, &Callee::AnyNode, addr, from, budget);
        let error = measured.await.unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
    }
}
