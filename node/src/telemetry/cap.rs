//! How many series a metric may have: names come and go with configuration and documents, series stay for as long as the
//! agent runs.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use metrics::{Key, KeyName, Label};

use super::series::OTHER;

/// Series of one metric. A mesh of 30 services that all call each other has 900. A thousand histograms are some 2 MiB of
/// memory and 18,000 lines of the page; a thousand counters with seven labels less than 1 MiB.
pub(crate) const SERIES_MAX: usize = 1000;

/// Labels whose values are words of closed lists: they keep them. All others hold names.
pub(super) const CLOSED: [&str; 13] = [
    "direction",
    "liveness",
    "metric",
    "mode",
    "outcome",
    "protocol",
    "reason",
    "side",
    "state",
    "status",
    "task",
    "way",
    "what",
];

/// Remembers which series there are.
#[derive(Debug, Default)]
pub(super) struct Cap {
    metrics: Mutex<HashMap<KeyName, Known>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Known {
    /// Hashes of keys: two of a thousand that are alike do not happen, and would let in one series more.
    series: HashSet<u64>,
    is_full: bool,
}

impl Cap {
    /// Where to count instead of under `key`, if its metric has all the series that it may have.
    pub(super) fn instead_of(&self, key: &Key) -> Option<Key> {
        let hash = self.hash(key);
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let known = metrics.entry(key.name_shared()).or_default();
        if known.series.contains(&hash) {
            return None;
        }
        if known.series.len() < SERIES_MAX {
            known.series.insert(hash);
            return None;
        }
        let is_news = !std::mem::replace(&mut known.is_full, true);
        drop(metrics);
        if is_news {
            let metric = key.name();
            tracing::warn!(
                metric,
                "no more series: names that are new are counted as `{OTHER}` until the agent restarts"
            );
        }
        let other = without_names(key);
        (other != *key).then_some(other)
    }

    /// Not the key's own hash, which is made to be fast: of 1,500 short names a hundred shared theirs with another.
    fn hash(&self, key: &Key) -> u64 {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        let labels: Vec<_> = labels.collect();
        self.hasher.hash_one((key.name(), labels))
    }
}

/// As `key`, for everybody who has no series of their own.
fn without_names(key: &Key) -> Key {
    let labels = key.labels().map(|label| {
        if CLOSED.contains(&label.key()) {
            label.clone()
        } else {
            Label::new(label.key().to_owned(), OTHER)
        }
    });
    let labels: Vec<_> = labels.collect();
    Key::from_parts(key.name_shared(), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str, callee: usize, reason: &'static str) -> Key {
        let labels = vec![
            Label::new("callee", callee.to_string()),
            Label::new("reason", reason),
        ];
        Key::from_parts(name, labels)
    }

    #[test]
    fn names_past_the_bound_share_one_series_for_each_word() {
        let cap = Cap::default();
        for callee in 0..SERIES_MAX {
            assert_eq!(cap.instead_of(&key("a", callee, "denied")), None);
        }
        for callee in [SERIES_MAX, 123_456] {
            let other = cap.instead_of(&key("a", callee, "timeout")).unwrap();
            let labels: Vec<_> = other
                .labels()
                .map(|label| (label.key(), label.value()))
                .collect();
            assert_eq!(labels, [("callee", OTHER), ("reason", "timeout")]);
            assert_eq!(cap.instead_of(&other), None);
        }
        // Those that were there before keep theirs, and other metrics have room of their own.
        assert_eq!(cap.instead_of(&key("a", 7, "denied")), None);
        assert_eq!(cap.instead_of(&key("b", SERIES_MAX, "denied")), None);
    }

    #[test]
    fn closed_lists_are_sorted_and_name_nobody() {
        assert!(CLOSED.is_sorted());
        for open in [
            "caller", "callee", "route", "service", "subset", "identity", "node",
        ] {
            assert!(!CLOSED.contains(&open));
        }
    }
}
