//! How the connections to other nodes do, as its part of the page of metrics.
//!
//! The recorder would keep a series for ever; here a node that is forgotten has none. What connections counted is added up when
//! somebody looks.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use metrics::{describe_counter, describe_gauge};
use starling_transport::links::{Counts, Link};

use super::series::OTHER;

/// What a metric says of a node, if anything.
type Value = fn(&Node) -> Option<f64>;

/// One metric: its name, its kind, what it means.
struct Metric(&'static str, &'static str, &'static str);

const CONNECTIONS: Metric = Metric(
    "starling_quic_connections",
    "gauge",
    "Connections open with a node, both ways",
);
const RTT: Metric = Metric(
    "starling_quic_rtt_seconds",
    "gauge",
    "Round-trip time to a node, on the connection that sent most",
);
const WINDOW: Metric = Metric(
    "starling_quic_congestion_window_bytes",
    "gauge",
    "Bytes that may be under way to a node unacknowledged, on the connection that sent most",
);
const MTU: Metric = Metric(
    "starling_quic_mtu_bytes",
    "gauge",
    "UDP payload of the largest packet sent to a node, on the connection that sent most",
);
const SENT: Metric = Metric(
    "starling_quic_packets_sent_total",
    "counter",
    "Packets sent to a node, with acknowledgements and probes",
);
const LOST: Metric = Metric(
    "starling_quic_packets_lost_total",
    "counter",
    "Packets to a node declared lost; those that probe for a larger size are not counted",
);
const CONGESTED: Metric = Metric(
    "starling_quic_congestion_events_total",
    "counter",
    "Times a congestion window to a node was cut",
);
const BLACK_HOLES: Metric = Metric(
    "starling_quic_black_holes_total",
    "counter",
    "Times larger packets to a node stopped arriving, so that a connection fell back to the smallest",
);

pub(super) fn describe() {
    for Metric(name, kind, help) in [
        CONNECTIONS,
        RTT,
        WINDOW,
        MTU,
        SENT,
        LOST,
        CONGESTED,
        BLACK_HOLES,
    ] {
        match kind {
            "counter" => describe_counter!(name, help),
            _ => describe_gauge!(name, help),
        }
    }
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(crate) struct Quic(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    /// What each open connection had counted at the last look.
    before: HashMap<u64, Counts>,
}

/// One node.
#[derive(Debug, Default)]
struct Node {
    open: usize,
    /// The connection that sent most.
    busiest: Option<Link>,
    counts: Counts,
}

impl Quic {
    /// The page. `links` are told since the last page, `known` are the nodes of the verified catalogue and where they are.
    pub(crate) fn page(&self, links: &[Link], known: &HashMap<SocketAddr, String>) -> String {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.take(links, known);
        state.written().expect("text can be written")
    }
}

impl State {
    fn take(&mut self, links: &[Link], known: &HashMap<SocketAddr, String>) {
        for node in self.nodes.values_mut() {
            (node.open, node.busiest) = (0, None);
        }
        for link in links {
            let before = self.before.remove(&link.id).unwrap_or_default();
            if link.is_open {
                self.before.insert(link.id, link.counts);
            }
            let name = known.get(&link.addr).map_or(OTHER, String::as_str);
            self.node(name).take(link, before);
        }
        // A node without connections that the catalogue forgot.
        let is_known = |name: &str| name == OTHER || known.values().any(|known| known == name);
        self.nodes
            .retain(|name, node| node.open > 0 || is_known(name));
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let is_full = self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(name);
        let name = if is_full { OTHER } else { name };
        self.nodes.entry(name.to_owned()).or_default()
    }

    fn written(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        let gauges: [(Metric, Value); 4] = [
            (CONNECTIONS, |node| Some(node.open as f64)),
            (RTT, |node| Some(node.busiest?.rtt.as_secs_f64())),
            (WINDOW, |node| Some(node.busiest?.congestion_window as f64)),
            (MTU, |node| Some(node.busiest?.mtu.into())),
        ];
        let counters: [(Metric, Value); 4] = [
            (SENT, |node| Some(node.counts.sent as f64)),
            (LOST, |node| Some(node.counts.lost as f64)),
            (CONGESTED, |node| Some(node.counts.congestion_events as f64)),
            (BLACK_HOLES, |node| Some(node.counts.black_holes as f64)),
        ];
        for (metric, value) in gauges.iter().chain(&counters) {
            self.write(&mut page, metric, *value)?;
        }
        Ok(page)
    }

    fn write(
        &self,
        page: &mut String,
        Metric(name, kind, help): &Metric,
        value: Value,
    ) -> fmt::Result {
        let rows = self.nodes.iter();
        let rows: Vec<_> = rows
            .filter_map(|(node, of)| Some((node, value(of)?)))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (node, value) in rows {
            // Names of nodes need no escapes.
            writeln!(page, "{name}{{node=\"{node}\"}} {value}")?;
        }
        Ok(())
    }
}

impl Node {
    fn take(&mut self, link: &Link, before: Counts) {
        let counts = &mut self.counts;
        let now = &link.counts;
        counts.sent += now.sent.saturating_sub(before.sent);
        counts.lost += now.lost.saturating_sub(before.lost);
        counts.congestion_events += now
            .congestion_events
            .saturating_sub(before.congestion_events);
        counts.black_holes += now.black_holes.saturating_sub(before.black_holes);
        if !link.is_open {
            return;
        }
        self.open += 1;
        let busiest = self.busiest.map_or(0, |busiest| busiest.counts.sent);
        if self.busiest.is_none() || now.sent > busiest {
            self.busiest = Some(*link);
        }
    }
}

/// Nodes with series of their own: a cell is meant for as many. All others share one.
const NODES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addr(number: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 7400))
    }

    fn link(id: u64, number: usize, sent: u64, lost: u64) -> Link {
        Link {
            id,
            addr: addr(number),
            is_open: true,
            rtt: Duration::from_millis(id),
            congestion_window: 14_520,
            mtu: 1452,
            counts: Counts {
                sent,
                lost,
                ..Counts::default()
            },
        }
    }

    fn known(numbers: std::ops::Range<usize>) -> HashMap<SocketAddr, String> {
        numbers
            .map(|number| (addr(number), format!("n{number}")))
            .collect()
    }

    #[track_caller]
    fn has(page: &str, rows: &[&str]) {
        for row in rows {
            assert!(page.contains(&format!("{row}\n")), "no {row} in\n{page}");
        }
    }

    #[test]
    fn counts_add_up_over_connections_that_come_and_go() {
        let (quic, known) = (Quic::default(), known(1..3));
        let page = quic.page(&[link(1, 1, 10, 1), link(2, 1, 50, 0)], &known);
        has(
            &page,
            &[
                "# TYPE starling_quic_packets_lost_total counter",
                r#"starling_quic_connections{node="n1"} 2"#,
                r#"starling_quic_packets_sent_total{node="n1"} 60"#,
                r#"starling_quic_packets_lost_total{node="n1"} 1"#,
                // Of the one that sent most.
                r#"starling_quic_rtt_seconds{node="n1"} 0.002"#,
                r#"starling_quic_mtu_bytes{node="n1"} 1452"#,
            ],
        );
        let ended = Link {
            is_open: false,
            ..link(2, 1, 55, 5)
        };
        let page = quic.page(&[link(1, 1, 12, 1), ended], &known);
        has(
            &page,
            &[
                r#"starling_quic_connections{node="n1"} 1"#,
                r#"starling_quic_packets_sent_total{node="n1"} 67"#,
                r#"starling_quic_packets_lost_total{node="n1"} 6"#,
                r#"starling_quic_rtt_seconds{node="n1"} 0.001"#,
            ],
        );
        let page = quic.page(&[], &known);
        has(&page, &[r#"starling_quic_connections{node="n1"} 0"#]);
        assert!(!page.contains("starling_quic_rtt_seconds{"), "{page}");
    }

    #[test]
    fn a_node_that_is_forgotten_has_no_series() {
        let quic = Quic::default();
        let page = quic.page(&[link(1, 1, 10, 0)], &known(1..2));
        assert!(page.contains("n1"));
        let ended = Link {
            is_open: false,
            ..link(1, 1, 10, 0)
        };
        assert!(quic.page(&[ended], &known(1..2)).contains("n1"));
        assert_eq!(quic.page(&[], &HashMap::new()), "");
    }

    #[test]
    fn who_is_not_in_the_catalogue_or_too_many_is_other() {
        let quic = Quic::default();
        let links: Vec<_> = (0..300).map(|at| link(at as u64, at, 1, 0)).collect();
        let page = quic.page(&links, &known(1..300));
        let rows = page.lines();
        let rows = rows.filter(|row| row.starts_with("starling_quic_connections{"));
        assert_eq!(rows.count(), NODES_MAX);
        has(&page, &[r#"starling_quic_connections{node="other"} 45"#]);
    }
}
