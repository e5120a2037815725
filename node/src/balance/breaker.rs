//! Whether an instance may be tried. Pure: the caller brings the clock and the dice.

use std::time::Duration;

use tokio::time::Instant;

use crate::reason::Reason;

/// Longest ejection: a host that comes back gets calls again within half a minute, without anyone's word.
const EJECTION_MAX: Duration = Duration::from_secs(30);

/// An instance's record of failures.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    streak: u32,
    /// Ejections since the last success.
    ejections: u32,
    until: Option<Instant>,
    is_probed: bool,
    /// It was ejected because nobody could use it, not for errors.
    is_dead: bool,
}

/// What may be sent to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Its ejection is over: one call may find out.
    HalfOpen,
    Ejected,
}

/// How much a failure says about the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nothing: the call itself was refused, or the caller left.
    None,
    /// Something, if it repeats.
    Some,
    /// Nobody can use it now.
    All,
}

impl Breaker {
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.until {
            None => Standing::Good,
            Some(until) if now < until || self.is_probed => Standing::Ejected,
            Some(_) => Standing::HalfOpen,
        }
    }

    /// Claims the one call that finds out; it must end in one of the three below.
    pub(super) fn probe(&mut self) {
        self.is_probed = true;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether this failure is one too many; `consecutive` in a row are, unless it is zero.
    ///
    /// Failures of calls that were on their way when it was ejected say nothing new.
    pub(super) fn failed(&mut self, blame: Blame, is_probe: bool, consecutive: u32) -> bool {
        if self.until.is_some() && !is_probe {
            return false;
        }
        self.streak += 1;
        is_probe || blame == Blame::All || (consecutive > 0 && self.streak >= consecutive)
    }

    /// Leaves it out and returns for how long: `base` at first. `dice` is within 0 to 1.
    pub(super) fn eject(
        &mut self,
        blame: Blame,
        base: Duration,
        now: Instant,
        dice: f64,
    ) -> Duration {
        let ejection = ejection(self.ejections, base, dice);
        *self = Self {
            streak: 0,
            ejections: self.ejections + 1,
            until: Some(now + ejection),
            is_probed: false,
            is_dead: blame == Blame::All,
        };
        ejection
    }

    /// Whether it is ejected because nobody could use it.
    pub(super) fn is_dead(&self) -> bool {
        self.until.is_some() && self.is_dead
    }

    /// The probe ended without an answer to its question; the next call asks again.
    pub(super) fn abandoned(&mut self) {
        self.is_probed = false;
    }

    pub(super) fn ejected_until(&self) -> Option<Instant> {
        self.until
    }
}

impl Blame {
    /// What the reason a call failed for says of the instance that was asked.
    pub(super) fn of(reason: Reason) -> Self {
        match reason {
            Reason::ConnectFailed
            | Reason::WrongIdentity
            | Reason::WrongService
            | Reason::WrongProtocol
            | Reason::UnknownService
            | Reason::AppUnreachable
            | Reason::Draining => Self::All,
            Reason::UpstreamReset
            | Reason::Timeout
            | Reason::AppBroken
            | Reason::Internal => Self::Some,
            Reason::BadRequest
            | Reason::HeaderTooLarge
            | Reason::SlowRequest
            | Reason::NotSupported
            | Reason::Loop
            | Reason::NoInstance
            | Reason::NoIdentity
            | Reason::Denied
            // It works, and says itself for how long it wants no more.
            | Reason::Overloaded
            | Reason::RateLimited
            | Reason::CallerGone
            | Reason::Idle
            | Reason::AmbiguousPath
            | Reason::WrongHost
            | Reason::BodyTooLarge
            | Reason::Fault => Self::None,
        }
    }
}

/// Doubles with each ejection in a row, within bounds, ± a quarter so that callers do not come back together.
fn ejection(before: u32, base: Duration, dice: f64) -> Duration {
    let doubled = base.saturating_mul(1 << before.min(16));
    doubled
        .min(EJECTION_MAX)
        .mul_f64(0.75 + dice.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;
    const BASE: Duration = Duration::from_secs(1);
    const STREAK_MAX: u32 = 5;

    /// Fails once, and ejects if that is due.
    fn fail(breaker: &mut Breaker, blame: Blame, is_probe: bool, now: Instant) -> Option<Duration> {
        breaker
            .failed(blame, is_probe, STREAK_MAX)
            .then(|| breaker.eject(blame, BASE, now, MIDDLE))
    }

    #[test]
    fn a_failed_connection_ejects_at_once_and_doubles_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        let mut is_probe = false;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(
                fail(&mut breaker, Blame::All, is_probe, now),
                Some(expected)
            );
            assert_eq!(
                breaker.standing(now + expected - Duration::from_nanos(1)),
                Standing::Ejected
            );
            now += expected;
            assert_eq!(breaker.standing(now), Standing::HalfOpen);
            breaker.probe();
            assert_eq!(
                breaker.standing(now),
                Standing::Ejected,
                "one probe at a time"
            );
            is_probe = true;
        }
        breaker.succeeded();
        assert_eq!(breaker.standing(now), Standing::Good);
        assert_eq!(
            fail(&mut breaker, Blame::All, false, now),
            Some(BASE),
            "starts over"
        );
    }

    #[test]
    fn other_failures_eject_only_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..STREAK_MAX {
                assert_eq!(fail(&mut breaker, Blame::Some, false, now), None);
            }
            breaker.succeeded();
        }
        for _ in 1..STREAK_MAX {
            fail(&mut breaker, Blame::Some, false, now);
        }
        assert!(fail(&mut breaker, Blame::Some, false, now).is_some());
    }

    #[test]
    fn calls_that_were_on_their_way_do_not_lengthen_an_ejection() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        fail(&mut breaker, Blame::All, false, now);
        let until = breaker.ejected_until();
        for _ in 0..100 {
            assert_eq!(fail(&mut breaker, Blame::All, false, now), None);
        }
        assert_eq!(breaker.ejected_until(), until);
    }

    #[test]
    fn a_dead_instance_is_told_from_one_with_errors() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(Blame::Some, false, 0), "zero is never");
        breaker.eject(Blame::Some, BASE, now, MIDDLE);
        assert!(!breaker.is_dead());
        breaker.eject(Blame::All, BASE, now, MIDDLE);
        assert!(breaker.is_dead());
        breaker.succeeded();
        assert!(!breaker.is_dead());
    }

    #[test]
    fn an_abandoned_probe_is_free_for_the_next() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        fail(&mut breaker, Blame::All, false, now);
        breaker.probe();
        breaker.abandoned();
        assert_eq!(breaker.standing(now + EJECTION_MAX), Standing::HalfOpen);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for dice in [-1.0, 0.0, 0.3, 1.0, 7.0, f64::NAN] {
            let dice = if dice.is_nan() { 0.0 } else { dice };
            let ejection = ejection(1, BASE, dice).as_secs_f64();
            assert!((1.5..=2.5).contains(&ejection), "{dice}: {ejection}");
        }
        assert_eq!(ejection(u32::MAX, BASE, 1.0), EJECTION_MAX.mul_f64(1.25));
    }
}
