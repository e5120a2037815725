//! Which instance to try next, and for how long to go on.

use starling_gossip::{Hint, NodeName};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};

use super::Route;
use super::direct::Directed;
use crate::balance::Pick;
use crate::reason::Reason;
use crate::telemetry::metrics;

/// The attempts of one call. An instance that failed is not tried again while there is another; when none is left the
/// call waits for one, within `limits.wait`.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    route: &'a Route,
    directed: &'a Directed,
    skip: Vec<NodeName>,
    deadline: Instant,
    tries: u32,
    last: Option<Reason>,
    waiting: Option<OwnedSemaphorePermit>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(route: &'a Route, directed: &'a Directed) -> Self {
        let deadline = Instant::now() + route.host.config.load().limits.wait;
        Self {
            route,
            directed,
            skip: Vec::new(),
            deadline,
            tries: 0,
            last: None,
            waiting: None,
        }
    }

    /// The instance to try now, or why there is none.
    pub(super) async fn next(&mut self) -> Result<Pick, Reason> {
        let mut changes = self.route.host.membership.changes();
        loop {
            let now = Instant::now();
            let is_late = now >= self.deadline;
            if self.tries >= TRIES_MAX {
                return Err(self.reason());
            }
            let balancer = &self.route.balancer;
            let subset = self
                .directed
                .subset(|subset| balancer.is_usable(now, subset));
            let picked = balancer.pick(now, &mut fastrand::Rng::new(), &self.skip, &subset);
            if let Some(pick) = picked
                && pick.instance().healthy
                && (is_late || !pick.is_last_resort())
            {
                if let Some(reason) = self.last {
                    metrics::retried(&self.route.service, reason);
                }
                if self.tries == 0 {
                    self.directed.count(self.route, &subset);
                }
                self.tries += 1;
                self.waiting = None;
                return Ok(pick);
            }
            if is_late {
                return Err(self.reason());
            }
            if self.waiting.is_none() {
                let pending = self.route.host.pending.clone();
                self.waiting = Some(
                    pending
                        .try_acquire_owned()
                        .map_err(|_full| Reason::Overloaded)?,
                );
            }
            // An instance that failed may be back: what it did is remembered by the balancer, not here.
            self.skip.clear();
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE.min(self.deadline - now)) => {}
            }
        }
    }

    /// The instance failed; says so to those who count it.
    pub(super) fn failed(&mut self, mut pick: Pick, reason: Reason) {
        pick.failed(reason, Instant::now(), &mut fastrand::Rng::new());
        let node = pick.instance().node.clone();
        if matches!(reason, Reason::ConnectFailed | Reason::UpstreamReset) {
            self.route.host.membership.hint(&node, Hint::Suspect);
        }
        self.skip.push(node);
        // Not hidden by what follows from it: the next dial backs off.
        if self.last != Some(Reason::WrongIdentity) {
            self.last = Some(reason);
        }
    }

    fn reason(&self) -> Reason {
        self.last.unwrap_or_else(|| {
            if self.route.balancer.is_empty() {
                Reason::UnknownService
            } else {
                Reason::NoInstance
            }
        })
    }
}

/// Instances tried for one call, whatever fails: enough for three dead of a service while gossip catches up.
const TRIES_MAX: u32 = 5;

/// How often a waiting call looks whether an ejected instance may be tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
