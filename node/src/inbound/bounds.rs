//! What this node holds the calls to its services to, whoever makes them: how fast, how many at a time, until when.

use std::time::Duration;

use ::metrics::Gauge;
use http::{HeaderMap, HeaderValue, Response};
use tokio::time::Instant;

use crate::body::Timers;
use crate::config::{Service, ServiceLimits};
use crate::deadline::{self, Deadline};
use crate::guard::{Held, Refusal, Turn};
use crate::headers;
use crate::host::Host;
use crate::key;
use crate::reason::Reason;
use crate::telemetry::metrics;

/// A request that may go to the app now.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) held: Held,
    pub(crate) deadline: Option<Deadline>,
}

/// Lets a request of `caller`, whatever it is known by, go on to the app of `service`, perhaps after a while.
pub(crate) async fn admit(
    host: &Host,
    service: &Service,
    caller: &str,
    headers: &HeaderMap,
) -> Result<Admitted, Refusal> {
    let now = Instant::now();
    let deadline = Deadline::new(deadline::claimed(headers), None, now);
    keep_rate(host, service, caller, headers, now)?;
    let left = deadline.map(|deadline| deadline.at.saturating_duration_since(now));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Reason::Timeout.into());
    }
    Ok(Admitted {
        held: Held::turn(turn(host, service, left).await?),
        deadline,
    })
}

/// Each caller has a rate, or each value of a key within the calls of a caller.
fn keep_rate(
    host: &Host,
    service: &Service,
    caller: &str,
    headers: &HeaderMap,
    now: Instant,
) -> Result<(), Refusal> {
    let Some(rate) = &service.limits.rate else {
        return Ok(());
    };
    let mut whose = caller.as_bytes().to_vec();
    if let Some(value) = rate.key.as_ref().and_then(|key| key::within(key, headers)) {
        whose.push(0);
        whose.extend_from_slice(value);
    }
    let rates = host.guards.offered(&service.name, rate);
    rates.admit(Some(&whose), now).map_err(Refusal::too_fast)
}

/// A turn at the app, where it gets only so many requests at a time.
async fn turn(
    host: &Host,
    service: &Service,
    left: Option<Duration>,
) -> Result<Option<Turn>, Refusal> {
    let ServiceLimits {
        concurrent,
        queue,
        queue_wait,
        ..
    } = service.limits;
    let Some(concurrent) = concurrent else {
        return Ok(None);
    };
    let gate = host.guards.gate(&service.name, concurrent);
    let wait = left.map_or(queue_wait, |left| left.min(queue_wait));
    let turn = gate.enter(queue, wait, || Queued::at(service)).await;
    turn.map(Some).ok_or_else(Refusal::overloaded)
}

/// Counts a request as waiting, also if its caller leaves meanwhile.
struct Queued(Gauge);

impl Queued {
    fn at(service: &Service) -> Self {
        let gauge = metrics::queued(&service.name);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Admitted {
    /// Tells the app until when its answer is of use.
    pub(crate) fn tell_app(&self, headers: &mut HeaderMap) {
        if let Some(deadline) = self.deadline {
            deadline::tell(headers, deadline.at, Instant::now());
        }
    }

    /// What the rest of the answer is held to.
    pub(crate) fn timers(&self) -> Option<Box<Timers>> {
        Timers::new(self.deadline.map(|deadline| deadline.at), None)
    }

    /// What `work` gives within the time that is left.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Reason>>,
    ) -> Result<T, Reason> {
        match self.deadline {
            Some(deadline) => {
                let ended = tokio::time::timeout_at(deadline.at, work).await;
                ended.map_err(|_elapsed| Reason::Timeout)?
            }
            None => work.await,
        }
    }
}

/// Tells the caller's agent not to repeat a call that failed here after calls that this service made itself were repeated
/// in vain: in a chain of services only the last one before the trouble repeats.
pub(crate) fn mark_vain<B>(host: &Host, service: &Service, response: &mut Response<B>) {
    let is_in_vain = || host.guards.is_in_vain(&service.name, Instant::now());
    if response.status().is_server_error() && is_in_vain() {
        let no = HeaderValue::from_static("no");
        response.headers_mut().insert(headers::RETRY, no);
    }
}
