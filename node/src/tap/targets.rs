//! Which nodes see calls to a service.

use std::collections::BTreeSet;

use starling_gossip::{Catalogue, NodeName, ServiceName, State};

/// Those that run it and those whose apps call it, as far as this node knows; of `only`, if there are any. At most
/// [`NODES_MAX`], and whether there are more.
pub(super) fn targets(
    catalogue: &Catalogue,
    callee: &ServiceName,
    only: &BTreeSet<NodeName>,
) -> (BTreeSet<NodeName>, usize) {
    let running = catalogue.instances(callee.as_str()).iter();
    let running = running.map(|one| &one.node);
    let members = catalogue.members.values();
    let calling = members
        .filter(|member| member.state != State::Left && member.calls.contains(callee))
        .map(|member| &member.name);
    let all: BTreeSet<_> = running.chain(calling).collect();
    let wanted = |node: &&&NodeName| only.is_empty() || only.contains(**node);
    let wanted: Vec<_> = all.iter().filter(wanted).collect();
    let left = wanted.len().saturating_sub(NODES_MAX);
    let asked = wanted.into_iter().take(NODES_MAX);
    (asked.map(|node| (*node).clone()).collect(), left)
}

/// Nodes asked for one tap. Each question waits two seconds, so these are 64 questions a second when nothing happens.
pub(super) const NODES_MAX: usize = 128;
