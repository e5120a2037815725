//! Whether a node runs. Pure: the caller brings the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Liveness;

/// What speaks for and against one node being alive.
///
/// Heartbeats are relayed and nobody signs them, so a member could make them up. Therefore gossip alone never kills (a node is
/// dead only when our own probe went unanswered too), and once our own connections contradict it, it does not revive either.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    liveness: Liveness,
    since: Instant,
    /// What the failure detector makes of the heartbeats.
    phi_alive: bool,
    /// Our own connections contradicted the failure detector.
    phi_doubted: bool,
    /// Until when what we saw ourselves keeps the node alive.
    evidence_until: Instant,
    probe_failed: bool,
    probe_next: Instant,
}

impl Pulse {
    /// A node we just learned of: alive for `evidence` if what we learned shows it runs, else suspect until a probe tells.
    pub(crate) fn new(now: Instant, evidence: Option<Duration>) -> Self {
        let liveness = if evidence.is_some() {
            Liveness::Alive
        } else {
            Liveness::Suspect
        };
        Self {
            liveness,
            since: now,
            phi_alive: false,
            phi_doubted: false,
            evidence_until: now + evidence.unwrap_or_default(),
            probe_failed: false,
            probe_next: now,
        }
    }

    pub(crate) fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// Since when [`Self::liveness`] is what it is.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The node showed itself: it sent us something, or something fresh that only it can have signed.
    pub(crate) fn seen(&mut self, now: Instant, evidence: Duration) {
        self.evidence_until = self.evidence_until.max(now + evidence);
        self.phi_doubted = false;
        self.probe_failed = false;
    }

    /// Our own connections say that it does not answer.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.evidence_until = now;
        self.phi_doubted = true;
        self.probe_next = now;
    }

    /// What the failure detector says now.
    pub(crate) fn phi(&mut self, alive: bool) {
        self.phi_alive = alive;
    }

    /// A probe went unanswered.
    pub(crate) fn probe_failed(&mut self) {
        self.probe_failed = true;
    }

    /// Whether to probe now; if so, the next one is due only after `pause`.
    pub(crate) fn take_probe(&mut self, now: Instant, ahead: Duration, pause: Duration) -> bool {
        let settled = self.phi_alive && !self.phi_doubted;
        let dead_for_good = self.liveness == Liveness::Dead && !self.phi_alive;
        let due = !settled
            && !dead_for_good
            && now >= self.probe_next
            && now + ahead >= self.evidence_until;
        if due {
            self.probe_next = now + pause;
        }
        due
    }

    /// Draws the conclusion; says whether it is a new one. What is `expired` is dead whatever else speaks for it.
    pub(crate) fn judge(&mut self, now: Instant, expired: bool) -> bool {
        let alive = now < self.evidence_until || (self.phi_alive && !self.phi_doubted);
        let liveness = match (expired, alive, self.probe_failed) {
            (true, _, _) => Liveness::Dead,
            (false, true, _) => Liveness::Alive,
            (false, false, true) => Liveness::Dead,
            (false, false, false) => Liveness::Suspect,
        };
        if liveness == Liveness::Alive {
            self.probe_failed = false;
        }
        let changed = liveness != self.liveness;
        if changed {
            self.liveness = liveness;
            self.since = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(steps: impl FnOnce(&mut Pulse, Instant), after: Duration, expected: Liveness) {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, Some(SECOND));
        steps(&mut pulse, start);
        pulse.judge(start + after, false);
        assert_eq!(pulse.liveness(), expected);
    }

    #[test]
    fn evidence_carries_it_for_a_while() {
        check(|_, _| {}, SECOND / 2, Liveness::Alive);
        check(|_, _| {}, 2 * SECOND, Liveness::Suspect);
        check(
            |pulse, start| pulse.seen(start, 3 * SECOND),
            2 * SECOND,
            Liveness::Alive,
        );
    }

    #[test]
    fn gossip_alone_does_not_kill() {
        check(|pulse, _| pulse.phi(false), 2 * SECOND, Liveness::Suspect);
        check(|pulse, _| pulse.probe_failed(), 2 * SECOND, Liveness::Dead);
    }

    #[test]
    fn gossip_alone_does_not_revive_what_our_connections_doubt() {
        check(|pulse, _| pulse.phi(true), 2 * SECOND, Liveness::Alive);
        let doubted = |pulse: &mut Pulse, start| {
            pulse.phi(true);
            pulse.doubt(start);
        };
        check(doubted, 2 * SECOND, Liveness::Suspect);
        let failed = |pulse: &mut Pulse, start| {
            doubted(pulse, start);
            pulse.probe_failed();
        };
        check(failed, 2 * SECOND, Liveness::Dead);
        let seen_again = |pulse: &mut Pulse, start| {
            failed(pulse, start);
            pulse.seen(start, SECOND);
        };
        check(seen_again, 2 * SECOND, Liveness::Alive);
    }

    #[test]
    fn the_dead_are_probed_only_while_gossip_says_otherwise() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now, None);
        assert!(pulse.take_probe(now, SECOND, SECOND));
        assert!(!pulse.take_probe(now, SECOND, SECOND));
        pulse.probe_failed();
        pulse.judge(now + SECOND, false);
        assert!(!pulse.take_probe(now + 2 * SECOND, SECOND, SECOND));
        pulse.doubt(now + 2 * SECOND);
        pulse.phi(true);
        assert!(pulse.take_probe(now + 3 * SECOND, SECOND, SECOND));
    }
}
