//! Where keys belong: a ring or a table, made anew beside the request path when the instances change.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use starling_gossip::{Instance, Liveness, NodeName};

use super::maglev::Maglev;
use super::ring::Ring;
use crate::config::Algorithm;
use crate::hash;

/// The places of keys among the instances of a service. Subsets step over those that are not theirs.
#[derive(Debug)]
pub(super) struct Sticky {
    is_ring: bool,
    made: ArcSwapOption<Places>,
}

/// One state of it.
#[derive(Debug)]
pub(super) struct Places {
    members: Vec<(NodeName, u32)>,
    order: Order,
}

#[derive(Debug)]
enum Order {
    Ring(Ring),
    Maglev(Maglev),
}

impl Sticky {
    /// `None` for an algorithm that does not place keys.
    pub(super) fn new(algorithm: &Algorithm) -> Option<Arc<Self>> {
        algorithm.key()?;
        Some(Arc::new(Self {
            is_ring: matches!(algorithm, Algorithm::RingHash(_)),
            made: ArcSwapOption::empty(),
        }))
    }

    /// Takes in new instances. Those that their own node or gossip calls out of order have no place; what calls find out
    /// does not count, as it changes by the second and the walk steps over it.
    pub(super) fn place<'i>(&self, instances: impl Iterator<Item = &'i Arc<Instance>>) {
        let in_order = instances.filter(|instance| {
            instance.healthy && instance.weight > 0 && instance.liveness == Liveness::Alive
        });
        let mut members: Vec<_> = in_order
            .map(|instance| (instance.node.clone(), instance.weight))
            .collect();
        members.sort_unstable();
        if self
            .made
            .load()
            .as_ref()
            .is_some_and(|made| made.members == members)
        {
            return;
        }
        let weighed: Vec<_> = members
            .iter()
            .map(|(node, weight)| (node.as_str(), f64::from(*weight)))
            .collect();
        let order = if self.is_ring {
            Order::Ring(Ring::new(&weighed))
        } else {
            Order::Maglev(Maglev::new(&weighed))
        };
        self.made.store(Some(Arc::new(Places { members, order })));
    }

    pub(super) fn places(&self) -> Option<Arc<Places>> {
        self.made.load_full()
    }

    /// Whether load decides when the key's own instance is busy.
    pub(super) fn is_bounded(&self) -> bool {
        self.is_ring
    }
}

impl Places {
    /// Nodes in the order in which they would take the key.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = &NodeName> + '_ {
        let (ring, maglev) = match &self.order {
            Order::Ring(ring) => (Some(ring.walk(key).take(STEPS_MAX)), None),
            Order::Maglev(maglev) => (None, Some(maglev.walk(key))),
        };
        ring.into_iter()
            .flatten()
            .chain(maglev.into_iter().flatten())
            .map(|member| &self.members[member].0)
    }

    /// Where a key goes whose walk met nobody: the same for every agent. `is_usable` says who is left.
    pub(super) fn highest(
        &self,
        key: u64,
        is_usable: impl Fn(&NodeName) -> bool,
    ) -> Option<&NodeName> {
        let nodes = self.members.iter().map(|(node, _)| node);
        nodes
            .filter(|node| is_usable(node))
            .max_by_key(|node| hash::again(key, hash::of(node.as_str().as_bytes())))
    }
}

/// Points that a key looks at on a ring: enough to meet dozens of instances.
const STEPS_MAX: usize = 1024;
