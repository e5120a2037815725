//! `starling edges`: who calls whom, and how does it go?

use clap::{Args, ValueEnum};

use super::ask::{Ask, span};
use super::table::Table;
use super::units::{bytes, count, micros, percent, rate};
use crate::admin::view::{self, Edge, End, Signals};
use crate::said;
use crate::telemetry::edges;

/// List who calls whom in the whole mesh: rates, failures and latencies
///
/// Every agent is asked for its own. A row is what the callers' agents saw, the way and retries included, or what the
/// callees' agents saw where no caller's agent tells of it: strangers, who are `other`. The calls of one pair are in both.
#[derive(Debug, Args)]
pub(super) struct Edges {
    /// How far back to look
    #[arg(long, value_enum, default_value = "1m")]
    window: Window,
    /// Only calls of this service
    #[arg(long, value_name = "SERVICE")]
    caller: Option<String>,
    /// Only calls to this service
    #[arg(long, value_name = "SERVICE")]
    callee: Option<String>,
    /// What each node says, at either end
    #[arg(long)]
    ends: bool,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Window {
    #[value(name = "1m")]
    Minute,
    #[value(name = "10m")]
    TenMinutes,
    #[value(name = "1h")]
    Hour,
}

impl Window {
    /// What the agent answers such questions at.
    pub(super) fn path(self) -> String {
        format!("/v1/edges?window={}", self.as_str())
    }

    pub(super) fn as_str(self) -> &'static str {
        let window = match self {
            Self::Minute => edges::Window::Minute,
            Self::TenMinutes => edges::Window::TenMinutes,
            Self::Hour => edges::Window::Hour,
        };
        window.as_str()
    }

    /// The one that looks further back, and then the first again.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Minute => Self::TenMinutes,
            Self::TenMinutes => Self::Hour,
            Self::Hour => Self::Minute,
        }
    }
}

impl Edges {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let path = self.window.path();
        self.ask.repeat(|| {
            let wanted = |seen: &mut view::Edges| seen.edges.retain(|edge| self.wants(edge));
            let render = if self.ends { by_end } else { by_edge };
            self.ask.print_part(&path, wanted, render)
        })
    }

    fn wants(&self, edge: &Edge) -> bool {
        let is =
            |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|one| one == name);
        is(&self.caller, &edge.caller) && is(&self.callee, &edge.callee)
    }
}

fn by_edge(seen: &view::Edges) -> String {
    let mut table = Table::new([
        "CALLER", "CALLEE", "PROTOCOL", "RATE", "CALLS", "FAILED", "DENIED", "P50", "P90", "P99",
        "OPEN", "REASONS",
    ]);
    for edge in &seen.edges {
        let Some(signals) = told(edge) else { continue };
        table.row([
            edge.caller.clone(),
            edge.callee.clone(),
            edge.protocol.clone(),
            rate(signals.rate),
            count(signals.calls),
            part(signals.failed, signals),
            part(signals.denied, signals),
            micros(signals.p50_us),
            micros(signals.p90_us),
            micros(signals.p99_us),
            count(signals.open),
            reasons(signals),
        ]);
    }
    with_gaps(table.render(), seen)
}

fn by_end(seen: &view::Edges) -> String {
    let mut table = Table::new([
        "CALLER", "CALLEE", "SIDE", "NODE", "ZONE", "RATE", "CALLS", "FAILED", "DENIED", "P50",
        "P99", "IN", "OUT", "SEEN", "NOTE",
    ]);
    for edge in &seen.edges {
        for end in &edge.ends {
            let signals = &end.signals;
            table.row([
                edge.caller.clone(),
                edge.callee.clone(),
                end.side.clone(),
                end.node.clone(),
                end.zone.clone(),
                rate(signals.rate),
                count(signals.calls),
                part(signals.failed, signals),
                part(signals.denied, signals),
                micros(signals.p50_us),
                micros(signals.p99_us),
                bytes(signals.bytes_in),
                bytes(signals.bytes_out),
                heard(end),
                end.note.clone().unwrap_or_default(),
            ]);
        }
    }
    with_gaps(table.render(), seen)
}

