//! Examples of what histograms count: the trace of one call for each bucket, so that "some take a second" leads to one
//! that did.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::trace::TraceId;

thread_local! {
    static CURRENT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// One call, and what was measured of it.
#[derive(Debug, Clone)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

/// Histograms that `work` records into may show `trace`: the facade has no place for it.
pub(super) fn of<T>(trace: Option<TraceId>, work: impl FnOnce() -> T) -> T {
    CURRENT.set(trace);
    let done = work();
    CURRENT.set(None);
    done
}

/// An exemplar of `value`, if there is a trace that tells of it.
pub(super) fn of_current(value: f64) -> Option<Exemplar> {
    CURRENT.get().map(|trace| Exemplar {
        trace,
        value,
        at: SystemTime::now(),
    })
}

impl Exemplar {
    /// Whether it is so new that another one would tell nothing more.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.at).is_ok_and(|age| age < FRESH)
    }
}

/// Prometheus looks every 15 seconds or so.
const FRESH: Duration = Duration::from_secs(1);
