//! Latency as the balancer sees it: quick to rise, slow to fall.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time in which a difference shrinks to a third, whether by new samples or because nothing is asked. Ten seconds ride
/// out a pause of an app's garbage collector and still forget a slow deployment within half a minute.
const DECAY_S: f64 = 10.0;

/// Share of one sample in the latency of the whole service: about the last 32 calls count.
const SAMPLE_SHARE: f64 = 1.0 / 32.0;

/// One instance's latency: a slower sample counts at once and whole, a faster one only with time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PeakEwma(Option<(f64, Instant)>);

impl PeakEwma {
    /// The estimate in seconds, if there was a sample. While nobody asks the instance it drifts to `rest`, what is
    /// typical of the service: a slow one is tried again in time, and equal ones stay equal however seldom they are
    /// asked.
    pub(super) fn at(&self, now: Instant, rest: f64) -> Option<f64> {
        let (value, then) = self.0?;
        Some(rest + (value - rest) * remaining(now, then))
    }

    pub(super) fn record(&mut self, sample: Duration, now: Instant, rest: f64) {
        let sample = sample.as_secs_f64();
        let value = match (self.at(now, rest), self.0) {
            (Some(estimate), Some((_, then))) if sample < estimate => {
                sample + (estimate - sample) * remaining(now, then)
            }
            _ => sample,
        };
        self.0 = Some((value, now));
    }

    /// The last estimate in seconds, as of its own time.
    pub(super) fn last(&self) -> Option<f64> {
        self.0.map(|(value, _)| value)
    }
}

fn remaining(now: Instant, then: Instant) -> f64 {
    (-now.saturating_duration_since(then).as_secs_f64() / DECAY_S).exp()
}

/// The mean latency of a whole service in seconds. Two records at once may lose one of them: it is a mean.
#[derive(Debug)]
pub(super) struct Typical(AtomicU64);

impl Typical {
    pub(super) fn get(&self) -> Option<f64> {
        let value = f64::from_bits(self.0.load(Ordering::Relaxed));
        (!value.is_nan()).then_some(value)
    }

    pub(super) fn record(&self, sample: Duration) {
        let sample = sample.as_secs_f64();
        let mean = self
            .get()
            .map_or(sample, |mean| mean + (sample - mean) * SAMPLE_SHARE);
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }
}

impl Default for Typical {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn rises_at_once_and_falls_with_time() {
        let start = Instant::now();
        let mut latency = PeakEwma::default();
        assert_eq!(latency.at(start, 0.01), None);
        latency.record(ms(10), start, 0.01);
        latency.record(ms(100), start, 0.01);
        assert_eq!(latency.last(), Some(0.1));
        latency.record(ms(10), start, 0.01);
        assert_eq!(latency.last(), Some(0.1), "no time has passed");
        let later = start + Duration::from_secs(10);
        latency.record(ms(10), later, 0.01);
        assert!(
            (0.01..0.05).contains(&latency.last().unwrap()),
            "{latency:?}"
        );
    }

    #[test]
    fn drifts_to_what_is_typical_from_both_sides() {
        let start = Instant::now();
        for begin in [ms(1), ms(500)] {
            let mut latency = PeakEwma::default();
            latency.record(begin, start, 0.02);
            let estimate = latency.at(start + Duration::from_secs(100), 0.02).unwrap();
            assert!((estimate - 0.02).abs() < 0.001, "{begin:?}: {estimate}");
        }
    }

    #[test]
    fn the_typical_latency_follows_the_samples() {
        let typical = Typical::default();
        assert_eq!(typical.get(), None);
        typical.record(ms(10));
        assert_eq!(typical.get(), Some(0.01));
        for _ in 0..200 {
            typical.record(ms(20));
        }
        assert!((typical.get().unwrap() - 0.02).abs() < 0.001);
    }
}
