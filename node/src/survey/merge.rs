//! Adds up what nodes say. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Seen;
use crate::admin::view::{self, End, Signals};
use crate::reason::Reason;
use crate::telemetry::edges::sketch::{self, Sketch};
use crate::telemetry::edges::{SeenEdge, Tally, Window};
use crate::telemetry::series::Side;

/// What one node says of its edges.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) node: String,
    pub(super) zone: String,
    /// Since it said so.
    pub(super) age: Duration,
    pub(super) source: Source,
    /// What is missing, if it is the same for all of them.
    pub(super) note: Option<String>,
    pub(super) seen: Arc<Seen>,
}

/// Where we have it from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It is this node.
    Live,
}

/// Calls of several nodes.
#[derive(Default)]
struct Sum {
    tally: Tally,
    latency: Option<Sketch>,
    rate: f64,
    open: u64,
}

#[derive(Default)]
struct Merged {
    caller_side: Option<Sum>,
    callee_side: Option<Sum>,
    ends: Vec<End>,
}

/// All edges that anybody tells of, by caller, callee and protocol.
pub(super) fn merged(window: Window, said: &[Said]) -> Vec<view::Edge> {
    let mut edges = BTreeMap::<_, Merged>::new();
    for said in said {
        for edge in &said.seen.edges {
            let key = &edge.key;
            let name = (&*key.caller, &*key.callee, key.protocol.as_str());
            edges.entry(name).or_default().add(said, edge);
        }
    }
    let edges = edges.into_iter();
    edges
        .map(|((caller, callee, protocol), merged)| view::Edge {
            caller: caller.to_owned(),
            callee: callee.to_owned(),
            protocol: protocol.to_owned(),
            window_s: window.seconds(),
            caller_side: merged.caller_side.map(Sum::signals),
            callee_side: merged.callee_side.map(Sum::signals),
            ends: merged.ends,
        })
        .collect()
}

impl Merged {
    fn add(&mut self, said: &Said, edge: &SeenEdge) {
        let side = match edge.key.side {
            Side::Caller => &mut self.caller_side,
            Side::Callee => &mut self.callee_side,
        };
        side.get_or_insert_default().add(said, edge);
        let mut alone = Sum::default();
        alone.add(said, edge);
        let thinned = edge.is_thinned.then(|| THINNED.to_owned());
        self.ends.push(End {
            node: said.node.clone(),
            side: edge.key.side.as_str().to_owned(),
            zone: said.zone.clone(),
            age_s: said.age.as_secs(),
            source: said.source.as_str().to_owned(),
            note: said.note.clone().or(thinned),
            signals: alone.signals(),
        });
    }
}

impl Sum {
    fn add(&mut self, said: &Said, edge: &SeenEdge) {
        self.tally.add(&edge.tally);
        self.open = self.open.saturating_add(edge.open);
        self.rate += rate(edge.tally.calls, said.seen.lasted);
        if !edge.latency.is_empty() {
            let sketch = self.latency.get_or_insert_default();
            // Answers of other nodes are checked as they come.
            let _checked = sketch.add(&edge.latency);
        }
    }

    fn signals(self) -> Signals {
        let part = |part| self.latency.as_ref()?.quantile(part);
        let reasons = top_reasons(&self.tally.reasons);
        Signals {
            calls: self.tally.calls,
            failed: self.tally.failed,
            denied: self.tally.denied,
            rate: self.rate,
            p50_us: part(0.5),
            p90_us: part(0.9),
            p99_us: part(0.99),
            error: sketch::ERROR,
            bytes_in: self.tally.bytes_in,
            bytes_out: self.tally.bytes_out,
            open: self.open,
            reasons,
        }
    }
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
        }
    }
}

/// Calls per second, to a thousandth.
fn rate(calls: u64, lasted: Duration) -> f64 {
    // An agent that has just begun has not seen a second of anything.
    let rate = calls as f64 / lasted.as_secs_f64().max(1.0);
    (rate * 1000.0).round() / 1000.0
}

fn top_reasons(reasons: &BTreeMap<Reason, u64>) -> BTreeMap<String, u64> {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let top = reasons.into_iter().take(REASONS_SHOWN);
    top.map(|(reason, count)| (reason.as_str().to_owned(), *count))
        .collect()
}

/// Few calls fail in more ways.
const REASONS_SHOWN: usize = 5;

const THINNED: &str = "latencies of older calls were dropped for want of memory";
