//! Examples of what histograms count: the trace of one call for each bucket, so that "some take a second" leads to one
//! that did.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::trace::TraceId;

thread_local! {
    static CURRENT: Cell<Option<(TraceId, bool)>> = const { Cell::new(None) };
}

/// One call, and what was measured of it.
#[derive(Debug, Clone)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    /// Whether a collector has the trace. Otherwise only the access lines of the call can be found by it.
    pub(super) is_sampled: bool,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

/// Histograms that `work` records into may show `trace`: the facade has no place for it.
pub(super) fn of<T>(trace: Option<TraceId>, is_sampled: bool, work: impl FnOnce() -> T) -> T {
    CURRENT.set(trace.map(|trace| (trace, is_sampled)));
    let done = work();
    CURRENT.set(None);
    done
}

/// An exemplar of `value`, if there is a trace that tells of it.
pub(super) fn of_current(value: f64) -> Option<Exemplar> {
    CURRENT.get().map(|(trace, is_sampled)| Exemplar {
        trace,
        is_sampled,
        value,
        at: SystemTime::now(),
    })
}

impl Exemplar {
    /// Whether `other` tells more: it is newer by a while, or can be found where this one cannot.
    pub(super) fn yields_to(&self, other: &Self) -> bool {
        let patience = match (self.is_sampled, other.is_sampled) {
            (false, true) => return true,
            (true, false) => SAMPLED_LASTS,
            _ => FRESH,
        };
        let age = other.at.duration_since(self.at);
        age.map_or(true, |age| age >= patience)
    }
}

/// Prometheus looks every 15 seconds or so.
const FRESH: Duration = Duration::from_secs(1);
/// Few traces are sampled where there are many calls.
const SAMPLED_LASTS: Duration = Duration::from_secs(60);
