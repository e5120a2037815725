//! A certificate that an issuer renews later: no failure, only a time to wait for.

use std::time::{Duration, SystemTime};

use starling_transport::Leaf;

use crate::ca::Life;

/// Until when one leaf is not asked for. Pure; the caller brings the clock and the die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    serial: Vec<u8>,
    until: SystemTime,
}

impl Waiting {
    /// An issuer said that `leaf` may be asked for again after `after`. `die`, from 0 to 1, spreads those who were told the
    /// same.
    ///
    /// Not before that time, but at most a third of what is left away: any node may call itself an issuer and say anything.
    pub(super) fn new(leaf: &Leaf, after: Duration, die: f64, now: SystemTime) -> Self {
        let left = leaf.time_left(now);
        let shortest = (left / 100).min(SHORTEST_MAX);
        // Bounded first: a multiple of any number of milliseconds may be no duration.
        let after = after.min(left).max(shortest);
        let wait = after.mul_f64(1.0 + die / 10.0) + GRAIN;
        Self {
            serial: leaf.serial.clone(),
            until: now + wait.min(left / 3),
        }
    }

    /// Whether it was said of this leaf: files from elsewhere may have replaced it.
    pub(super) fn is_of(&self, leaf: &Leaf) -> bool {
        self.serial == leaf.serial
    }

    /// When to ask again.
    pub(super) fn until(&self) -> SystemTime {
        self.until
    }
}

/// Whether an issuer's "later" is taken as no failure. Renewals begin when 50 to 60 % of a life are over, and a line has its
/// turn a tenth of it later; so after three quarters an issuer's clock is wrong, it lies, or another holder of the key takes
/// the turns. From then on it is trouble, and other issuers are asked as well.
pub(super) fn may_wait(leaf: &Leaf, now: SystemTime) -> bool {
    now < Life::of(leaf).three_quarters()
}

/// An issuer that says "at once" is not asked more often than this, or a hundredth of what is left.
const SHORTEST_MAX: Duration = Duration::from_secs(10);

/// Clocks count more finely than the answer, which is in milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::leaf;

    const DAY: Duration = Duration::from_secs(86_400);

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_renewer_waits_as_long_as_it_is_told_and_a_little_more() {
        let (leaf, begins) = leaf(DAY, 0);
        let now = begins + DAY / 2;
        let waits = |after, die| {
            let waiting = Waiting::new(&leaf, after, die, now);
            waiting.until().duration_since(now).unwrap()
        };
        assert_eq!(waits(secs(40.0), 0.0), secs(40.001));
        assert_eq!(waits(secs(40.0), 1.0), secs(44.001));
        // What a liar says.
        assert_eq!(waits(Duration::ZERO, 0.0), secs(10.001));
        assert_eq!(waits(Duration::from_millis(u64::MAX), 1.0), DAY / 6);
    }

    #[test]
    fn later_is_trouble_when_three_quarters_of_a_life_are_over() {
        let (leaf, begins) = leaf(DAY, 0);
        assert!(may_wait(&leaf, begins + DAY / 2));
        assert!(may_wait(&leaf, begins + DAY.mul_f64(0.74)));
        assert!(!may_wait(&leaf, begins + DAY.mul_f64(0.75)));
    }

    #[test]
    fn who_comes_as_late_as_can_be_has_its_turn_before_it_is_trouble() {
        for life in [secs(10.0), secs(600.0), DAY] {
            let (leaf, begins) = leaf(life, u8::MAX);
            let (now, interval) = (crate::renewal::due(&leaf), life / 10);
            let until = Waiting::new(&leaf, interval, 1.0, now).until();
            assert!(
                until >= now + interval && may_wait(&leaf, until),
                "{life:?}"
            );
            assert!(until < begins + life);
        }
    }

    #[test]
    fn it_holds_for_one_leaf() {
        let (one, begins) = leaf(DAY, 0);
        let (other, _) = leaf(DAY, 1);
        let waiting = Waiting::new(&one, DAY, 0.0, begins + DAY / 2);
        assert!(waiting.is_of(&one) && !waiting.is_of(&other));
    }

    proptest! {
        #[test]
        fn there_is_always_time_left(
            life in 1..=365 * 86_400_u64,
            over in 0.0..1.0_f64,
            after in any::<u64>(),
            die in 0.0..1.0_f64,
        ) {
            let life = Duration::from_secs(life);
            let (leaf, begins) = leaf(life, 0);
            let now = begins + life.mul_f64(over);
            let waiting = Waiting::new(&leaf, Duration::from_millis(after), die, now);
            prop_assert!(waiting.until() >= now);
            let left = leaf.time_left(now);
            prop_assert!(leaf.time_left(waiting.until()) >= left / 3 * 2);
        }
    }
}
