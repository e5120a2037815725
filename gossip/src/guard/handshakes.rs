//! Which replies we wait for. chitchat takes any; here a reply counts only in a handshake that was opened, once, and soon.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::names::NodeId;

/// The handshakes under way. Each nonce is good for one reply.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Those we began; whoever knows the nonce got it from us.
    pub(super) opened: Nonces,
    /// Those others began, with who did.
    pub(super) answered: Nonces,
}

#[derive(Debug, Default)]
pub(super) struct Nonces(VecDeque<(Instant, u64, Option<NodeId>)>);

impl Nonces {
    pub(super) fn open(&mut self, nonce: u64, peer: Option<NodeId>) {
        let now = Instant::now();
        while self
            .0
            .front()
            .is_some_and(|(at, ..)| now > *at + HANDSHAKE_TIME || self.0.len() >= NONCES_MAX)
        {
            self.0.pop_front();
        }
        self.0.push_back((now, nonce, peer));
    }

    /// Uses up a nonce; says whether it was good.
    pub(super) fn close(&mut self, nonce: u64, peer: Option<NodeId>) -> bool {
        let position = self
            .0
            .iter()
            .position(|(_, open, with)| (*open, *with) == (nonce, peer));
        let fresh =
            |(at, ..): (Instant, u64, Option<NodeId>)| Instant::now() <= at + HANDSHAKE_TIME;
        position
            .and_then(|index| self.0.remove(index))
            .is_some_and(fresh)
    }
}

/// How long a reply may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// Handshakes of each kind under way: one peer cannot open more within their time.
const NONCES_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_for_its_peer() {
        let (one, other) = (NodeId::of("one"), NodeId::of("other"));
        let mut nonces = Nonces::default();
        nonces.open(7, Some(one));
        assert!(!nonces.close(8, Some(one)));
        assert!(!nonces.close(7, Some(other)));
        assert!(nonces.close(7, Some(one)));
        assert!(!nonces.close(7, Some(one)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_is_good_for_a_while() {
        let mut nonces = Nonces::default();
        nonces.open(7, None);
        tokio::time::advance(HANDSHAKE_TIME + Duration::from_secs(1)).await;
        assert!(!nonces.close(7, None));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut nonces = Nonces::default();
        (0..=NONCES_MAX as u64).for_each(|nonce| nonces.open(nonce, None));
        assert!(!nonces.close(0, None));
        assert!(nonces.close(1, None));
    }
}
