//! A token bucket. Pure: the caller brings the clock.

use tokio::time::Instant;

/// Fills at a steady rate up to its size.
#[derive(Debug)]
pub(crate) struct Bucket {
    level: f64,
    at: Instant,
    per_second: f64,
    size: f64,
}

impl Bucket {
    pub(crate) fn new(now: Instant, per_second: usize, size: usize) -> Self {
        Self {
            level: size as f64,
            at: now,
            per_second: per_second as f64,
            size: size as f64,
        }
    }

    /// Takes `amount` if there is that much.
    pub(crate) fn take(&mut self, now: Instant, amount: usize) -> bool {
        self.fill(now);
        let enough = self.level >= amount as f64;
        if enough {
            self.level -= amount as f64;
        }
        enough
    }

    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.size
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + seconds * self.per_second).min(self.size);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_fills_at_its_rate_up_to_its_size() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 10, 20);
        assert!(bucket.take(start, 20));
        assert!(!bucket.take(start, 1));
        let later = start + Duration::from_millis(500);
        assert!(!bucket.take(later, 6));
        assert!(bucket.take(later, 5));
        assert!(bucket.is_full(start + Duration::from_secs(60)));
    }
}
