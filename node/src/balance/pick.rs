//! One call at the instance that was picked for it, and what it tells of the instance.

use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use starling_gossip::Instance;
use tokio::time::Instant;

use super::Balancer;
use super::breaker::{Blame, Standing};
use super::instance::{Entry, State};
use crate::config::Outlier;
use crate::reason::Reason;
use crate::telemetry::metrics;

/// An instance chosen for one call, which counts as in flight until this is dropped. Dropped without a word of how it
/// went, the call counts as given up by the caller.
#[derive(Debug)]
pub struct Pick {
    balancer: Arc<Balancer>,
    entry: Entry,
    outlier: Outlier,
    began: Instant,
    is_probe: bool,
    is_last_resort: bool,
    is_timed: bool,
}

impl Pick {
    pub(super) fn new(
        balancer: Arc<Balancer>,
        entry: Entry,
        outlier: Outlier,
        began: Instant,
        is_probe: bool,
        is_last_resort: bool,
    ) -> Self {
        Self {
            balancer,
            entry,
            outlier,
            began,
            is_probe,
            is_last_resort,
            is_timed: false,
        }
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.entry.instance
    }

    /// Whether every instance is ejected or unhealthy, and this one merely the least so. Whoever can wait for a better
    /// one should.
    pub fn is_last_resort(&self) -> bool {
        self.is_last_resort
    }

    #[cfg(test)]
    pub(super) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The answer has begun (the head of a response, an open tunnel): its latency counts and the instance is good.
    pub fn answered(&mut self, now: Instant) {
        if self.is_timed {
            return;
        }
        self.is_probe = false;
        let mut state = self.time(now, true);
        if state.breaker.standing(now) != Standing::Good {
            state.since = Some(now);
        }
        state.breaker.succeeded();
        state.window.note(true, now);
    }

    /// The answer has begun, and it is the app's word that it failed. Counts where the operator wants it to.
    pub fn answered_with_error(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        if self.is_timed {
            return;
        }
        if self.outlier.answers {
            return self.fail(Blame::Some, "5xx", now, rng);
        }
        self.is_probe = false;
        self.time(now, false).breaker.succeeded();
    }

    /// The call failed, before or after the answer began. What the reason says of the instance decides whether it is
    /// ejected.
    pub fn failed(&mut self, reason: Reason, now: Instant, rng: &mut fastrand::Rng) {
        let blame = Blame::of(reason);
        if blame != Blame::None {
            self.fail(blame, reason.as_str(), now, rng);
        }
    }

    /// The instance wants no more calls for a while: others come first until then, within a bound.
    pub fn spare(&mut self, time: Duration, now: Instant) {
        let Instance { node, service, .. } = &**self.instance();
        tracing::debug!(%service, %node, ?time, "instance spared");
        metrics::spared(service);
        let mut state = self.entry.load.state();
        let until = now + time.min(SPARED_MAX);
        state.spared = state.spared.max(Some(until));
    }

    fn fail(&mut self, blame: Blame, cause: &'static str, now: Instant, rng: &mut fastrand::Rng) {
        let is_probe = std::mem::take(&mut self.is_probe);
        let outlier = self.outlier;
        let mut state = self.time(now, false);
        state.window.note(false, now);
        let is_due = state.breaker.failed(blame, is_probe, outlier.consecutive);
        drop(state);
        let cause = match is_due {
            true => cause,
            false if self.is_outlier(now) => "success-rate",
            false => return,
        };
        // Nobody can use a dead one, and one that failed its probe is out already. Of those that merely err, only so
        // many may be out: the others would get their calls.
        let is_bounded = blame != Blame::All && !is_probe;
        if is_bounded && !self.balancer.may_eject(outlier.max_share, now) {
            return;
        }
        let mut state = self.entry.load.state();
        let ejection = state.breaker.eject(blame, outlier.base, now, rng.f64());
        state.window = Default::default();
        drop(state);
        let Instance { node, service, .. } = &**self.instance();
        metrics::ejected(service, cause);
        tracing::debug!(%service, %node, reason = cause, ?ejection, "instance ejected");
    }

    /// Whether it does clearly worse than the others.
    fn is_outlier(&self, now: Instant) -> bool {
        if self.outlier.success_rate == 0 {
            return false;
        }
        let state = self.entry.load.state();
        if state.breaker.standing(now) != Standing::Good {
            return false;
        }
        let own = state.window;
        drop(state);
        let peers = self.balancer.peers_of(&self.entry.load, now);
        own.is_below(&peers, self.outlier.success_rate, now)
    }

    /// Records the latency unless that was done, and gives the state for what else there is to say. An error counts only
    /// if it is slow: quick ones must not draw more calls to where they come from.
    fn time(&mut self, now: Instant, is_good: bool) -> MutexGuard<'_, State> {
        let taken = now.saturating_duration_since(self.began);
        let typical = &self.balancer.typical;
        let mut state = self.entry.load.state();
        if !std::mem::replace(&mut self.is_timed, true) {
            let rest = typical.get().unwrap_or_default();
            let known = state.latency.at(now, rest).unwrap_or(rest);
            if is_good || taken.as_secs_f64() > known {
                typical.record(taken);
                state
                    .latency
                    .record(taken, now, typical.get().unwrap_or_default());
            }
        }
        state
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.entry.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_timed && !self.is_probe {
            return;
        }
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.began);
        let typical = self.balancer.typical.get().unwrap_or_default();
        let mut state = self.entry.load.state();
        if self.is_probe {
            state.breaker.abandoned();
        }
        // The answer would have taken longer still: a caller's patience must not make a slow instance look quick.
        let is_slow = state
            .latency
            .at(now, typical)
            .is_some_and(|latency| waited.as_secs_f64() > latency);
        if is_slow && !self.is_timed {
            state.latency.record(waited, now, typical);
        }
    }
}

/// Nobody is spared for longer on one answer's word: an instance that errs in its `Retry-After` is asked again.
const SPARED_MAX: Duration = Duration::from_secs(30);
