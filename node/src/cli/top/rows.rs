//! Rows of the tables: cells, what they are sorted by, and how bad they are. Pure.

use super::look::{Look, Table};
use super::picture::{Load, Picture};
use crate::admin::view::{Edge, Instance, Node, Service};
use crate::cli::ask::span;
use crate::cli::edges::{reasons, told};
use crate::cli::units::{count, micros, percent, rate};

/// A column, and how much it is missed where there is no room: those with higher numbers go first.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) rank: u8,
    pub(super) is_number: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
    /// What each cell is sorted by, if not by its text: the largest first.
    keys: Vec<Option<f64>>,
    /// Which edge it is about.
    pub(super) edge: Option<(String, String, String)>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Fine,
    /// Worth a look.
    Odd,
    Bad,
}

const fn text(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        rank,
        is_number: false,
    }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        rank,
        is_number: true,
    }
}

pub(super) const COLUMNS_EDGES: [Column; 12] = [
    text("CALLER", 0),
    text("CALLEE", 0),
    text("PROTOCOL", 7),
    number("RATE", 0),
    number("CALLS", 5),
    number("FAILED", 0),
    number("DENIED", 2),
    number("P50", 3),
    number("P90", 6),
    number("P99", 1),
    number("OPEN", 4),
    text("REASONS", 8),
];

pub(super) const COLUMNS_SERVICES: [Column; 9] = [
    text("SERVICE", 0),
    text("INSTANCES", 0),
    number("RATE", 0),
    number("CALLS", 4),
    number("FAILED", 0),
    number("DENIED", 2),
    number("P99", 1),
    number("OPEN", 3),
    text("SLOWEST", 2),
];

pub(super) const COLUMNS_NODES: [Column; 10] = [
    text("NODE", 0),
    text("STATE", 0),
    text("ZONE", 4),
    number("CALLED", 0),
    number("CALLS", 0),
    number("FAILED", 1),
    number("P99", 2),
    text("SERVICES", 5),
    text("SEEN", 3),
    text("MISSING", 6),
];

/// The rows of the table that is looked at, filtered and in order.
pub(super) fn rows(look: &Look, picture: &Picture) -> Vec<Row> {
    let mut rows: Vec<Row> = match look.table {
        Table::Edges => picture.edges.edges.iter().filter_map(edge).collect(),
        Table::Services => services(picture),
        Table::Nodes => picture.nodes.iter().map(|one| node(picture, one)).collect(),
    };
    rows.retain(|row| row.cells.iter().any(|cell| cell.contains(&look.filter)));
    let sort = look.sort();
    // Rows that are equal in it stay in the order of their names.
    rows.sort_by(|a, b| a.order(b, sort.column));
    if sort.is_reversed {
        rows.reverse();
    }
    rows
}

impl Row {
    fn order(&self, other: &Self, column: usize) -> std::cmp::Ordering {
        match (self.keys[column], other.keys[column]) {
            (Some(own), Some(others)) => others.total_cmp(&own),
            _ => self.cells[column].cmp(&other.cells[column]),
        }
    }
}

/// Builds a row cell by cell.
#[derive(Default)]
struct Cells {
    cells: Vec<String>,
    keys: Vec<Option<f64>>,
}

impl Cells {
    fn text(mut self, text: impl Into<String>) -> Self {
        self.cells.push(text.into());
        self.keys.push(None);
        self
    }

    fn number(mut self, text: String, key: f64) -> Self {
        self.cells.push(text);
        self.keys.push(Some(key));
        self
    }

    fn count(self, number: u64) -> Self {
        self.number(count(number), number as f64)
    }

    fn time(self, time: Option<u64>) -> Self {
        self.number(micros(time), time.map_or(-1.0, |time| time as f64))
    }

    /// Sorted by the part, as a service with many calls fails more of them.
    fn part(self, some: u64, of: u64) -> Self {
        let text = if some == 0 {
            String::new()
        } else {
            percent(some, of)
        };
        self.number(text, some as f64 / of.max(1) as f64)
    }

    fn row(self, tone: Tone) -> Row {
        Row {
            cells: self.cells,
            keys: self.keys,
            tone,
            edge: None,
        }
    }
}

