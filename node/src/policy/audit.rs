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

/// Who called what, and the reason and rule that would have denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    caller: Box<str>,
    callee: Box<str>,
    why: &'static str,
    rule: Box<str>,
}

#[derive(Debug)]
struct Seen {
    calls: u64,
    last: Instant,
    logged: Instant,
    /// Since then.
    silent: u64,
}

/// Calls alike that were let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetThrough {
    /// The name of a service, or `other`.
    pub caller: String,
    pub why: &'static str,
    /// Empty where no rule decides.
    pub rule: String,
    /// Since the agent started.
    pub calls: u64,
    /// When the latest was made.
    pub last: Instant,
}

impl Audit {
    /// Counts a call that `entry`'s mode let through, and logs it unless its like was logged lately.
    pub fn let_through(&self, entry: &Entry, caller: &SpiffeId, verdict: &Verdict<'_>) {
        let callee = &entry.service.name;
        let rule = verdict.rule.map(ToString::to_string);
        let rule = rule.as_deref().unwrap_or_default();
        let name = caller.service_name().unwrap_or_default();
        let key = |name: &str| Key {
            caller: name.into(),
            callee: callee.as_str().into(),
            why: verdict.why.as_str(),
            rule: rule.into(),
        };
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = seen.contains_key(&key(name)) || seen.len() < SEEN_MAX;
        // Past the bound, calls are still counted, but no longer told apart by caller.
        let label = if is_known { name } else { OTHER };
        let times = match seen.entry(key(label)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Seen::first(now));
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

    /// What of `callee` was let through, the most frequent first.
    pub fn of(&self, callee: &str) -> Vec<LetThrough> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let about = seen.iter().filter(|(key, _)| *key.callee == *callee);
        let mut told: Vec<_> = about
            .map(|(key, seen)| LetThrough {
                caller: key.caller.to_string(),
                why: key.why,
                rule: key.rule.to_string(),
                calls: seen.calls,
                last: seen.last,
            })
            .collect();
        drop(seen);
        told.sort_by(|a, b| (b.calls, &a.caller, &a.rule).cmp(&(a.calls, &b.caller, &b.rule)));
        told
    }
}

impl Seen {
    /// The first call is logged by whoever made it.
    fn first(now: Instant) -> Self {
        Self {
            calls: 1,
            last: now,
            logged: now,
            silent: 0,
        }
    }

    /// How many calls the next line stands for, if it is time for one.
    fn again(&mut self, now: Instant) -> Option<u64> {
        self.calls += 1;
        self.last = now;
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
        let mut seen = Seen::first(Instant::now());
        assert_eq!(seen.again(Instant::now()), None);
        assert_eq!(seen.again(Instant::now()), None);
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!(seen.again(Instant::now()), Some(3));
        assert_eq!(seen.again(Instant::now()), None);
        assert_eq!(seen.calls, 5);
    }
}
