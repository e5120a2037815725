//! How many retries there may be.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Budget;

/// The retries of one caller's calls to one service: each request brings a part of one, each retry takes a whole one.
#[derive(Debug)]
pub struct RetryBudget {
    /// In thousandths of a retry.
    left: AtomicI64,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// When the least there may be was last added.
    filled: Instant,
    /// When a call last failed though it was repeated, or could not be for want of budget.
    in_vain: Option<Instant>,
}

impl RetryBudget {
    /// With what a second's least brings.
    pub fn new(settings: &Budget, now: Instant) -> Self {
        Self {
            left: AtomicI64::new(i64::from(settings.min_per_second) * RETRY),
            times: Mutex::new(Times {
                filled: now,
                in_vain: None,
            }),
        }
    }

    /// A request began.
    pub fn deposit(&self, settings: &Budget) {
        let part = i64::from(settings.percent) * RETRY / 100;
        // Requests at the same moment may go over by one part each: it is a bound of the order of things.
        if self.left.load(Ordering::Relaxed) < LEFT_MAX {
            self.left.fetch_add(part, Ordering::Relaxed);
        }
    }

    /// Takes a retry, if there is one.
    pub fn withdraw(&self, settings: &Budget, now: Instant) -> bool {
        let mut times = self.times();
        let passed = now.saturating_duration_since(times.filled);
        times.filled = now;
        let least = f64::from(settings.min_per_second) * RETRY as f64;
        let filled = passed.as_secs_f64().min(FILL_MAX_S) * least;
        let left = self.left.load(Ordering::Relaxed) + filled as i64;
        let taken = if left >= RETRY { RETRY } else { 0 };
        self.left
            .fetch_add((filled as i64) - taken, Ordering::Relaxed);
        taken > 0
    }

    /// A call failed that was repeated, or that was not for want of budget.
    pub fn failed_in_vain(&self, now: Instant) {
        self.times().in_vain = Some(now);
    }

    /// Whether retries have been of no use of late. Whoever called the caller should then not repeat either: it would
    /// multiply the load of what is failing.
    pub fn is_in_vain(&self, now: Instant) -> bool {
        self.times()
            .in_vain
            .is_some_and(|then| now.saturating_duration_since(then) < IN_VAIN)
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One retry in the unit that is counted.
const RETRY: i64 = 1000;

/// Retries that can be saved up: those of a host's calls in flight when it dies, in one service's share of it.
const LEFT_MAX: i64 = 100 * RETRY;

/// An idle second brings the least, idle hours no more than that.
const FILL_MAX_S: f64 = 1.0;

/// How long a failure in vain speaks for the calls after it.
const IN_VAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Budget = Budget {
        percent: 10,
        min_per_second: 0,
    };

    #[test]
    fn a_tenth_of_the_requests_may_be_repeated() {
        let now = Instant::now();
        let budget = RetryBudget::new(&TENTH, now);
        assert!(!budget.withdraw(&TENTH, now));
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit(&TENTH);
            retries += u32::from(budget.withdraw(&TENTH, now));
        }
        assert_eq!(retries, 100);
    }

    #[test]
    fn the_least_comes_with_time_and_is_not_saved_up() {
        let least = Budget {
            percent: 0,
            min_per_second: 5,
        };
        let mut now = Instant::now();
        let budget = RetryBudget::new(&least, now);
        let spend = |now| (0..100).filter(|_| budget.withdraw(&least, now)).count();
        assert_eq!(spend(now), 5);
        now += Duration::from_millis(400);
        assert_eq!(spend(now), 2);
        now += Duration::from_secs(3600);
        assert_eq!(spend(now), 5);
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let now = Instant::now();
        let budget = RetryBudget::new(&TENTH, now);
        (0..1_000_000).for_each(|_| budget.deposit(&TENTH));
        let saved = (0..1000).filter(|_| budget.withdraw(&TENTH, now)).count();
        assert_eq!(saved, 100);
    }

    #[test]
    fn failures_in_vain_are_forgotten() {
        let now = Instant::now();
        let budget = RetryBudget::new(&TENTH, now);
        assert!(!budget.is_in_vain(now));
        budget.failed_in_vain(now);
        assert!(budget.is_in_vain(now) && !budget.is_in_vain(now + IN_VAIN));
    }
}
