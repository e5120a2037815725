//! Who called whom in the last hour, and how it went: golden signals of each edge, at this node and end, in bounded memory.
//!
//! A call touches only the numbers of its own edge ([`Live`]). Every ten seconds a task takes them into a `history` that
//! grows coarser with age. Times are kept as [`sketch`]es, so that those of several nodes can be added up.

mod history;
mod live;
pub mod sketch;
mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::{EDGE_BYTES, EDGE_TIMES_DROPPED, EDGES};
use super::series::{OTHER, Side};
use crate::config::Protocol;
use history::{History, Sum};
use sketch::Packed;

pub use history::Window;
pub use live::Live;
pub use tally::{Closed, Key, Tally};

/// The edges of this node, and their last hour.
#[derive(Debug)]
pub struct Edges {
    /// By who calls whom. The number stands for the edge in the history.
    table: Mutex<BTreeMap<Key, (u16, Arc<Live>)>>,
    past: Mutex<Past>,
}

#[derive(Debug)]
struct Past {
    history: History,
    /// Since when the live numbers count.
    since: Instant,
}

/// What the edges of this node did within a window.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How much time that was: the window and up to the span of its finest part more, less if the agent is younger.
    pub lasted: Duration,
    pub edges: Vec<SeenEdge>,
}

/// What one edge did.
#[derive(Debug, Clone)]
pub struct SeenEdge {
    pub key: Key,
    pub tally: Tally,
    pub latency: Packed,
    pub is_thinned: bool,
    /// Calls under way now.
    pub open: u64,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            past: Mutex::new(Past {
                history: History::default(),
                since: Instant::now(),
            }),
        }
    }
}

impl Edges {
    /// Where calls of this edge are counted, for as long as the agent runs. When there are too many edges, new ones share
    /// one by the name of [`OTHER`].
    pub fn live(&self, side: Side, caller: &str, callee: &str, protocol: Protocol) -> Arc<Live> {
        let key = |caller: &str, callee: &str| Key {
            side,
            caller: caller.into(),
            callee: callee.into(),
            protocol,
        };
        let mut table = self.table();
        let wanted = key(caller, callee);
        if let Some((_, live)) = table.get(&wanted) {
            return live.clone();
        }
        let is_full = table.len() >= EDGES_MAX - OTHERS;
        let key = if is_full { key(OTHER, OTHER) } else { wanted };
        let next = u16::try_from(table.len()).expect("bounded by EDGES_MAX");
        let (_, live) = table.entry(key).or_insert_with(|| (next, Arc::default()));
        live.clone()
    }

    /// Moves what was counted into the history, for as long as the agent runs.
    pub async fn keep(self: Arc<Self>) {
        let mut ticks = interval(FRAME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.roll(Instant::now());
        }
    }

    fn roll(&self, now: Instant) {
        let mut past = self.past();
        let table = self.table().clone();
        let lasted = now.duration_since(past.since);
        let drained = table.values().map(|(edge, live)| (*edge, live.drain()));
        let dropped = past.history.push(lasted, drained, BYTES_MAX);
        past.since = now;
        gauge!(EDGES).set(table.len() as f64);
        gauge!(EDGE_BYTES).set(past.history.bytes() as f64);
        counter!(EDGE_TIMES_DROPPED).increment(dropped as u64);
    }

    /// What the edges did within `window`, up to now. Edges that did nothing and have no call under way are left out.
    pub fn seen(&self, window: Window) -> Seen {
        let past = self.past();
        let table = self.table().clone();
        let edges = table.into_iter().filter_map(|(key, (edge, live))| {
            let mut sum = Sum::default();
            past.history.add_to(&mut sum, edge, window);
            sum.add(&live.peek());
            let open = live.open();
            let closed = sum.close();
            (open > 0 || !closed.tally.is_empty()).then_some(SeenEdge {
                key,
                tally: closed.tally,
                latency: closed.latency,
                is_thinned: closed.is_thinned,
                open,
            })
        });
        Seen {
            edges: edges.collect(),
            lasted: past.history.lasted(window) + past.since.elapsed(),
        }
    }

    /// Held for a look-up.
    fn table(&self) -> MutexGuard<'_, BTreeMap<Key, (u16, Arc<Live>)>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for some milliseconds, by those who look and by the task that keeps it; calls do not touch it.
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Edges counted apart, at both ends. A host with more calls through so many pairs of services that nobody would read
/// them; the bound is what makes memory bounded: 4 KiB each for what is counted now.
pub const EDGES_MAX: usize = 256;

/// Room for the edges that stand for all others: two ends, two protocols.
const OTHERS: usize = 4;

/// The span of the finest part of the history.
const FRAME: Duration = Duration::from_secs(10);

/// What the history may take. 256 edges whose times spread over a factor of ten, all busy for the whole hour, take 2 MiB;
/// past it the oldest times go.
const BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::reason::Reason;
    use crate::telemetry::access::AccessLine;
    use crate::telemetry::series::Series;

