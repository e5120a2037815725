//! What went through though nothing allows it: counted each time, logged once in a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use starling_transport::SpiffeId;
use tokio::time::Instant;

use super::compile::Entry;
use super::judge::Verdict;
use crate::telemetry::metrics;
use crate::telemetry::series::OTHER;

/// Callers, callees and rules seen so far.
#[derive(Debug, Default)]
pub struct Audit(Mutex<HashMap<Key, Seen>>);

/// Caller, callee, and the rule or reason that would have denied.
type Key = (Box<str>, Box<str>, Box<str>);

#[derive(Debug)]
struct Seen {
    logged: Instant,
    /// Since then.
    silent: u64,
}

impl Audit {
    /// Counts a call that `entry`'s mode let through, and logs it unless its like was logged lately.
    pub fn let_through(&self, entry: &Entry, caller: &SpiffeId, verdict: &Verdict<'_>) {
        let callee = &entry.service.name;
        let rule = verdict.rule.map(ToString::to_string);
        let rule = rule.as_deref().unwrap_or_default();
        let name = caller.service_name().unwrap_or_default();
        let key = |name: &str| -> Key {
            (
                name.into(),
                callee.as_str().into(),
                format!("{} {rule}", verdict.why.as_str()).into(),
            )
        };
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = seen.contains_key(&key(name)) || seen.len() < SEEN_MAX;
        // Past the bound, calls are still counted, but no longer told apart by caller.
        let label = if is_known { name } else { OTHER };
        let times = match seen.entry(key(label)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Seen {
                    logged: now,
                    silent: 0,
                });
                Some(1)
            }
            std::collections::hash_map::Entry::Occupied(mut old) => old.get_mut().again(now),
        };
        drop(seen);
        metrics::let_through(
            label,
            callee.as_str(),
            entry.mode.as_str(),
            verdict.why.as_str(),
        );
        if let Some(times) = times {
            tracing::warn!(
                caller = %caller,
                callee = callee.as_str(),
                mode = entry.mode.as_str(),
                reason = verdict.why.as_str(),
                rule,
                times,
                "enforcing the policy would have denied this call"
            );
        }
    }
}

impl Seen {
    /// How many calls the next line stands for, if it is time for one.
    fn again(&mut self, now: Instant) -> Option<u64> {
        self.silent += 1;
        if now.duration_since(self.logged) < LOG_EVERY {
            return None;
        }
        self.logged = now;
        Some(std::mem::take(&mut self.silent))
    }
}

/// Combinations of caller, callee and rule that are told apart: far more than one host has, and about 200 KB.
const SEEN_MAX: usize = 1024;

/// How often the same is logged again.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_logged_once_a_minute_with_its_count() {
        let mut seen = Seen {
            logged: Instant::now(),
            silent: 0,
        };
        assert_eq!(seen.again(Instant::now()), None);
        assert_eq!(seen.again(Instant::now()), None);
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!(seen.again(Instant::now()), Some(3));
        assert_eq!(seen.again(Instant::now()), None);
    }
}
