//! What every node tells everybody of its calls, so that something is known of it before it is asked and after it died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::{CallEnd, NodeName, ServiceName, Summary, SummaryEdge};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Protocol;
use crate::host::Host;
use crate::telemetry::edges::sketch::Sketch;
use crate::telemetry::edges::{Key, Seen, SeenEdge, Tally, Window};
use crate::telemetry::series::Side;

/// What a node told everybody.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) age: Duration,
    pub(super) seen: Seen,
}

/// Tells the others how the calls of this node go, for as long as the agent runs.
pub async fn tell(host: Arc<Host>) {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let summary = summary(&host.edges.seen(Window::Minute));
        if let Err(error) = host.membership.summarize(summary) {
            tracing::warn!(%error, "the others are not told how calls go");
        }
    }
}

/// What the other nodes told.
pub(super) fn told(host: &Host) -> BTreeMap<NodeName, Told> {
    let said = host.membership.summaries().into_iter();
    let told = said.map(|(node, age, summary)| {
        let seen = seen(&summary);
        (node, Told { age, seen })
    });
    told.collect()
}

fn summary(seen: &Seen) -> Summary {
    Summary {
        lasted_s: u32::try_from(seen.lasted.as_secs()).unwrap_or(u32::MAX),
        edges: seen.edges.iter().filter_map(to_all).collect(),
    }
}

fn to_all(edge: &SeenEdge) -> Option<SummaryEdge> {
    let mut sketch = Sketch::default();
    sketch.add(&edge.latency).ok()?;
    let percentile = |part| sketch.quantile(part);
    let percentiles = (percentile(0.5), percentile(0.9), percentile(0.99));
    Some(SummaryEdge {
        end: match edge.key.side {
            Side::Caller => CallEnd::Caller,
            Side::Callee => CallEnd::Callee,
        },
        caller: ServiceName::parse(&edge.key.caller).ok()?,
        callee: ServiceName::parse(&edge.key.callee).ok()?,
        protocol: edge.key.protocol.as_str().to_owned(),
        calls: edge.tally.calls,
        failed: edge.tally.failed,
        denied: edge.tally.denied,
        open: edge.open,
        percentiles_us: match percentiles {
            (Some(p50), Some(p90), Some(p99)) => Some([p50, p90, p99]),
            _ => None,
        },
    })
}

fn seen(summary: &Summary) -> Seen {
    Seen {
        lasted: Duration::from_secs(summary.lasted_s.into()),
        edges: summary.edges.iter().filter_map(from_another).collect(),
    }
}

/// None if it speaks of a protocol that this version does not know.
fn from_another(edge: &SummaryEdge) -> Option<SeenEdge> {
    let protocols = [Protocol::Tcp, Protocol::Http].into_iter();
    let protocol = protocols
        .into_iter()
        .find(|protocol| protocol.as_str() == edge.protocol)?;
    let latency = edge
        .percentiles_us
        .map(|percentiles| around(percentiles, edge.calls).pack());
    Some(SeenEdge {
        key: Key {
            side: match edge.end {
                CallEnd::Caller => Side::Caller,
                CallEnd::Callee => Side::Callee,
            },
            caller: edge.caller.as_str().into(),
            callee: edge.callee.as_str().into(),
            protocol,
        },
        tally: Tally {
            calls: edge.calls,
            failed: edge.failed,
            denied: edge.denied,
            ..Tally::default()
        },
        latency: latency.unwrap_or_default(),
        is_thinned: false,
        open: edge.open,
    })
}

/// Calls of which the percentiles are these: alone they give them again, and in a sum they weigh as much as there are.
fn around([p50, p90, p99]: [u64; 3], calls: u64) -> Sketch {
    let calls = calls.clamp(1, CALLS_MAX);
    let (half, most) = (calls.div_ceil(2), (9 * calls).div_ceil(10));
    let mut sketch = Sketch::default();
    sketch.add_calls(p50, half);
    sketch.add_calls(p90, most - half);
    sketch.add_calls(p99, calls - most);
    sketch
}

/// Twice a minute, and not before gossip lets it through, which is after 30 seconds.
const TELL_EVERY: Duration = Duration::from_secs(31);

/// More than any node does in a minute; what claims more weighs no more than this.
const CALLS_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_read_again() {
        let mut latency = Sketch::default();
        (1..=1000).for_each(|micros| latency.add_calls(100 * micros, 1));
        let edge = |protocol, latency: &Sketch| SeenEdge {
            key: Key {
                side: Side::Callee,
                caller: "web".into(),
                callee: "orders".into(),
                protocol,
            },
            tally: Tally {
                calls: 1000,
                failed: 3,
                denied: 2,
                ..Tally::default()
            },
            latency: latency.pack(),
            is_thinned: false,
            open: 4,
        };
        let before = Seen {
            lasted: Duration::from_secs(61),
            edges: vec![
                edge(Protocol::Http, &latency),
                edge(Protocol::Tcp, &Sketch::default()),
            ],
        };
        let after = seen(&summary(&before));
        assert_eq!(after.lasted, before.lasted);
        for (before, after) in before.edges.iter().zip(&after.edges) {
            assert_eq!(
                (&before.key, &before.tally, before.open),
                (&after.key, &after.tally, after.open)
            );
            let (mut all, mut three) = (Sketch::default(), Sketch::default());
            all.add(&before.latency).unwrap();
            three.add(&after.latency).unwrap();
            for part in [0.5, 0.9, 0.99] {
                assert_eq!(all.quantile(part), three.quantile(part));
            }
        }
        assert_eq!(after.edges.len(), 2);
    }

    #[test]
    fn few_calls_and_claims_beyond_measure_are_both_taken() {
        for calls in [0, 1, 2, 3, u64::MAX] {
            let sketch = around([10, 20, 30], calls);
            assert!(sketch.quantile(0.5).is_some(), "{calls}");
        }
        assert_eq!(around([10, 20, 30], 1).quantile(0.99), Some(10));
    }
}
