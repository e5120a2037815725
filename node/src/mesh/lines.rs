//! The lines of the certificates that nodes announce, as far as this node has seen them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use starling_transport::{Leaf, SpiffeId};

/// The newest leaf of each identity on each host. Never proof of anything: an operator is shown what a revocation would reach.
#[derive(Debug, Default)]
pub struct KnownLines(Mutex<BTreeMap<(SpiffeId, Option<String>), Leaf>>);

impl KnownLines {
    /// Notes a leaf that was accepted, and forgets what has ended when there are many.
    pub fn note(&self, leaf: &Leaf) {
        let mut lines = self.lines();
        let whose = (leaf.id.clone(), leaf.host.clone());
        if lines.len() >= LINES_MAX && !lines.contains_key(&whose) {
            let now = SystemTime::now();
            lines.retain(|_, leaf| leaf.not_after > now);
            if lines.len() >= LINES_MAX {
                return;
            }
        }
        let newest = lines.entry(whose).or_insert_with(|| leaf.clone());
        // Not the one that ends last: a host may have been invited anew for a shorter life.
        let made = |leaf: &Leaf| (leaf.not_before, leaf.not_after);
        if made(newest) <= made(leaf) {
            *newest = leaf.clone();
        }
    }

    /// What is good at `now`.
    pub fn good(&self, now: SystemTime) -> Vec<Leaf> {
        let lines = self.lines();
        let good = lines.values().filter(|leaf| leaf.not_after > now);
        good.cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<(SpiffeId, Option<String>), Leaf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 400 nodes with themselves and 128 services each; about 600 bytes each, so 30 MiB in all.
const LINES_MAX: usize = 400 * 129;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use starling_transport::TrustDomain;

    use super::*;
    use crate::testing::Ca;

    #[test]
    fn the_newest_leaf_of_each_identity_on_each_host_is_known_until_it_ends() {
        let ca = Ca::new();
        let domain = TrustDomain::parse("test.example").unwrap();
        let id = SpiffeId::node(&domain, "n2").unwrap();
        let old = ca.svid(&id).leaf().clone();
        let new = Leaf {
            not_after: old.not_after + Duration::from_secs(5),
            ..ca.svid(&id).leaf().clone()
        };
        let known = KnownLines::default();
        for leaf in [&old, &new, &old] {
            known.note(leaf);
        }
        let other = ca.svid(&SpiffeId::node(&domain, "n3").unwrap());
        known.note(other.leaf());
        let now = SystemTime::now();
        assert_eq!(known.good(now), [new.clone(), other.leaf().clone()]);
        assert_eq!(known.good(old.not_after), [new]);
    }

    #[test]
    fn a_host_that_was_invited_anew_for_a_shorter_life_is_known_by_its_new_line() {
        let ca = Ca::new();
        let domain = TrustDomain::parse("test.example").unwrap();
        let id = SpiffeId::node(&domain, "n2").unwrap();
        let old = ca.svid(&id).leaf().clone();
        let new = Leaf {
            not_before: old.not_before + Duration::from_secs(5),
            not_after: old.not_after - Duration::from_secs(60),
            ..ca.svid(&id).leaf().clone()
        };
        for order in [[&old, &new], [&new, &old]] {
            let known = KnownLines::default();
            for leaf in order {
                known.note(leaf);
            }
            assert_eq!(known.good(SystemTime::now()), std::slice::from_ref(&new));
        }
    }
}
