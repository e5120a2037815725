//! What all parts of one connection know together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::churn::Churn;
use crate::h3::Limits;
use crate::h3::codes;
use crate::h3::guard::{Reason, Refusal};
use crate::h3::metrics;
use crate::h3::stream::code;

/// One connection: its limits, what each side said of going away, and how many exchanges are under way.
#[derive(Debug)]
pub(in crate::h3) struct Shared {
    connection: quinn::Connection,
    limits: Limits,
    /// The first stream the peer will not serve, as its GOAWAY says.
    peer_serves_below: AtomicU64,
    /// The first stream we will not serve, as our GOAWAY says.
    we_serve_below: AtomicU64,
    /// One past the last stream the peer opened that we have seen.
    streams_below: AtomicU64,
    draining: AtomicBool,
    /// Whether the peer takes extended CONNECT; nothing until its settings came.
    peer_upgrades: watch::Sender<Option<bool>>,
    churn: Churn,
    in_flight: AtomicUsize,
    landed: Notify,
}

impl Shared {
    pub(in crate::h3) fn new(connection: quinn::Connection, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            connection,
            limits,
            peer_serves_below: AtomicU64::new(u64::MAX),
            we_serve_below: AtomicU64::new(u64::MAX),
            streams_below: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            peer_upgrades: watch::Sender::default(),
            churn: Churn::new(Instant::now()),
            in_flight: AtomicUsize::new(0),
            landed: Notify::new(),
        })
    }

    pub(in crate::h3) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    pub(in crate::h3) fn header_bytes_max(&self) -> usize {
        self.limits.header_bytes
    }

    /// Ends the connection for what the peer did.
    pub(in crate::h3) fn close(&self, refusal: Refusal) {
        self.connection
            .close(code(refusal.code), refusal.reason.label().as_bytes());
    }

    /// The peer gave up an exchange, or made us refuse it, before it was answered. Too many of those end the connection.
    pub(in crate::h3) fn gave_up(&self) {
        if !self.churn.give_up(Instant::now()) && self.connection.close_reason().is_none() {
            metrics::refused(Reason::Churn);
            self.close(Refusal::connection(codes::EXCESSIVE_LOAD, Reason::Churn));
        }
    }

    pub(in crate::h3) fn answered(&self) {
        self.churn.answer();
    }

    pub(in crate::h3) fn peer_goes_away(&self, id: u64) {
        self.peer_serves_below.fetch_min(id, Ordering::Relaxed);
    }

    pub(in crate::h3) fn peer_set(&self, upgrades: bool) {
        self.peer_upgrades.send_replace(Some(upgrades));
    }

    /// Whether the peer takes extended CONNECT. Its settings are the first thing it sends, so this waits for a round trip
    /// at most; a connection that ends meanwhile takes nothing.
    pub(in crate::h3) async fn peer_upgrades(&self) -> bool {
        let mut settings = self.peer_upgrades.subscribe();
        tokio::select! {
            known = settings.wait_for(Option::is_some) => known.is_ok_and(|known| *known == Some(true)),
            _ = self.connection.closed() => false,
        }
    }

    pub(in crate::h3) fn peer_is_going(&self) -> bool {
        self.peer_serves_below.load(Ordering::Relaxed) != u64::MAX
    }

    /// Whether the peer said that it will not have looked at this stream.
    pub(in crate::h3) fn peer_ignores(&self, id: u64) -> bool {
        id >= self.peer_serves_below.load(Ordering::Relaxed)
    }

    /// Whether a stream that the peer opened is served. Those that are not are as if never sent.
    pub(in crate::h3) fn admits(&self, id: u64) -> bool {
        let admitted = id < self.we_serve_below.load(Ordering::Relaxed);
        if admitted {
            self.streams_below
                .fetch_max(id + REQUEST_ID_STEP, Ordering::Relaxed);
        }
        admitted
    }

    /// Serves nothing new from here on. Returns the first request stream that is not served.
    pub(in crate::h3) fn drain(&self) -> u64 {
        let below = self.streams_below.load(Ordering::Relaxed);
        self.we_serve_below.fetch_min(below, Ordering::Relaxed);
        self.draining.store(true, Ordering::Relaxed);
        self.landed.notify_waiters();
        below
    }

    pub(in crate::h3) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(in crate::h3) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Resolves once nothing is under way.
    pub(in crate::h3) async fn idle(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            landed.await;
        }
    }
}

/// One exchange under way, counted until dropped.
#[derive(Debug)]
pub(in crate::h3) struct Flight(Arc<Shared>);

impl Flight {
    pub(in crate::h3) fn start(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(shared.clone())
    }

    pub(in crate::h3) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.landed.notify_waiters();
        }
    }
}

/// Identifiers of a client's request streams are four apart (RFC 9000 §2.1).
const REQUEST_ID_STEP: u64 = 4;
