//! What the agent told, and what of it belongs to one service or node.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::admin::view::{Edges, End, Node, Service, Signals};

/// All there is to show.
#[derive(Debug)]
pub(super) struct Picture {
    /// When it was asked for.
    pub(super) taken: Instant,
    pub(super) edges: Edges,
    pub(super) services: Vec<Service>,
    pub(super) nodes: Vec<Node>,
}

/// The calls of several edges. Percentiles cannot be added up from the outside, so the worst stands for all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Load {
    pub(super) rate: f64,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) denied: u64,
    pub(super) open: u64,
    pub(super) worst_p99_us: Option<u64>,
}

impl Load {
    pub(super) fn add(&mut self, signals: &Signals) {
        self.rate += signals.rate;
        self.calls = self.calls.saturating_add(signals.calls);
        self.failed = self.failed.saturating_add(signals.failed);
        self.denied = self.denied.saturating_add(signals.denied);
        self.open = self.open.saturating_add(signals.open);
        self.worst_p99_us = self.worst_p99_us.max(signals.p99_us);
    }
}

impl Picture {
    /// What the callers of a service see of it; what the callees see only where no caller's agent tells, as a stranger's call
    /// is `other` to them and would count twice.
    pub(super) fn called(&self, service: &str) -> Load {
        let edges = self.edges.edges.iter();
        let edges: Vec<_> = edges.filter(|edge| edge.callee == service).collect();
        let (mut callers, mut callees) = (Load::default(), Load::default());
        for edge in edges {
            edge.caller_side.iter().for_each(|side| callers.add(side));
            edge.callee_side.iter().for_each(|side| callees.add(side));
        }
        if callers == Load::default() {
            callees
        } else {
            callers
        }
    }

    /// The instance whose own agent sees it answer slowest, if they differ by so much that it matters.
    pub(super) fn slowest(&self, service: &str) -> Option<(String, u64)> {
        let mut nodes = BTreeMap::<&str, u64>::new();
        let edges = self.edges.edges.iter();
        let ends = edges.filter(|edge| edge.callee == service);
        for end in ends
            .flat_map(|edge| &edge.ends)
            .filter(|end| end.side == "callee")
        {
            if let Some(p50) = end.signals.p50_us {
                let slowest = nodes.entry(&end.node).or_default();
                *slowest = (*slowest).max(p50);
            }
        }
        let (node, slowest) = nodes.iter().max_by_key(|(_, p50)| **p50)?;
        let fastest = nodes.values().min()?;
        let matters = *slowest >= SLOW_US && *slowest >= 3 * fastest;
        matters.then(|| ((*node).to_owned(), *slowest))
    }

    /// What a node's agent sees at one end.
    pub(super) fn at(&self, node: &str, side: &str) -> Load {
        let mut load = Load::default();
        self.ends(node)
            .filter(|end| end.side == side)
            .for_each(|end| load.add(&end.signals));
        load
    }

    /// The oldest word of a node in here; none if it says nothing.
    pub(super) fn age_s(&self, node: &str) -> Option<u64> {
        self.ends(node).map(|end| end.age_s).max()
    }

    pub(super) fn gap(&self, node: &str) -> Option<&str> {
        let mut gaps = self.edges.gaps.iter();
        gaps.find(|gap| gap.node == node).map(|gap| &*gap.why)
    }

    fn ends<'p>(&'p self, node: &'p str) -> impl Iterator<Item = &'p End> {
        let ends = self.edges.edges.iter().flat_map(|edge| &edge.ends);
        ends.filter(move |end| end.node == node)
    }
}

/// Below five milliseconds nobody looks for a slow instance.
const SLOW_US: u64 = 5_000;