/// What to show of an edge where there is room for one end only.
pub(super) fn told(edge: &Edge) -> Option<&Signals> {
    edge.caller_side.as_ref().or(edge.callee_side.as_ref())
}

/// `3 (0.2%)`, or nothing at all.
fn part(some: u64, of: &Signals) -> String {
    match some {
        0 => String::new(),
        _ => format!("{some} ({})", percent(some, of.calls)),
    }
}

pub(super) fn reasons(signals: &Signals) -> String {
    let mut reasons: Vec<_> = signals.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| format!("{reason}={count}"))
        .collect();
    words.join(" ")
}

fn heard(end: &End) -> String {
    match end.source.as_str() {
        "live" => "now".to_owned(),
        _ => format!("{} ago", span(end.age_s)),
    }
}

/// What is missing stands below, so that nobody takes a part for the whole.
fn with_gaps(table: String, seen: &view::Edges) -> String {
    let gaps = seen.gaps.iter().map(gap);
    std::iter::once(table)
        .chain(gaps)
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn gap(gap: &view::Gap) -> String {
    let shown = match gap.age_s {
        Some(age) => format!("its numbers are {} old", span(age)),
        None => "it has no part in this".to_owned(),
    };
    said::line(&format!("{}: {}; {shown}", gap.node, gap.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(calls: u64, denied: u64) -> Signals {
        Signals {
            calls,
            failed: calls / 100,
            denied,
            rate: calls as f64 / 60.0,
            p50_us: Some(1_234),
            p90_us: Some(5_678),
            p99_us: Some(123_456),
            open: 2,
            reasons: [("timeout".into(), 30), ("idle".into(), 50)].into(),
            bytes_out: 12_345,
            ..Signals::default()
        }
    }

    fn end(node: &str, side: &str, source: &str, signals: Signals) -> End {
        End {
            node: node.into(),
            side: side.into(),
            age_s: 3,
            source: source.into(),
            signals,
            ..End::default()
        }
    }

    fn seen() -> view::Edges {
        let web = Edge {
            caller: "web".into(),
            callee: "orders".into(),
            protocol: "http".into(),
            caller_side: Some(signals(6000, 0)),
            callee_side: Some(signals(5900, 0)),
            ends: vec![
                end("n1", "caller", "live", signals(6000, 0)),
                end("n2", "callee", "asked", signals(5900, 0)),
            ],
            ..Edge::default()
        };
        let stranger = Edge {
            caller: "other".into(),
            caller_side: None,
            callee_side: Some(signals(6, 6)),
            ends: vec![end("n2", "callee", "asked", signals(6, 6))],
            ..web.clone()
        };
        view::Edges {
            window_s: 60,
            edges: vec![stranger, web],
            gaps: vec![view::Gap {
                node: "n3".into(),
                why: "it is dead".into(),
                age_s: Some(75),
            }],
        }
    }

    #[test]
    fn what_an_operator_sees() {
        let expected = "\
CALLER  CALLEE  PROTOCOL  RATE  CALLS  FAILED     DENIED    P50    P90    P99    OPEN  REASONS
other   orders  http      0.10  6      -          6 (100%)  1.2ms  5.7ms  123ms  2     idle=50 timeout=30
web     orders  http      100   6000   60 (1.0%)  -         1.2ms  5.7ms  123ms  2     idle=50 timeout=30
n3: it is dead; its numbers are 1m 15s old";
        assert_eq!(by_edge(&seen()), expected);
        let expected = "\
CALLER  CALLEE  SIDE    NODE  ZONE  RATE  CALLS  FAILED     DENIED    P50    P99    IN  OUT   SEEN    NOTE
other   orders  callee  n2    -     0.10  6      -          6 (100%)  1.2ms  123ms  -   12kB  3s ago  -
web     orders  caller  n1    -     100   6000   60 (1.0%)  -         1.2ms  123ms  -   12kB  now     -
web     orders  callee  n2    -     98    5900   59 (1.0%)  -         1.2ms  123ms  -   12kB  3s ago  -
n3: it is dead; its numbers are 1m 15s old";
        assert_eq!(by_end(&seen()), expected);
    }
}
