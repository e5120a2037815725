//! The summary of a node's calls as it stands in its manifest: names once, and edges that point at them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST_BYTES_MAX, word_ok};
use super::{decode, encode};
use crate::names::ServiceName;
use crate::summary::{CallEnd, EDGES_MAX, LASTED_S_MAX, Summary, SummaryEdge};

#[derive(Serialize, Deserialize)]
struct SummaryWire {
    lasted_s: u32,
    /// In order, each once.
    words: Vec<String>,
    edges: Vec<EdgeWire>,
}

#[derive(Serialize, Deserialize)]
struct EdgeWire {
    at_callee: bool,
    caller: u8,
    callee: u8,
    protocol: u8,
    calls: u64,
    failed: u64,
    denied: u64,
    open: u64,
    percentiles_us: Option<[u64; 3]>,
}

pub(super) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let words: BTreeSet<&str> = summary.edges.iter().flat_map(words).collect();
    let words: Vec<&str> = words.into_iter().collect();
    let place = |word: &str| {
        let at = words.binary_search(&word).expect("it was collected above");
        u8::try_from(at).expect("three words of at most 16 edges")
    };
    let edges = summary.edges.iter().map(|edge| EdgeWire {
        at_callee: edge.end == CallEnd::Callee,
        caller: place(edge.caller.as_str()),
        callee: place(edge.callee.as_str()),
        protocol: place(&edge.protocol),
        calls: edge.calls,
        failed: edge.failed,
        denied: edge.denied,
        open: edge.open,
        percentiles_us: edge.percentiles_us,
    });
    encode(&SummaryWire {
        lasted_s: summary.lasted_s,
        edges: edges.collect(),
        words: words.into_iter().map(str::to_owned).collect(),
    })
}

/// Reads what [`encode_summary`] wrote, and nothing else.
pub(super) fn decode_summary(bytes: &[u8]) -> Option<Summary> {
    let wire: SummaryWire = decode::<_, { super::READ_FACTOR * MANIFEST_BYTES_MAX }>(bytes).ok()?;
    let counts_ok = (1..=EDGES_MAX).contains(&wire.edges.len())
        && wire.words.len() <= WORDS_MAX
        && (1..=LASTED_S_MAX).contains(&wire.lasted_s);
    if !counts_ok {
        return None;
    }
    let edges = wire.edges.iter();
    let summary = Summary {
        lasted_s: wire.lasted_s,
        edges: edges
            .map(|edge| edge.check(&wire.words))
            .collect::<Option<_>>()?,
    };
    let in_order = summary.edges.is_sorted_by(|a, b| a.name() < b.name());
    // Words that nobody needs would be room for anything.
    let one_way = in_order && encode_summary(&summary) == bytes;
    one_way.then_some(summary)
}

fn words(edge: &SummaryEdge) -> [&str; 3] {
    [edge.caller.as_str(), edge.callee.as_str(), &edge.protocol]
}

impl EdgeWire {
    fn check(&self, words: &[String]) -> Option<SummaryEdge> {
        let name = |at: u8| ServiceName::parse(words.get(usize::from(at))?).ok();
        let protocol = words.get(usize::from(self.protocol))?;
        let percentiles_ok = self
            .percentiles_us
            .is_none_or(|percentiles| percentiles.is_sorted());
        let ok = percentiles_ok && !protocol.is_empty() && word_ok(protocol);
        ok.then_some(())?;
        Some(SummaryEdge {
            end: if self.at_callee {
                CallEnd::Callee
            } else {
                CallEnd::Caller
            },
            caller: name(self.caller)?,
            callee: name(self.callee)?,
            protocol: protocol.clone(),
            calls: self.calls,
            failed: self.failed,
            denied: self.denied,
            open: self.open,
            percentiles_us: self.percentiles_us,
        })
    }
}

/// Caller, callee and protocol of each edge.
const WORDS_MAX: usize = 3 * EDGES_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edge(end: CallEnd, caller: &str) -> SummaryEdge {
        SummaryEdge {
            end,
            caller: ServiceName::parse(caller).unwrap(),
            callee: ServiceName::parse("orders").unwrap(),
            protocol: "http".into(),
            calls: 6000,
            failed: 12,
            denied: 0,
            open: 3,
            percentiles_us: Some([1_200, 5_000, 90_000]),
        }
    }

    fn full(name: impl Fn(usize) -> String) -> Summary {
        let edges = (0..EDGES_MAX).map(|nth| edge(CallEnd::Caller, &name(nth)));
        let summary = Summary {
            lasted_s: 65,
            edges: edges.collect(),
        };
        summary.tidy().unwrap()
    }

    #[test]
    fn a_full_one_reads_back_and_is_small() {
        let usual = full(|nth| format!("service-{nth}"));
        let bytes = encode_summary(&usual);
        assert!(bytes.len() < 600, "{} bytes", bytes.len());
        assert_eq!(decode_summary(&bytes), Some(usual));
        let long = encode_summary(&full(|nth| format!("{nth:0>63}")));
        assert!(long.len() < 1600, "{} bytes", long.len());
    }

    #[test]
    fn too_many_edges_leave_the_quietest_out() {
        let mut summary = full(|nth| format!("service-{nth}"));
        let mut quiet = edge(CallEnd::Callee, "quiet");
        quiet.calls = 1;
        summary.edges.insert(3, quiet);
        let tidy = summary.tidy().unwrap();
        assert_eq!(tidy.edges.len(), EDGES_MAX);
        assert!(tidy.edges.iter().all(|edge| edge.calls == 6000));
        assert_eq!(Summary::default().tidy(), None);
    }

    #[test]
    fn what_could_be_said_otherwise_or_is_too_much_is_refused() {
        let refused = |spoil: fn(&mut Summary)| {
            let mut summary = full(|nth| format!("service-{nth}"));
            spoil(&mut summary);
            assert_eq!(decode_summary(&encode_summary(&summary)), None);
        };
        refused(|summary| summary.lasted_s = 0);
        refused(|summary| summary.lasted_s = LASTED_S_MAX + 1);
        refused(|summary| summary.edges.clear());
        refused(|summary| summary.edges.swap(0, 1));
        refused(|summary| summary.edges[1] = summary.edges[0].clone());
        refused(|summary| summary.edges.push(edge(CallEnd::Callee, "web")));
        refused(|summary| summary.edges[0].protocol = String::new());
        refused(|summary| summary.edges[0].protocol = "a\u{1b}[2J".into());
        refused(|summary| summary.edges[0].percentiles_us = Some([3, 2, 1]));
    }

    #[test]
    fn words_that_no_edge_uses_and_places_without_a_word_are_refused() {
        let summary = Summary {
            lasted_s: 60,
            edges: vec![edge(CallEnd::Caller, "web")],
        };
        let wire = |change: fn(&mut SummaryWire)| {
            let bytes = encode_summary(&summary);
            let mut wire: SummaryWire = decode::<_, 100_000>(&bytes).unwrap();
            change(&mut wire);
            decode_summary(&encode(&wire))
        };
        assert_eq!(wire(|_| {}), Some(summary.clone()));
        assert_eq!(wire(|wire| wire.words.push("zzz".into())), None);
        assert_eq!(wire(|wire| wire.edges[0].caller = 200), None);
        assert_eq!(wire(|wire| wire.words[2] = "Web".into()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(summary) = decode_summary(&bytes) {
                prop_assert_eq!(encode_summary(&summary), bytes);
            }
        }
    }
}