    /// The end of a request, as its access line tells it.
    fn request(edges: &Edges, caller: &str, status: u16, reason: Option<Reason>) {
        let live = edges.live(Side::Caller, caller, "orders", Protocol::Http);
        let series = Series::new(Side::Caller, caller, "orders", Protocol::Http, live);
        let mut line = AccessLine::request(&series, &Method::GET, "/");
        line.traffic().add_in(10);
        line.traffic().add_out(100);
        line.set_status(StatusCode::from_u16(status).unwrap());
        if let Some(reason) = reason {
            line.fail(reason);
        }
        line.finish();
    }

    fn of<'s>(seen: &'s Seen, caller: &str) -> &'s SeenEdge {
        let mut edges = seen.edges.iter();
        edges.find(|edge| &*edge.key.caller == caller).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_seen_at_once_and_for_an_hour() {
        let edges = Arc::new(Edges::default());
        let kept = tokio::spawn(edges.clone().keep());
        request(&edges, "web", 200, None);
        request(&edges, "web", 404, None);
        request(&edges, "web", 500, None);
        request(&edges, "web", 502, Some(Reason::ConnectFailed));
        request(&edges, "web", 403, Some(Reason::Denied));
        request(&edges, "web", 499, Some(Reason::CallerGone));
        for (waited, window) in [
            (0, Window::Minute),
            (55, Window::TenMinutes),
            (3400, Window::Hour),
        ] {
            tokio::time::sleep(Duration::from_secs(waited)).await;
            let seen = edges.seen(window);
            let web = of(&seen, "web");
            let tally = &web.tally;
            assert_eq!(
                (tally.calls, tally.failed, tally.denied),
                (6, 2, 1),
                "{window:?}"
            );
            assert_eq!((tally.bytes_in, tally.bytes_out, web.open), (60, 600, 0));
            let reasons = [Reason::ConnectFailed, Reason::Denied, Reason::CallerGone];
            assert_eq!(tally.reasons, reasons.map(|reason| (reason, 1)).into());
            assert!(!web.latency.is_empty());
        }
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert!(edges.seen(Window::Hour).edges.is_empty());
        kept.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_under_way_is_an_edge_too() {
        let edges = Edges::default();
        let live = edges.live(Side::Callee, "web", "db", Protocol::Tcp);
        let series = Series::new(Side::Callee, "web", "db", Protocol::Tcp, live);
        let line = AccessLine::connection(&series);
        line.traffic().add_out(7);
        let seen = edges.seen(Window::Minute);
        let web = of(&seen, "web");
        assert_eq!((web.open, web.tally.calls, web.tally.bytes_out), (1, 0, 7));
        line.finish();
        let seen = edges.seen(Window::Minute);
        let web = of(&seen, "web");
        assert_eq!((web.open, web.tally.calls), (0, 1));
        assert!(
            web.latency.is_empty(),
            "how long a connection lasts tells nothing"
        );
    }

    #[test]
    fn too_many_edges_share_one() {
        let edges = Edges::default();
        for nth in 0..2 * EDGES_MAX {
            request(&edges, &format!("caller-{nth}"), 200, None);
        }
        let seen = edges.seen(Window::Minute);
        assert!(seen.edges.len() <= EDGES_MAX);
        let calls: u64 = seen.edges.iter().map(|edge| edge.tally.calls).sum();
        assert_eq!(calls, 2 * EDGES_MAX as u64);
        let other = of(&seen, OTHER);
        assert_eq!(&*other.key.callee, OTHER);
        assert!(other.tally.calls > EDGES_MAX as u64);
    }

    /// What docs/edges.md says of memory. `EDGES=256 cargo test … an_hour_of_busy_edges -- --nocapture` measures all of it.
    #[test]
    fn an_hour_of_busy_edges_takes_what_the_page_says() {
        let count = std::env::var("EDGES").ok();
        let count = count.map_or(8, |count| count.parse().unwrap());
        let edges = Edges::default();
        let lives: Vec<_> = (0..count)
            .map(|nth| {
                edges.live(
                    Side::Caller,
                    &format!("caller-{nth}"),
                    "orders",
                    Protocol::Http,
                )
            })
            .collect();
        let series = lives.into_iter();
        let series =
            series.map(|live| Series::new(Side::Caller, "web", "orders", Protocol::Http, live));
        let series: Vec<_> = series.collect();
        let (before, now) = (resident_kib(), Instant::now());
        for frame in 1..=360 {
            for series in &series {
                let mut line = AccessLine::request(series, &Method::GET, "/");
                line.set_status(StatusCode::OK);
                line.finish();
                // A factor of ten, evenly.
                (0..100)
                    .for_each(|nth| series.edge().took((5_000.0 * 1.0233_f64.powi(nth)) as u64));
            }
            edges.roll(now + frame * FRAME);
        }
        let bytes = edges.past().history.bytes();
        let (own, each) = (resident_kib() - before, bytes / count);
        println!("{count} edges: {bytes} bytes of history, {each} each; {own} KiB resident");
        assert!((3_000..14_000).contains(&each), "{each} bytes an edge");
        assert!(
            each * EDGES_MAX < BYTES_MAX,
            "the oldest times of {EDGES_MAX} busy edges would go"
        );
    }

    fn resident_kib() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
