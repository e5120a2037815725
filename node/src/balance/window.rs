//! How often an instance answered well of late.

use tokio::time::Instant;

/// Time in which an outcome's weight shrinks to a third: long enough for a rate to mean something, short enough that a
/// cured instance is not held to its past.
const MEMORY_S: f64 = 10.0;

/// Outcomes below which a rate is chance.
const OUTCOMES_MIN: f64 = 20.0;

/// Good and bad outcomes, the older the less they count.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    good: f64,
    bad: f64,
    at: Option<Instant>,
}

impl Window {
    pub(super) fn note(&mut self, is_good: bool, now: Instant) {
        let kept = self.kept(now);
        self.good = self.good * kept + f64::from(u8::from(is_good));
        self.bad = self.bad * kept + f64::from(u8::from(!is_good));
        self.at = Some(now);
    }

    /// This and another one as if they were one.
    pub(super) fn add(&mut self, other: &Self, now: Instant) {
        let (ours, theirs) = (self.kept(now), other.kept(now));
        self.good = self.good * ours + other.good * theirs;
        self.bad = self.bad * ours + other.bad * theirs;
        self.at = Some(now);
    }

    /// Whether the rate of good outcomes is this many percentage points below that of `peers`, as far as both can be told.
    pub(super) fn is_below(&self, peers: &Self, points: u8, now: Instant) -> bool {
        match (self.rate(now), peers.rate(now)) {
            (Some(own), Some(theirs)) => own + f64::from(points) / 100.0 <= theirs,
            _ => false,
        }
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        let outcomes = self.good + self.bad;
        (outcomes * self.kept(now) >= OUTCOMES_MIN).then(|| self.good / outcomes)
    }

    fn kept(&self, now: Instant) -> f64 {
        self.at.map_or(0.0, |at| {
            (-now.saturating_duration_since(at).as_secs_f64() / MEMORY_S).exp()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn window(good: u32, bad: u32, now: Instant) -> Window {
        let mut window = Window::default();
        (0..good).for_each(|_| window.note(true, now));
        (0..bad).for_each(|_| window.note(false, now));
        window
    }

    #[test]
    fn a_rate_is_held_against_that_of_the_others() {
        let now = Instant::now();
        let peers = window(95, 5, now);
        assert!(window(50, 50, now).is_below(&peers, 30, now));
        assert!(!window(80, 20, now).is_below(&peers, 30, now));
        assert!(
            !window(0, 10, now).is_below(&peers, 30, now),
            "too few to tell"
        );
        assert!(
            !window(0, 100, now).is_below(&window(0, 100, now), 30, now),
            "all are ill"
        );
        let later = now + Duration::from_secs(60);
        assert!(
            !window(0, 100, now).is_below(&window(100, 0, later), 30, later),
            "long ago"
        );
    }
}
