//! How many traces this agent begins in a second, so that a busy host tells no more than a quiet one.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// A generic cell rate algorithm in one atomic, as every request without a trace asks it.
#[derive(Debug)]
pub(super) struct Sampler {
    per_second: u32,
    start: Instant,
    /// In µs after the start: when a trace would begin if all came exactly at the rate.
    due: AtomicU64,
}

impl Sampler {
    pub(super) fn new(per_second: u32, start: Instant) -> Self {
        Self {
            per_second,
            start,
            due: AtomicU64::new(0),
        }
    }

    /// Whether a trace that begins now is sampled. Those of one second may all come at once.
    pub(super) fn samples(&self, now: Instant) -> bool {
        let Some(each) = SECOND_US.checked_div(u64::from(self.per_second)) else {
            return false;
        };
        let now = now.saturating_duration_since(self.start).as_micros() as u64;
        let latest = now + SECOND_US - each;
        let next = |due: u64| (due <= latest).then(|| due.max(now) + each);
        let taken = self
            .due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok()
    }
}

const SECOND_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn never_more_than_the_rate_and_what_waited() {
        let start = Instant::now();
        let sampler = Sampler::new(10, start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let taken = |from: u64, to: u64| (from..to).filter(|ms| sampler.samples(at(*ms))).count();
        assert_eq!(taken(0, 1), 1);
        assert_eq!((0..100).filter(|_| sampler.samples(at(1))).count(), 9);
        assert_eq!(taken(100, 1_100), 10);
        assert_eq!((0..100).filter(|_| sampler.samples(at(60_000))).count(), 10);
    }

    #[test]
    fn none_is_none() {
        let start = Instant::now();
        assert!(!Sampler::new(0, start).samples(start));
    }
}
