//! How a node's calls go, in so few bytes that it can tell everybody.

use crate::names::ServiceName;

/// The calls of about the last minute: the busiest edges of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How much time it is about.
    pub lasted_s: u32,
    /// At most [`EDGES_MAX`] of them.
    pub edges: Vec<SummaryEdge>,
}

/// The calls of one service to another, at one end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SummaryEdge {
    /// The end that tells of it.
    pub end: CallEnd,
    /// Who calls; `other` if the callee does not know it.
    pub caller: ServiceName,
    /// Who is called.
    pub callee: ServiceName,
    /// A plain word: `tcp`, `http`.
    pub protocol: String,
    /// Calls that ended.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that policy denied.
    pub denied: u64,
    /// Calls under way.
    pub open: u64,
    /// In microseconds: half of the calls took at most this long, 90 and 99 of a hundred. `None` where it is not measured.
    pub percentiles_us: Option<[u64; 3]>,
}

/// Which of the two agents of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallEnd {
    /// The caller's.
    Caller,
    /// The callee's.
    Callee,
}

/// Edges in one summary. With names of usual length they take 600 bytes; 256 nodes that tell everybody twice a minute cost each
/// of them 5 KB/s.
pub const EDGES_MAX: usize = 16;

impl Summary {
    /// In the order in which it travels, without what does not fit: the edges with the fewest calls go first. `None` if nothing
    /// is left.
    pub(crate) fn tidy(mut self) -> Option<Self> {
        self.lasted_s = self.lasted_s.clamp(1, LASTED_S_MAX);
        self.edges
            .sort_by_key(|edge| std::cmp::Reverse((edge.calls, edge.open)));
        self.edges.truncate(EDGES_MAX);
        self.edges.sort();
        self.edges.dedup_by(|a, b| a.name() == b.name());
        (!self.edges.is_empty()).then_some(self)
    }
}

impl SummaryEdge {
    /// What tells it from others.
    pub(crate) fn name(&self) -> (CallEnd, &ServiceName, &ServiceName, &str) {
        (self.end, &self.caller, &self.callee, &self.protocol)
    }
}

/// It is about a minute; whoever says an hour means something else.
pub(crate) const LASTED_S_MAX: u32 = 600;
