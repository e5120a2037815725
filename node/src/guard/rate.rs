//! How many calls may begin in a time: GCRA, the generic cell rate algorithm. It keeps one time for each key.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// The rates of the keys of one rule.
#[derive(Debug)]
pub struct Rates {
    rate: Rate,
    /// Of this process alone, so that nobody can make keys meet on purpose.
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// For each key the time at which a call would come if all came exactly at the rate.
    due: HashMap<u64, Instant>,
    swept: Option<Instant>,
}

impl Rates {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            hasher: RandomState::new(),
            table: Mutex::default(),
        }
    }

    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Whether a call with this key may begin now; if not, after which time it may. Calls without a key share one.
    pub fn admit(&self, key: Option<&[u8]>, now: Instant) -> Result<(), Duration> {
        let hash = key.map_or(SHARED, |key| self.hasher.hash_one(key));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = table.room_for(hash, now);
        let due = table.due.entry(hash).or_insert(now);
        *due = admit(&self.rate, *due, now)?;
        Ok(())
    }
}

/// One call: the next time it would be due, or how long it is too early.
fn admit(rate: &Rate, due: Instant, now: Instant) -> Result<Instant, Duration> {
    let each = rate.per / rate.requests;
    let leeway = each * (rate.burst - 1);
    let due = due.max(now);
    let early = due.saturating_duration_since(now + leeway);
    if early.is_zero() {
        Ok(due + each)
    } else {
        Err(early)
    }
}

impl Table {
    /// The key to count under: its own, or the one that all share when there are too many. Keys that are due already
    /// have nothing to remember and make room.
    fn room_for(&mut self, hash: u64, now: Instant) -> u64 {
        if self.due.len() < KEYS_MAX || self.due.contains_key(&hash) {
            return hash;
        }
        let may_sweep = self
            .swept
            .is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if may_sweep {
            self.swept = Some(now);
            self.due.retain(|_, due| *due > now);
        }
        if self.due.len() < KEYS_MAX {
            hash
        } else {
            SHARED
        }
    }
}

/// The key of calls without one, and of those that find no room.
const SHARED: u64 = 0;

/// Keys told apart at a time: some 100 KiB for each rule. Beyond, new ones share one rate until others rest.
const KEYS_MAX: usize = 4096;

/// Looking for keys at rest goes through all of them.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, per_ms: u64, burst: u32) -> Rate {
        Rate {
            requests,
            per: Duration::from_millis(per_ms),
            burst,
            key: None,
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let rates = Rates::new(rate(10, 1000, 5));
        let good = (0..100).filter(|_| rates.admit(None, start).is_ok());
        assert_eq!(good.count(), 5);
        assert_eq!(rates.admit(None, start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        assert!(rates.admit(None, later).is_ok() && rates.admit(None, later).is_err());
    }

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let now = Instant::now();
        let rates = Rates::new(rate(1, 1000, 1));
        for key in [&b"alice"[..], b"bob"] {
            assert!(rates.admit(Some(key), now).is_ok());
            assert!(rates.admit(Some(key), now).is_err());
        }
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let mut now = Instant::now();
        let rates = Rates::new(rate(1, 1000, 1));
        let call = |key: u32, now| rates.admit(Some(&key.to_be_bytes()), now).is_ok();
        let good = (0..10_000).filter(|key| call(*key, now)).count();
        assert_eq!(good, KEYS_MAX + 1, "the rest shares one rate");
        assert!(rates.table.lock().unwrap().due.len() <= KEYS_MAX + 1);
        now += Duration::from_secs(2);
        assert!(call(20_000, now), "those at rest made room");
    }

    proptest! {
        /// However calls come, no stretch of time sees more than the burst and what the rate brings in it.
        #[test]
        fn never_more_than_burst_and_rate(
            gaps in prop::collection::vec(0_u64..300, 1..200),
            requests in 1_u32..50,
            burst in 1_u32..50,
        ) {
            let start = Instant::now();
            let rates = Rates::new(rate(requests, 1000, burst));
            let (mut now, mut good) = (start, 0_u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                good += u32::from(rates.admit(None, now).is_ok());
            }
            let brought = (now - start).as_secs_f64() * f64::from(requests);
            prop_assert!(f64::from(good) <= f64::from(burst) + brought + 1.0);
        }
    }
}
