//! What agents ask each other about their edges, and how the answers travel: pages of JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use starling_gossip::ServiceName;
use starling_transport::Leaf;

use crate::config::Protocol;
use crate::control::{Handler, Refused, Who};
use crate::host::Host;
use crate::reason::Reason;
use crate::telemetry::edges::sketch::{Packed, Sketch};
use crate::telemetry::edges::{EDGES_MAX, Key, Seen, SeenEdge, Tally, Window};
use crate::telemetry::series::Side;

/// Where other nodes are asked for their own edges.
pub(super) const EDGES: &str = "/v1/edges";

/// What other nodes may ask: only what this node saw by itself, so that no question makes an agent ask all others.
pub(crate) fn handler() -> Handler {
    Handler::new(EDGES, Who::Node, answer)
}

/// Asks for the edges of a window, from the one after `after` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) window: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Name>,
}

/// Some of a node's edges, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    lasted_ms: u64,
    edges: Vec<Row>,
    /// Whether there are more behind the last one.
    pub(super) more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Name {
    side: String,
    caller: String,
    callee: String,
    protocol: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    name: Name,
    calls: u64,
    failed: u64,
    denied: u64,
    bytes_in: u64,
    bytes_out: u64,
    open: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<String, u64>,
    /// Base64 of a packed sketch.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    latency: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    thinned: bool,
}

/// An answer that no agent would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("it names what is no service, side or protocol")]
    Name,
    #[error("its latencies are no sketch")]
    Sketch,
    #[error("it has more edges than a node counts")]
    TooMany,
    #[error("it has an edge twice, or not in order")]
    Order,
}

async fn answer(host: Arc<Host>, _asker: Leaf, question: Question) -> Result<Page, Refused> {
    let window = Window::parse(&question.window);
    let window = window.ok_or_else(|| Refused::bad_question("a window is 1m, 10m or 1h"))?;
    Ok(Page::of(&host.edges.seen(window), question.after.as_ref()))
}

impl Page {
    /// As much as goes into one answer, from behind `after`.
    pub(super) fn of(seen: &Seen, after: Option<&Name>) -> Self {
        let mut rows: Vec<_> = seen.edges.iter().map(Row::of).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let wanted = rows.into_iter();
        let mut wanted = wanted.filter(|row| after.is_none_or(|after| row.name > *after));
        let (mut edges, mut bytes) = (Vec::new(), 0);
        for row in wanted.by_ref() {
            bytes += row.bytes();
            edges.push(row);
            if bytes > PAGE_BYTES {
                break;
            }
        }
        Self {
            lasted_ms: u64::try_from(seen.lasted.as_millis()).unwrap_or(u64::MAX),
            edges,
            more: wanted.next().is_some(),
        }
    }

    /// Where the next page begins.
    pub(super) fn last(&self) -> Option<Name> {
        self.edges.last().map(|row| row.name.clone())
    }

    /// Adds this page to what the same node said before. Nothing of it is believed but that the node says so.
    pub(super) fn add_to(self, seen: &mut Seen) -> Result<(), BadAnswer> {
        seen.lasted = Duration::from_millis(self.lasted_ms);
        for row in self.edges {
            let edge = row.check()?;
            if seen
                .edges
                .last()
                .is_some_and(|last| order(&last.key) >= order(&edge.key))
            {
                return Err(BadAnswer::Order);
            }
            if seen.edges.len() >= EDGES_MAX {
                return Err(BadAnswer::TooMany);
            }
            seen.edges.push(edge);
        }
        Ok(())
    }
}

fn order(key: &Key) -> [&str; 4] {
    let (side, protocol) = (key.side.as_str(), key.protocol.as_str());
    [side, &key.caller, &key.callee, protocol]
}

impl Row {
    fn of(edge: &SeenEdge) -> Self {
        let [side, caller, callee, protocol] = order(&edge.key).map(str::to_owned);
        let reasons = edge.tally.reasons.iter();
        Self {
            name: Name {
                side,
                caller,
                callee,
                protocol,
            },
            calls: edge.tally.calls,
            failed: edge.tally.failed,
            denied: edge.tally.denied,
            bytes_in: edge.tally.bytes_in,
            bytes_out: edge.tally.bytes_out,
            open: edge.open,
            reasons: reasons
                .map(|(reason, count)| (reason.as_str().to_owned(), *count))
                .collect(),
            latency: STANDARD_NO_PAD.encode(edge.latency.bytes()),
            thinned: edge.is_thinned,
        }
    }

    /// About what it takes as JSON, rather more.
    fn bytes(&self) -> usize {
        let names = self.name.caller.len() + self.name.callee.len();
        ROW_BYTES + names + self.latency.len() + self.reasons.len() * REASON_BYTES
    }