fn edge(edge: &Edge) -> Option<Row> {
    let signals = told(edge)?;
    let mut load = Load::default();
    load.add(signals);
    let mut row = Cells::default()
        .text(&*edge.caller)
        .text(&*edge.callee)
        .text(&*edge.protocol)
        .number(rate(signals.rate), signals.rate)
        .count(signals.calls)
        .part(signals.failed, signals.calls)
        .part(signals.denied, signals.calls)
        .time(signals.p50_us)
        .time(signals.p90_us)
        .time(signals.p99_us)
        .count(signals.open)
        .text(reasons(signals))
        .row(tone(&load));
    row.edge = Some((
        edge.caller.clone(),
        edge.callee.clone(),
        edge.protocol.clone(),
    ));
    Some(row)
}

/// Those that are offered, and those that are only called.
fn services(picture: &Picture) -> Vec<Row> {
    let offered = picture.services.iter().map(|one| service(picture, one));
    let is_offered = |name: &str| picture.services.iter().any(|one| one.service == name);
    let called = picture.edges.edges.iter().map(|edge| &edge.callee);
    let mut missing: Vec<_> = called.filter(|name| !is_offered(name)).collect();
    missing.sort();
    missing.dedup();
    let missing = missing.into_iter().map(|name| {
        let nobody = Service {
            service: name.clone(),
            instances: Vec::new(),
        };
        service(picture, &nobody)
    });
    offered.chain(missing).collect()
}

fn service(picture: &Picture, service: &Service) -> Row {
    let load = picture.called(&service.service);
    let good = service.instances.iter().filter(|one| is_good(one)).count();
    let slowest = picture.slowest(&service.service);
    let state = match (good, tone(&load)) {
        (0, _) => Tone::Bad,
        (good, Tone::Fine) if good < service.instances.len() || slowest.is_some() => Tone::Odd,
        (_, tone) => tone,
    };
    let slowest = slowest.map(|(node, p50)| format!("{node} (p50 {})", micros(Some(p50))));
    Cells::default()
        .text(&*service.service)
        .text(format!("{good}/{}", service.instances.len()))
        .number(rate(load.rate), load.rate)
        .count(load.calls)
        .part(load.failed, load.calls)
        .part(load.denied, load.calls)
        .time(load.worst_p99_us)
        .count(load.open)
        .text(slowest.unwrap_or_default())
        .row(state)
}

fn is_good(instance: &Instance) -> bool {
    instance.healthy && instance.liveness == "alive" && instance.ejected_s.is_none()
}

fn node(picture: &Picture, node: &Node) -> Row {
    let (called, calls) = (
        picture.at(&node.node, "callee"),
        picture.at(&node.node, "caller"),
    );
    let state = match (&*node.state, &*node.liveness) {
        ("serving", "alive") => "serving",
        ("serving", other) => other,
        (state, _) => state,
    };
    let tone = match (state, picture.gap(&node.node)) {
        ("serving", None) => tone(&called),
        ("serving" | "draining" | "left" | "suspect", _) => Tone::Odd,
        _ => Tone::Bad,
    };
    let name = if node.is_self {
        format!("{} (this)", node.node)
    } else {
        node.node.clone()
    };
    let seen = match picture.age_s(&node.node) {
        Some(_) if node.is_self => "now".to_owned(),
        Some(age) => format!("{} ago", span(age)),
        None => String::new(),
    };
    Cells::default()
        .text(name)
        .text(state)
        .text(&*node.zone)
        .number(rate(called.rate), called.rate)
        .number(rate(calls.rate), calls.rate)
        .part(called.failed, called.calls)
        .time(called.worst_p99_us)
        .text(node.services.join(" "))
        .text(seen)
        .text(picture.gap(&node.node).unwrap_or_default())
        .row(tone)
}

/// A call in a hundred that fails is bad; any that fails or is denied is worth a look.
fn tone(load: &Load) -> Tone {
    match (load.failed, load.denied) {
        (0, 0) => Tone::Fine,
        (failed, _) if failed.saturating_mul(100) >= load.calls.max(1) => Tone::Bad,
        _ => Tone::Odd,
    }
}
