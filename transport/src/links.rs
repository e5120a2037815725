//! Which connections there are, and how they do.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How one connection does, or did at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Tells it from all others of this process.
    pub id: u64,
    /// Where its peer is.
    pub addr: SocketAddr,
    /// False once it has ended; it is told of once more then, and never again.
    pub is_open: bool,
    /// Round-trip time as QUIC estimates it.
    pub rtt: Duration,
    /// Bytes that may be under way unacknowledged.
    pub congestion_window: u64,
    /// Bytes of UDP payload in the largest packet that it sends.
    pub mtu: u16,
    /// What it counted from its beginning on.
    pub counts: Counts,
}

/// Of one connection, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets sent, probes and acknowledgements included.
    pub sent: u64,
    /// Of those, the ones declared lost; probes for larger packets are not among them.
    pub lost: u64,
    /// Times the congestion window was cut.
    pub congestion_events: u64,
    /// Times larger packets stopped arriving, so that the connection fell back to the smallest.
    pub black_holes: u64,
}

/// The connections of an endpoint. Cheap to clone; a clone sees the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<u64, quinn::Connection>,
    /// Not told of yet.
    ended: VecDeque<Link>,
}

impl Links {
    /// Keeps `conn` until [`Links::ended`].
    pub(crate) fn began(&self, conn: quinn::Connection) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.open.insert(id, conn);
        id
    }

    pub(crate) fn ended(&self, id: u64) {
        let mut state = self.state();
        let Some(conn) = state.open.remove(&id) else {
            return;
        };
        if state.ended.len() >= ENDED_MAX {
            state.ended.pop_front();
        }
        state.ended.push_back(link(id, &conn, false));
    }

    /// Those that are open, and those that ended since the last look.
    pub(crate) fn look(&self) -> Vec<Link> {
        let mut state = self.state();
        let ended = std::mem::take(&mut state.ended);
        let open = state.open.iter().map(|(id, conn)| link(*id, conn, true));
        open.chain(ended).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn link(id: u64, conn: &quinn::Connection, is_open: bool) -> Link {
    let path = conn.stats().path;
    let addr = conn.remote_address();
    Link {
        id,
        addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
        is_open,
        rtt: path.rtt,
        congestion_window: path.cwnd,
        mtu: path.current_mtu,
        counts: Counts {
            sent: path.sent_packets,
            lost: path.lost_packets,
            congestion_events: path.congestion_events,
            black_holes: path.black_holes_detected,
        },
    }
}

/// Ended connections remembered for the next look. Of more than that between two looks the oldest are missed, and what they
/// counted since the look before.
const ENDED_MAX: usize = 4096;
