//! The taps that are open at this node, as calls meet them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use starling_gossip::NodeName;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::call::{Call, Field};
use super::fields::fields;
use super::filter::Filter;
use super::{Batch, Wanted};
use crate::config::Rate;
use crate::guard::rate::Rates;
use crate::telemetry::{Ended, metrics};

/// All taps at this node.
#[derive(Debug)]
pub struct Taps {
    is_watched: AtomicBool,
    /// Whether any wants header fields.
    wants_fields: AtomicBool,
    open: ArcSwap<Vec<Arc<Watcher>>>,
    /// Held while the list changes; calls never take it.
    changing: Mutex<()>,
    /// Taps for which this agent asks others.
    pub(super) asking: Arc<Semaphore>,
    /// How often a refusal is logged.
    pub(super) told: Rates,
}

/// One tap of one asker.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) asker: NodeName,
    pub(super) tap: String,
    pub(super) wanted: Wanted,
    filter: Filter,
    rates: Rates,
    queue: mpsc::Sender<Call>,
    queued_bytes: AtomicUsize,
    left_out: AtomicU64,
    lost: AtomicU64,
    /// How many were fetched.
    pub(super) sent: AtomicU64,
    fetching: tokio::sync::Mutex<Fetching>,
    fetched: Mutex<Instant>,
    pub(super) closed: CancellationToken,
}

#[derive(Debug)]
struct Fetching {
    queue: mpsc::Receiver<Call>,
    /// One that had no room in the last batch.
    held: Option<Call>,
}

/// All places are taken.
#[derive(Debug)]
pub(super) struct Full;

impl Default for Taps {
    fn default() -> Self {
        Self {
            is_watched: AtomicBool::new(false),
            wants_fields: AtomicBool::new(false),
            open: ArcSwap::default(),
            changing: Mutex::default(),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
            told: Rates::new(per_second(TOLD_PER_S)),
        }
    }
}

impl Taps {
    /// A call ended.
    pub(crate) fn tell(&self, call: &Ended<'_>) {
        if self.is_watched.load(Ordering::Relaxed) {
            for watcher in self.open.load().iter() {
                watcher.offer(call);
            }
        }
    }

    /// What of a request's header is to be kept until the call ends, if anybody wants to see it.
    pub(crate) fn fields(&self, callee: &str, headers: &HeaderMap) -> Option<Box<[Field]>> {
        if !self.wants_fields.load(Ordering::Relaxed) {
            return None;
        }
        let open = self.open.load();
        let wanting: Vec<&Filter> = open
            .iter()
            .map(|watcher| &watcher.filter)
            .filter(|filter| filter.headers && filter.callee.as_str() == callee)
            .collect();
        let shows = |name: &_| wanting.iter().any(|filter| filter.show.contains(name));
        (!wanting.is_empty()).then(|| fields(headers, shows))
    }

    /// The tap of this name, opened if need be; says whether it was.
    pub(super) fn open(
        &self,
        asker: &NodeName,
        tap: &str,
        wanted: &Wanted,
        filter: Filter,
    ) -> Result<(Arc<Watcher>, bool), Full> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.load_full();
        let mut known = open.iter();
        if let Some(known) = known.find(|one| one.asker == *asker && one.tap == tap) {
            return Ok((known.clone(), false));
        }
        if open.len() >= OPEN_MAX {
            return Err(Full);
        }
        let new = Watcher::new(asker, tap, wanted, filter);
        let all = open.iter().cloned().chain([new.clone()]).collect();
        self.set(all);
        Ok((new, true))
    }

    /// Ends a tap; says whether it was open.
    pub(super) fn close(&self, asker: &NodeName, tap: &str) -> bool {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.load_full();
        let is_it = |one: &&Arc<Watcher>| one.asker == *asker && one.tap == tap;
        let Some(found) = open.iter().find(is_it) else {
            return false;
        };
        found.closed.cancel();
        self.set(open.iter().filter(|one| !is_it(one)).cloned().collect());
        true
    }

    /// Whether anybody looks.
    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    fn set(&self, open: Vec<Arc<Watcher>>) {
        let wants_fields = open.iter().any(|one| one.filter.headers);
        metrics::taps_open(open.len());
        self.is_watched.store(!open.is_empty(), Ordering::Relaxed);
        self.wants_fields.store(wants_fields, Ordering::Relaxed);
        self.open.store(Arc::new(open));
    }
}

