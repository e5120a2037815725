//! Which news are to be told, and when. Pure: the caller brings the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Bucket;
use crate::names::NodeId;

/// News waiting to be told. There is one entry per node, so news about a node that wait are overtaken by newer ones.
#[derive(Debug)]
pub(crate) struct Rumours {
    due: BTreeMap<NodeId, Due>,
    budget: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    hops: u8,
    /// Who told us.
    from: Option<NodeId>,
    /// How often it is told again.
    echoes: u8,
}

/// One thing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rumour {
    pub(crate) node: NodeId,
    pub(crate) hops: u8,
    pub(crate) from: Option<NodeId>,
}

impl Rumours {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            due: BTreeMap::new(),
            budget: Bucket::new(now, BYTES_PER_SECOND, 2 * BYTES_PER_SECOND),
        }
    }

    /// Something is to be told about `node` at `at`.
    pub(crate) fn add(&mut self, rumour: Rumour, at: Instant) {
        let Rumour { node, hops, from } = rumour;
        let due = self.due.entry(node).or_insert(Due {
            at,
            hops,
            from,
            echoes: ECHOES,
        });
        due.echoes = ECHOES;
        due.at = due.at.min(at);
        due.hops = due.hops.max(hops);
    }

    /// When to come back.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().map(|due| due.at).min()
    }

    /// What is due, if its cost is within the budget. If not, all of it waits a little and grows together.
    pub(crate) fn take(&mut self, now: Instant, cost: impl Fn(NodeId) -> usize) -> Vec<Rumour> {
        let mut ready = Vec::new();
        let mut waiting: Vec<_> = self
            .due
            .iter_mut()
            .filter(|(_, due)| due.at <= now)
            .collect();
        // What nobody was told yet comes first.
        waiting.sort_by_key(|(_, due)| std::cmp::Reverse(due.echoes));
        for (node, due) in waiting {
            if ready.len() < BATCH_MAX && self.budget.take(now, cost(*node)) {
                ready.push(Rumour {
                    node: *node,
                    hops: due.hops,
                    from: due.from,
                });
            } else {
                due.at = now + COALESCE;
            }
        }
        for rumour in &ready {
            self.told(rumour.node, now);
        }
        ready
    }

    /// Told once: it is told again a little later, to others, or done with.
    fn told(&mut self, node: NodeId, now: Instant) {
        match self.due.get_mut(&node) {
            Some(due) if due.echoes > 0 => {
                due.echoes -= 1;
                due.at = now + ECHO;
            }
            _ => {
                self.due.remove(&node);
            }
        }
    }
}

/// How often a rumour is passed on: the generations that reach `members` nodes at three each, and two for those that meet
/// somebody who knows already.
pub(crate) fn hops(members: usize) -> u8 {
    let mut reached = 1usize;
    let mut hops = 2;
    while reached < members {
        reached = reached.saturating_mul(FANOUT);
        hops += 1;
    }
    hops
}

/// How many are told.
pub(crate) const FANOUT: usize = 3;

/// Up to how long news wait before they are passed on, so that not all speak at once and some of it travels together.
pub(crate) const JITTER: Duration = Duration::from_millis(50);

/// Telling three once reaches 94 % of a large cell, telling three more 99.7 %; reconciliation finds the others.
const ECHOES: u8 = 1;
const ECHO: Duration = Duration::from_millis(100);

/// What a node spends on rumours: 13 changes a second of 600 bytes, to three peers and three more. Past it, changes travel together.
const BYTES_PER_SECOND: usize = 50 * 1000;
const COALESCE: Duration = Duration::from_millis(200);

/// Records that travel together; the largest still fit a frame.
const BATCH_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn rumour(n: u8) -> Rumour {
        Rumour {
            node: NodeId::from_bytes([n; 16]),
            hops: 3,
            from: None,
        }
    }

    #[test]
    fn hops_grow_with_the_logarithm() {
        assert_eq!(
            [1, 2, 3, 4, 9, 10, 27, 256, 400].map(hops),
            [2, 3, 3, 4, 4, 5, 5, 8, 8]
        );
    }

    #[test]
    fn newer_news_of_a_node_take_the_place_of_older() {
        let now = Instant::now();
        let mut rumours = Rumours::new(now);
        rumours.add(rumour(1), now + JITTER);
        rumours.add(rumour(1), now);
        assert_eq!(rumours.next(), Some(now));
        assert_eq!(rumours.take(now, |_| 100), [rumour(1)]);
        assert_eq!(rumours.next(), Some(now + ECHO));
        assert_eq!(rumours.take(now + ECHO, |_| 100), [rumour(1)]);
        assert_eq!(rumours.next(), None);
    }

    #[test]
    fn past_the_budget_news_wait() {
        let now = Instant::now();
        let mut rumours = Rumours::new(now);
        rumours.add(rumour(1), now);
        rumours.add(rumour(2), now);
        assert_eq!(rumours.take(now, |_| 90_000), [rumour(1)]);
        assert_eq!(rumours.take(now + ECHO, |_| 90_000), []);
        assert_eq!(
            rumours.take(now + Duration::from_secs(3), |_| 90_000),
            [rumour(2)]
        );
    }
}
