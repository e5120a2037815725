//! Who began a handshake lately: packets that arrive from an address that does not answer ours tell which way is blocked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The last [`KEPT`] addresses that a handshake began from. Cheap to clone; a clone sees the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<VecDeque<(SocketAddr, Instant)>>>);

impl Heard {
    pub(crate) fn note(&self, addr: SocketAddr, now: Instant) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((canonical(addr), now));
    }

    /// Since the newest of `addr`.
    pub(crate) fn ago(&self, addr: SocketAddr, now: Instant) -> Option<Duration> {
        let addr = canonical(addr);
        let kept = self.kept();
        let newest = kept.iter().rev().find(|(from, _)| *from == addr);
        newest.map(|(_, at)| now.saturating_duration_since(*at))
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(SocketAddr, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket of both families shows IPv4 peers as IPv6.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A whole cell that dials at once fits. A flood washes out what was there, which costs a hint and nothing else.
const KEPT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts_and_the_oldest_is_forgotten() {
        let heard = Heard::default();
        let began = Instant::now();
        let later = began + Duration::from_secs(3);
        let n1: SocketAddr = "10.0.0.1:7400".parse().unwrap();
        assert_eq!(heard.ago(n1, began), None);
        heard.note(n1, began);
        assert_eq!(heard.ago(n1, later), Some(Duration::from_secs(3)));
        heard.note("[::ffff:10.0.0.1]:7400".parse().unwrap(), later);
        assert_eq!(heard.ago(n1, later), Some(Duration::ZERO));
        for port in 0..512 {
            heard.note(SocketAddr::from(([10, 0, 0, 2], port)), later);
        }
        assert_eq!(heard.ago(n1, later), None);
        assert_eq!(heard.kept().len(), KEPT);
    }
}
