//! `/v1/events`: all that this agent knows, then what changes, as server-sent events.
//!
//! A message is `{"whole": bool, "set": [[kind, name, ago_s, item], …], "gone": [[kind, name], …]}`. Items are those of
//! [`view`](super::view); `ago_s` is how long ago an item was made, to be added to the ages in it. While nothing changes,
//! a `pulse` says so.

mod board;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, with_body};
use super::view::Source;
use crate::telemetry::edges::Window;
use board::{Board, Seen};

/// Streams at a time. Each is a browser tab in front of somebody; the rest of the server's connections stays free for
/// monitoring.
pub(super) const STREAMS_MAX: usize = 8;

/// What all streams of one door read from.
pub(super) struct Live {
    source: Arc<dyn Source>,
    drain: CancellationToken,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    streams: usize,
    board: Board,
    looked: Option<Instant>,
}

/// One stream's place among those that are allowed. The last one to go takes what was kept for all with it.
struct Place(Arc<Live>);

/// One stream.
struct Reader {
    place: Place,
    /// Resolves when the reader may no longer see.
    refused: BoxFuture<'static, ()>,
    seen: Seen,
    ticks: Interval,
    told: Instant,
}

impl Live {
    pub(super) fn new(source: Arc<dyn Source>, drain: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            source,
            drain,
            watched: Mutex::default(),
        })
    }

    /// A new stream, which ends when `refused` resolves; none if all places are taken.
    pub(super) fn answer(self: &Arc<Self>, refused: BoxFuture<'static, ()>) -> Option<Answer> {
        let reader = Reader::new(Place::take(self)?, refused);
        let body = stream::unfold(reader, |mut reader| async move {
            let text = reader.next().await?;
            let frame = Frame::data(Bytes::from(text));
            Some((Ok::<_, Infallible>(frame), reader))
        });
        let body = StreamBody::new(body).boxed_unsync();
        Some(with_body(StatusCode::OK, "text/event-stream", body))
    }

    /// What a reader that knows `seen` has to learn. Everybody reads one look at the source, and there is at most one in
    /// a period however many read.
    fn news(&self, seen: &mut Seen, now: Instant) -> Option<String> {
        let mut watched = self.watched();
        let is_old = |looked: Instant| now.duration_since(looked) >= PERIOD - EARLY;
        if watched.looked.is_none_or(is_old) {
            watched.board.take(items(&*self.source), now);
            watched.looked = Some(now);
        }
        watched.board.news(seen, now)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn take(live: &Arc<Live>) -> Option<Self> {
        let mut watched = live.watched();
        if watched.streams >= STREAMS_MAX {
            return None;
        }
        watched.streams += 1;
        Some(Self(live.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut watched = self.0.watched();
        watched.streams -= 1;
        if watched.streams == 0 {
            *watched = Watched::default();
        }
    }
}

impl Reader {
    fn new(place: Place, refused: BoxFuture<'static, ()>) -> Self {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            place,
            refused,
            seen: Seen::default(),
            ticks,
            told: Instant::now(),
        }
    }

    /// The next event; none when the agent stops or the reader may no longer see.
    async fn next(&mut self) -> Option<String> {
        let live = self.place.0.clone();
        loop {
            let now = tokio::select! {
                biased;
                () = &mut self.refused => return None,
                () = live.drain.cancelled() => return None,
                now = self.ticks.tick() => now,
            };
            let event = match live.news(&mut self.seen, now) {
                Some(news) => format!("data: {news}\n\n"),
                None if now.duration_since(self.told) >= PULSE => PULSE_EVENT.to_owned(),
                None => continue,
            };
            self.told = now;
            return Some(event);
        }
    }
}

/// Everything that is shown, by kind and name.
fn items(source: &dyn Source) -> BTreeMap<board::Key, Value> {
    let mut items = BTreeMap::new();
    let mut add = |kind, name: String, item: Value| items.insert((kind, name), item);
    add("status", String::new(), value(&source.status()));
    for node in source.nodes() {
        add("node", node.node.clone(), value(&node));
    }
    for service in source.services() {
        add("service", service.service.clone(), value(&service));
    }
    for route in source.routes() {
        add("route", route.service.clone(), value(&route));
    }
    for document in source.documents() {
        let name = format!("{}/{}", document.kind, document.name);
        add("document", name, value(&document));
    }
    let seen = source.edges(Window::Minute);
    for edge in &seen.edges {
        let name = format!("{}>{} {}", edge.caller, edge.callee, edge.protocol);
        add("edge", name, value(edge));
    }
    for gap in &seen.gaps {
        add("gap", gap.node.clone(), value(gap));
    }
    items
}

fn value(item: &impl Serialize) -> Value {
    serde_json::to_value(item).expect("the views hold nothing that JSON does not have")
}

/// How often there may be news. People see no more.
const PERIOD: Duration = Duration::from_secs(1);

/// A tick may come this much before its time, by the clock's grain and by other readers' ticks.
const EARLY: Duration = Duration::from_millis(100);

/// A reader that hears nothing for a few of these knows that the connection is dead.
const PULSE: Duration = Duration::from_secs(5);

const PULSE_EVENT: &str = "event: pulse\ndata: {}\n\n";
