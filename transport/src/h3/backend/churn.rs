//! Opening streams and giving them up costs a peer nothing and us an exchange each (CVE-2023-44487, CVE-2025-8671).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

/// Counts exchanges that a peer gave up, or made us refuse, before they were answered.
#[derive(Debug)]
pub(super) struct Churn {
    spent: AtomicU32,
    forgiven_at: Mutex<Instant>,
}

impl Churn {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            spent: AtomicU32::new(0),
            forgiven_at: Mutex::new(now),
        }
    }

    /// One more given up. `false` once that is more than a peer may.
    pub(super) fn give_up(&self, now: Instant) -> bool {
        let mut forgiven_at = self
            .forgiven_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let forgiven = now.duration_since(*forgiven_at).as_millis() * FORGIVEN_PER_SECOND / 1000;
        if forgiven > 0 {
            *forgiven_at = now;
            self.forgive(u32::try_from(forgiven).unwrap_or(u32::MAX));
        }
        self.spent.fetch_add(1, Ordering::Relaxed) < SPENT_MAX
    }

    /// One answered makes up for one given up.
    pub(super) fn answer(&self) {
        if self.spent.load(Ordering::Relaxed) > 0 {
            self.forgive(1);
        }
    }

    fn forgive(&self, count: u32) {
        let less = |spent: u32| Some(spent.saturating_sub(count));
        let _always = self
            .spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Exchanges given up beyond those answered, at once: four times the streams a peer usually may have open, so that an app
/// that ends and takes all its requests along is no offence.
const SPENT_MAX: u32 = 1024;
/// Long polls may all end by being given up; this many a second are never held against anyone.
const FORGIVEN_PER_SECOND: u128 = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_is_not() {
        let now = Instant::now();
        let churn = Churn::new(now);
        assert!((0..SPENT_MAX).all(|_| churn.give_up(now)));
        assert!(!churn.give_up(now));
    }

    #[test]
    fn answers_make_up_for_it() {
        let now = Instant::now();
        let churn = Churn::new(now);
        for _ in 0..10 * SPENT_MAX {
            assert!(churn.give_up(now));
            churn.answer();
        }
    }

    #[test]
    fn a_slow_trickle_is_forgiven() {
        let start = Instant::now();
        let churn = Churn::new(start);
        for n in 0..10 * SPENT_MAX {
            assert!(churn.give_up(start + Duration::from_millis(10) * n));
        }
    }
}
