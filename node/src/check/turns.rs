//! How often peers may make this agent look at a path for them.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::Rate;
use crate::guard::Rates;

/// Looks on behalf of peers: few at a time, and few for each of them.
#[derive(Debug)]
pub struct Turns {
    rates: Rates,
    places: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(BURST, PLACES)
    }
}

impl Turns {
    /// One a second for each peer, after `burst` at once; `places` at a time in all.
    pub fn new(burst: u32, places: usize) -> Self {
        Self {
            rates: Rates::new(Rate {
                requests: 1,
                per: EACH,
                burst,
                key: None,
            }),
            places: Semaphore::new(places),
        }
    }

    /// A turn for this peer; none if it asks too often or too many ask at a time.
    pub fn take(&self, peer: &str, now: Instant) -> Option<SemaphorePermit<'_>> {
        let place = self.places.try_acquire().ok()?;
        self.rates.admit(Some(peer.as_bytes()), now).ok()?;
        Some(place)
    }
}

/// An operator who repeats `starling check` is served; a peer that makes us dial for it all the time is not: each look
/// costs two handshakes, 4 ms of CPU.
const EACH: Duration = Duration::from_secs(1);

/// A check takes up to three of each peer.
const BURST: u32 = 12;

/// Looks at a time. Those that find nobody take seconds.
const PLACES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_turns() {
        let (turns, now) = (Turns::default(), Instant::now());
        let taken = (0..20).filter(|_| turns.take("n1", now).is_some());
        assert_eq!(taken.count(), 12);
        assert!(turns.take("n2", now).is_some());
        assert!(turns.take("n1", now + EACH).is_some());
    }
}