    fn check(self) -> Result<SeenEdge, BadAnswer> {
        let latency = STANDARD_NO_PAD.decode(&self.latency);
        let latency = Packed::from_bytes(latency.map_err(|_not_base64| BadAnswer::Sketch)?);
        let read = Sketch::default().add(&latency);
        read.map_err(|_not_ours| BadAnswer::Sketch)?;
        // A newer agent may have reasons that this one does not know; their number is told all the same.
        let reasons = self.reasons.into_iter();
        let reasons = reasons
            .filter_map(|(name, count)| Some((Reason::parse(name.as_bytes())?, count)))
            .collect();
        Ok(SeenEdge {
            key: self.name.check().ok_or(BadAnswer::Name)?,
            tally: Tally {
                calls: self.calls,
                failed: self.failed,
                denied: self.denied,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                reasons,
            },
            latency,
            is_thinned: self.thinned,
            open: self.open,
        })
    }
}

impl Name {
    fn check(&self) -> Option<Key> {
        let sides = [Side::Caller, Side::Callee].into_iter();
        let protocols = [Protocol::Tcp, Protocol::Http].into_iter();
        Some(Key {
            side: sides.into_iter().find(|side| side.as_str() == self.side)?,
            caller: ServiceName::parse(&self.caller).ok()?.as_str().into(),
            callee: ServiceName::parse(&self.callee).ok()?.as_str().into(),
            protocol: protocols
                .into_iter()
                .find(|protocol| protocol.as_str() == self.protocol)?,
        })
    }
}

/// A page ends behind the row that passes this. An answer may have 64 KiB, and a row has 8 KiB at most.
const PAGE_BYTES: usize = 48 * 1024;

/// A row without its names, latencies and reasons.
const ROW_BYTES: usize = 300;

/// A reason and its count.
const REASON_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node with many edges and wide latencies saw.
    fn busy(count: usize) -> Seen {
        let mut latency = Sketch::default();
        (0..30).for_each(|power| latency.add_calls(1 << power, 1 << power));
        let edges = (0..count).map(|nth| SeenEdge {
            key: Key {
                side: if nth % 2 == 0 {
                    Side::Caller
                } else {
                    Side::Callee
                },
                caller: format!("caller-{nth:03}").into(),
                callee: "orders".into(),
                protocol: Protocol::Http,
            },
            tally: Tally {
                calls: nth as u64,
                reasons: Reason::ALL.map(|reason| (reason, 7)).into(),
                ..Tally::default()
            },
            latency: latency.pack(),
            is_thinned: nth == 3,
            open: 1,
        });
        let mut seen = Seen {
            lasted: Duration::from_millis(61_500),
            edges: edges.collect(),
        };
        seen.edges.sort_by(|a, b| order(&a.key).cmp(&order(&b.key)));
        seen
    }

    #[test]
    fn all_edges_come_over_in_pages_that_fit() {
        let seen = busy(EDGES_MAX);
        let (mut read, mut after, mut pages) = (Seen::default(), None, 0);
        loop {
            let page = Page::of(&seen, after.as_ref());
            let bytes = serde_json::to_vec(&page).unwrap();
            assert!(bytes.len() < 64 * 1024, "{} bytes", bytes.len());
            let page: Page = serde_json::from_slice(&bytes).unwrap();
            (after, pages) = (page.last().filter(|_| page.more), pages + 1);
            page.add_to(&mut read).unwrap();
            if after.is_none() {
                break;
            }
        }
        assert!(pages > 2, "{pages} pages");
        assert_eq!(read.lasted, seen.lasted);
        let tell = |seen: &Seen| format!("{:?}", seen.edges);
        assert_eq!(tell(&read), tell(&seen));
    }

    #[test]
    fn what_no_agent_would_say_is_refused() {
        let page = || Page::of(&busy(3), None);
        let check = |spoil: fn(&mut Page), expected: Result<(), BadAnswer>| {
            let mut page = page();
            spoil(&mut page);
            assert_eq!(page.add_to(&mut Seen::default()), expected);
        };
        check(|_| {}, Ok(()));
        check(
            |page| page.edges[0].name.caller = "\u{1b}[2J".into(),
            Err(BadAnswer::Name),
        );
        check(
            |page| page.edges[0].name.callee = String::new(),
            Err(BadAnswer::Name),
        );
        check(
            |page| page.edges[0].name.side = "both".into(),
            Err(BadAnswer::Name),
        );
        check(
            |page| page.edges[0].name.protocol = "udp".into(),
            Err(BadAnswer::Name),
        );
        check(
            |page| page.edges[0].latency = "/////w".into(),
            Err(BadAnswer::Sketch),
        );
        check(
            |page| page.edges[0].latency = "not base64".into(),
            Err(BadAnswer::Sketch),
        );
        check(|page| page.edges.swap(0, 1), Err(BadAnswer::Order));
        check(
            |page| page.edges[1] = page.edges[0].clone(),
            Err(BadAnswer::Order),
        );
        // Reasons of a newer version are left out, their calls are not.
        let newer = |page: &mut Page| page.edges[0].reasons = [("cosmic-ray".into(), 1)].into();
        check(newer, Ok(()));
    }

    #[test]
    fn a_node_cannot_say_more_than_a_node_counts() {
        let mut page = Page::of(&busy(10), None);
        let row = page.edges[0].clone();
        page.edges.clear();
        for nth in 0..=EDGES_MAX {
            let mut row = row.clone();
            row.name.caller = format!("x{nth:05}");
            page.edges.push(row);
        }
        assert_eq!(page.add_to(&mut Seen::default()), Err(BadAnswer::TooMany));
    }
}
