//! Which instance to try next, and for how long to go on.

use std::net::IpAddr;

use http::HeaderMap;
use starling_gossip::{Hint, NodeName};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};

use super::Route;
use super::direct::Directed;
use super::manner::Manner;
use super::verdict::Verdict;
use crate::balance::{Ask, Pick};
use crate::deadline::Deadline;
use crate::guard::Counted;
use crate::reason::Reason;
use crate::route::split::Subset;
use crate::telemetry::metrics;

/// The attempts of one call. An instance that failed is not tried again while there is another; when none is left the
/// call waits for one, within `limits.wait` of its beginning.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    route: &'a Route,
    directed: &'a Directed,
    manner: &'a Manner,
    key: Option<u64>,
    deadline: Option<Deadline>,
    skip: Vec<NodeName>,
    wait_until: Instant,
    tries: u32,
    /// Tries that an app may have seen.
    seen: u32,
    last: Option<Reason>,
    /// What the last try failed for, where another follows.
    cause: Option<&'static str>,
    waiting: Option<Waiting>,
}

/// A call's place among those that wait for an instance.
#[derive(Debug)]
struct Waiting {
    _of_all: OwnedSemaphorePermit,
    _of_ours: Option<Counted>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        route: &'a Route,
        directed: &'a Directed,
        manner: &'a Manner,
        began: Instant,
        deadline: Option<Deadline>,
    ) -> Self {
        let wait_until = began + route.host.config.load().limits.wait;
        Self {
            route,
            directed,
            manner,
            key: None,
            skip: Vec::new(),
            wait_until: deadline.map_or(wait_until, |deadline| wait_until.min(deadline.at)),
            deadline,
            tries: 0,
            seen: 0,
            last: None,
            cause: None,
            waiting: None,
        }
    }

    /// The same for a call with these fields, from this address, where that decides who gets it.
    pub(super) fn keyed(mut self, headers: &HeaderMap, source: IpAddr) -> Self {
        self.key = self.manner.key(headers, source);
        self
    }

    /// The instance to try now, or why there is none.
    pub(super) async fn next(&mut self) -> Result<Pick, Reason> {
        let mut changes = self.route.host.membership.changes();
        loop {
            let now = Instant::now();
            let is_late = now >= self.wait_until;
            if self.tries - self.seen >= TRIES_MAX {
                return Err(self.reason());
            }
            let (picked, subset) = self.pick(now);
            if let Some(pick) = picked
                && pick.instance().healthy
                && (is_late || !pick.is_last_resort())
            {
                return Ok(self.begin(pick, &subset));
            }
            if is_late {
                return Err(self.reason());
            }
            if self.waiting.is_none() {
                self.waiting = Some(self.wait()?);
            }
            // An instance that failed may be back: what it did is remembered by the balancer, not here.
            self.skip.clear();
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE.min(self.wait_until - now)) => {}
            }
        }
    }

    /// The instance for another try after `verdict`; `None` if there is none. Whoever has an answer, be it an error, does
    /// not wait for an instance, but asks the same one again if there is no other; one that has too much to do is left
    /// alone.
    pub(super) async fn another(&mut self, verdict: &Verdict) -> Option<Pick> {
        self.goes_on(verdict);
        if !verdict.is_unsent {
            tokio::time::sleep(self.backoff()).await;
        }
        match verdict.reason {
            None => {
                let other = self.at_once();
                other.or_else(|| {
                    self.skip.clear();
                    self.at_once()
                })
            }
            Some(Reason::Overloaded) => self.at_once(),
            Some(_) => self.next().await.ok(),
        }
    }

    /// Another try follows `verdict`.
    pub(super) fn goes_on(&mut self, verdict: &Verdict) {
        self.cause = Some(verdict.cause());
    }

    /// Whether the call may go to another instance after `verdict`. Takes what that costs from the budget for retries.
    pub(super) fn may_repeat(&self, verdict: &Verdict, method: &http::Method) -> bool {
        let retry = &self.manner.settings().retry;
        let now = Instant::now();
        let is_over = self.deadline.is_some_and(|deadline| now >= deadline.at);
        if is_over || !verdict.may_repeat(retry, method, self.seen) {
            return false;
        }
        let retries = &self.manner.usage.retries;
        if verdict.is_load() && !retries.withdraw(&retry.budget, now) {
            metrics::retry_refused(&self.route.service);
            retries.failed_in_vain(now);
            return false;
        }
        true
    }

    /// How a try went; says so to those who count it.
    pub(super) fn note(&mut self, pick: &mut Pick, verdict: &Verdict) {
        let (now, mut rng) = (Instant::now(), fastrand::Rng::new());
        self.seen += u32::from(!verdict.is_unsent);
        if let Some(time) = verdict.spare {
            pick.spare(time, now);
        }
        match verdict.reason {
            // The app chose how long to wait, which says nothing of the instance.
            Some(Reason::Timeout) if self.is_callers_haste(now) => {}
            Some(reason) => pick.failed(reason, now, &mut rng),
            None if verdict.is_error => pick.answered_with_error(now, &mut rng),
            None => pick.answered(now),
        }
        let retry = &self.manner.settings().retry;
        // Whoever is told that retries are in vain passes that on: it holds for the whole chain.
        let is_told = verdict.is_final && verdict.reason.is_none();
        let is_in_vain = self.seen > 1 || is_told;
        if is_in_vain && verdict.is_repeatable(retry) {
            self.manner.usage.retries.failed_in_vain(now);
        }
        if verdict.reason.is_none() && !verdict.is_repeatable(retry) {
            return;
        }
        let node = pick.instance().node.clone();
        if let Some(reason) = verdict.reason {
            if matches!(reason, Reason::ConnectFailed | Reason::UpstreamReset) {
                self.route.host.membership.hint(&node, Hint::Suspect);
            }
            // Not hidden by what follows from it: the next dial backs off.
            if self.last != Some(Reason::WrongIdentity) {
                self.last = Some(reason);
            }
        }
        self.skip.push(node);
    }

    pub(super) fn reason(&self) -> Reason {
        self.last.unwrap_or_else(|| {
            if self.route.balancer.is_empty() {
                Reason::UnknownService
            } else {
                Reason::NoInstance
            }
        })
    }

    fn at_once(&mut self) -> Option<Pick> {
        let (picked, subset) = self.pick(Instant::now());
        let pick = picked.filter(|pick| pick.instance().healthy && !pick.is_last_resort())?;
        Some(self.begin(pick, &subset))
    }

    fn pick(&self, now: Instant) -> (Option<Pick>, Subset) {
        let balancer = &self.route.balancer;
        let subset = self
            .directed
            .subset(|subset| balancer.is_usable(now, subset));
        let ask = Ask {
            skip: &self.skip,
            subset: &subset,
            key: self.key,
        };
        let picked = self.manner.lane.pick(&ask, now, &mut fastrand::Rng::new());
        (picked, subset)
    }

    fn begin(&mut self, pick: Pick, subset: &Subset) -> Pick {
        if let Some(cause) = self.cause {
            metrics::retried(&self.route.service, cause);
        }
        if self.tries == 0 {
            self.directed.count(self.route, subset);
        }
        self.tries += 1;
        self.waiting = None;
        pick
    }

    fn wait(&self) -> Result<Waiting, Reason> {
        let full = |_full| Reason::Overloaded;
        let pending = self.route.host.pending.clone();
        let of_all = pending.try_acquire_owned().map_err(full)?;
        let most = self.manner.settings().limits.pending;
        let of_ours = most.map(|most| {
            self.manner
                .usage
                .pending
                .enter(most)
                .ok_or(Reason::Overloaded)
        });
        Ok(Waiting {
            _of_all: of_all,
            _of_ours: of_ours.transpose()?,
        })
    }

    fn is_callers_haste(&self, now: Instant) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline.is_callers && now >= deadline.at)
    }

    /// Doubles with each try, and is shortened by up to half at random so that callers do not come back together.
    fn backoff(&self) -> Duration {
        let doubled = self.manner.settings().retry.backoff * (1 << (self.seen.clamp(1, 10) - 1));
        doubled.mul_f64(1.0 - fastrand::f64() / 2.0)
    }
}

/// Instances tried for one call that no app saw, whatever fails: enough for three dead of a service while gossip
/// catches up.
const TRIES_MAX: u32 = 5;

/// How often a waiting call looks whether an ejected instance may be tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