impl Watcher {
    fn new(asker: &NodeName, tap: &str, wanted: &Wanted, filter: Filter) -> Arc<Self> {
        let (queue, fetched) = mpsc::channel(QUEUE_MAX);
        Arc::new(Self {
            asker: asker.clone(),
            tap: tap.to_owned(),
            wanted: wanted.clone(),
            rates: Rates::new(per_second(filter.rate)),
            filter,
            queue,
            queued_bytes: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::new(Fetching {
                queue: fetched,
                held: None,
            }),
            fetched: Mutex::new(Instant::now()),
            closed: CancellationToken::new(),
        })
    }

    /// A call ended. It never waits: what has no room is counted.
    fn offer(&self, call: &Ended<'_>) {
        if !self.filter.matches(call) {
            return;
        }
        if self.rates.admit(None, Instant::now()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let call = Call::of(call, self.headers(call));
        let bytes = call.bytes();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > QUEUE_BYTES_MAX || self.queue.try_send(call).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that this tap may see: another one may show more.
    fn headers(&self, call: &Ended<'_>) -> Vec<Field> {
        if !self.filter.headers {
            return Vec::new();
        }
        let is_shown = |field: &Field| self.filter.show.iter().any(|name| *name == *field.name);
        let kept = call.fields.into_iter().flatten();
        kept.map(|field| Field {
            name: field.name.clone(),
            value: field.value.clone().filter(|_| is_shown(field)),
        })
        .collect()
    }

    /// What ended since the last time; waits a moment if nothing did. None if somebody fetches already.
    pub(super) async fn fetch(&self) -> Option<Batch> {
        let mut fetching = self.fetching.try_lock().ok()?;
        let batch = tokio::select! {
            batch = fetching.next(self) => batch,
            () = self.closed.cancelled() => Batch::default(),
        };
        *self.fetched() = Instant::now();
        let sent = batch.calls.len() as u64;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        metrics::tapped(sent, batch.left_out, batch.lost);
        Some(batch)
    }

    /// Until when it is kept if nobody fetches.
    pub(super) fn abandoned_at(&self) -> Instant {
        *self.fetched() + ABANDONED_AFTER
    }

    fn fetched(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetching {
    async fn next(&mut self, watcher: &Watcher) -> Batch {
        if self.held.is_none() {
            self.held = timeout(FETCH_WAIT, self.queue.recv()).await.ok().flatten();
            // Where there is one there are often more, and each answer costs both agents something.
            if self.held.is_some() {
                tokio::time::sleep(GATHER).await;
            }
        }
        let mut bytes = 0;
        let mut calls = Vec::new();
        while let Some(call) = self.held.take().or_else(|| self.queue.try_recv().ok()) {
            let length = serde_json::to_vec(&call).map_or(0, |json| json.len() + 1);
            if bytes + length > BATCH_BYTES_MAX {
                self.held = Some(call);
                break;
            }
            bytes += length;
            let in_memory = call.bytes();
            watcher.queued_bytes.fetch_sub(in_memory, Ordering::Relaxed);
            calls.push(call);
        }
        Batch {
            calls,
            left_out: watcher.left_out.swap(0, Ordering::Relaxed),
            lost: watcher.lost.swap(0, Ordering::Relaxed),
        }
    }
}

fn per_second(requests: u32) -> Rate {
    Rate {
        requests,
        per: Duration::from_secs(1),
        burst: requests,
        key: None,
    }
}

/// Taps open at this node; one more is refused.
const OPEN_MAX: usize = 8;

/// Taps for which this agent asks others at a time. Each asks all nodes that matter every few seconds.
const ASKING_MAX: usize = 4;

/// Calls that wait to be fetched, for each tap. Fetching takes a fraction of a second.
const QUEUE_MAX: usize = 1024;

/// What they take together: with eight taps 8 MiB at most.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Of an answer, which is 64 KiB at most.
const BATCH_BYTES_MAX: usize = 48 * 1024;

/// How long a question waits for a call. An answer has to come within five seconds.
const FETCH_WAIT: Duration = Duration::from_secs(2);

/// How long more calls are waited for once there is one.
const GATHER: Duration = Duration::from_millis(50);

/// Whoever asks does so again at once; then it is gone, or the network between us is.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);

/// Refusals logged in a second; all are counted.
const TOLD_PER_S: u32 = 1;
