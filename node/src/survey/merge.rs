//! Adds up what nodes say. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::view::{self, End, Signals};
use crate::reason::Reason;
use crate::telemetry::edges::sketch::{self, Sketch};
use crate::telemetry::edges::{Seen, SeenEdge, Tally, Window};
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
    /// It answered us.
    Asked,
    /// It tells everybody.
    Gossip,
}

/// Calls of several nodes.
#[derive(Default)]
struct Sum {
    tally: Tally,
    latency: Option<Sketch>,
    rate: f64,
    open: u64,
}

/// What the agents at one end say.
#[derive(Default)]
struct Half {
    /// Those whose word is about this window.
    timely: Option<Sum>,
    /// Those that were last heard of before it began.
    late: Option<Sum>,
}

#[derive(Default)]
struct Merged {
    caller_side: Half,
    callee_side: Half,
    ends: Vec<End>,
}

/// All edges that anybody tells of, by caller, callee and protocol.
pub(super) fn merged(window: Window, said: &[Said]) -> Vec<view::Edge> {
    let mut edges = BTreeMap::<_, Merged>::new();
    for said in said {
        for edge in &said.seen.edges {
            let key = &edge.key;
            let name = (&*key.caller, &*key.callee, key.protocol.as_str());
            edges.entry(name).or_default().add(said, edge, window);
        }
    }
    let edges = edges.into_iter();
    edges
        .map(|((caller, callee, protocol), merged)| view::Edge {
            caller: caller.to_owned(),
            callee: callee.to_owned(),
            protocol: protocol.to_owned(),
            window_s: window.seconds(),
            caller_side: merged.caller_side.signals(),
            callee_side: merged.callee_side.signals(),
            ends: merged.ends,
        })
        .collect()
}

impl Merged {
    fn add(&mut self, said: &Said, edge: &SeenEdge, window: Window) {
        let half = match edge.key.side {
            Side::Caller => &mut self.caller_side,
            Side::Callee => &mut self.callee_side,
        };
        let is_timely = said.age.as_secs() <= window.seconds();
        let sum = if is_timely {
            &mut half.timely
        } else {
            &mut half.late
        };
        sum.get_or_insert_default().add(said, edge);
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

impl Half {
    /// What is older than the window counts only where there is nothing else: better old than nothing, as its age is told.
    fn signals(self) -> Option<Signals> {
        self.timely.or(self.late).map(Sum::signals)
    }
}

impl Sum {
    fn add(&mut self, said: &Said, edge: &SeenEdge) {
        self.tally.add(&edge.tally);
        self.open = self.open.saturating_add(edge.open);
        // An agent that has just begun has not seen a second of anything.
        self.rate += edge.tally.calls as f64 / said.seen.lasted.as_secs_f64().max(1.0);
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
            rate: (self.rate * 1000.0).round() / 1000.0,
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
            Self::Asked => "asked",
            Self::Gossip => "gossip",
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::telemetry::edges::Key;
    use crate::telemetry::edges::sketch::Packed;

    fn edge(side: Side, calls: u64, micros: u64) -> SeenEdge {
        let mut latency = Sketch::default();
        latency.add_calls(micros, calls);
        SeenEdge {
            key: Key {
                side,
                caller: "web".into(),
                callee: "orders".into(),
                protocol: Protocol::Http,
            },
            tally: Tally {
                calls,
                failed: 1,
                reasons: [(Reason::Timeout, 1)].into(),
                ..Tally::default()
            },
            latency: latency.pack(),
            is_thinned: false,
            open: 2,
        }
    }

    fn said(node: &str, age_s: u64, edges: Vec<SeenEdge>) -> Said {
        Said {
            node: node.to_owned(),
            zone: "rack-1".to_owned(),
            age: Duration::from_secs(age_s),
            source: Source::Asked,
            note: None,
            seen: Arc::new(Seen {
                lasted: Duration::from_secs(60),
                edges,
            }),
        }
    }

    #[test]
    fn ends_of_several_nodes_add_up() {
        let all = [
            said("n1", 0, vec![edge(Side::Caller, 60, 1_000)]),
            said("n2", 1, vec![edge(Side::Callee, 30, 500)]),
            said(
                "n3",
                2,
                vec![
                    edge(Side::Caller, 540, 9_000),
                    edge(Side::Callee, 30, 8_000),
                ],
            ),
        ];
        let merged = merged(Window::Minute, &all);
        assert_eq!(merged.len(), 1);
        let caller = merged[0].caller_side.as_ref().unwrap();
        assert_eq!((caller.calls, caller.failed, caller.open), (600, 2, 4));
        assert_eq!((caller.rate, caller.reasons["timeout"]), (10.0, 2));
        let near = |told: Option<u64>, exact: f64| {
            let told = told.unwrap() as f64;
            assert!(
                (told - exact).abs() <= exact * caller.error,
                "{told} for {exact}"
            );
        };
        near(caller.p50_us, 9_000.0);
        let callee = merged[0].callee_side.as_ref().unwrap();
        near(callee.p50_us, 500.0);
        near(callee.p99_us, 8_000.0);
        let ends = merged[0].ends.iter();
        let ends: Vec<_> = ends
            .map(|end| (&*end.node, &*end.side, end.signals.calls))
            .collect();
        let expected = [
            ("n1", "caller", 60),
            ("n2", "callee", 30),
            ("n3", "caller", 540),
            ("n3", "callee", 30),
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn what_is_old_is_shown_but_counts_only_where_there_is_nothing_else() {
        let old = said("n2", 61, vec![edge(Side::Caller, 30, 500)]);
        let alone = merged(Window::Minute, std::slice::from_ref(&old));
        assert_eq!(alone[0].caller_side.as_ref().unwrap().calls, 30);
        let both = merged(
            Window::Minute,
            &[said("n1", 0, vec![edge(Side::Caller, 5, 1)]), old],
        );
        assert_eq!(both[0].caller_side.as_ref().unwrap().calls, 5);
        assert_eq!((both[0].ends.len(), both[0].ends[1].age_s), (2, 61));
    }

    #[test]
    fn tcp_has_no_percentiles() {
        let mut one = edge(Side::Caller, 3, 5);
        one.latency = Packed::default();
        let merged = merged(Window::Hour, &[said("n1", 0, vec![one])]);
        let signals = merged[0].caller_side.as_ref().unwrap();
        assert_eq!((signals.p50_us, signals.p99_us), (None, None));
    }

    #[test]
    fn an_answer_that_claims_the_most_overflows_nothing() {
        let mut most = edge(Side::Caller, 1, 5);
        most.tally.calls = u64::MAX;
        most.open = u64::MAX;
        let all = [said("n1", 0, vec![most.clone()]), said("n2", 0, vec![most])];
        let merged = merged(Window::Minute, &all);
        assert_eq!(merged[0].caller_side.as_ref().unwrap().calls, u64::MAX);
    }
}
