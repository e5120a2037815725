//! One edge as it is counted now: what a call touches when it ends.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::sketch::{Gauge, Packed};
use super::tally::{Closed, Outcome, Tally};
use crate::reason::Reason;
use crate::telemetry::access::Ended;

/// Numbers since they were last taken away. No lock, and no allocation but for the first request of an edge.
#[derive(Debug)]
pub struct Live {
    calls: AtomicU64,
    failed: AtomicU64,
    denied: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    reasons: [AtomicU64; Reason::ALL.len()],
    /// Of requests only: how long a TCP connection lasts tells nothing.
    latency: OnceLock<Gauge>,
    open: AtomicI64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            calls: AtomicU64::default(),
            failed: AtomicU64::default(),
            denied: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            reasons: array::from_fn(|_| AtomicU64::default()),
            latency: OnceLock::new(),
            open: AtomicI64::default(),
        }
    }
}

impl Live {
    pub(in crate::telemetry) fn began(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::telemetry) fn carried(&self, bytes_in: usize, bytes_out: usize) {
        self.bytes_in.fetch_add(bytes_in as u64, Ordering::Relaxed);
        self.bytes_out
            .fetch_add(bytes_out as u64, Ordering::Relaxed);
    }

    pub(in crate::telemetry) fn ended(&self, call: &Ended<'_>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if call.method.is_some() {
            self.took(u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX));
        }
        let also = match Outcome::of(call) {
            Outcome::Fine => None,
            Outcome::Failed => Some(&self.failed),
            Outcome::Denied => Some(&self.denied),
        };
        if let Some(also) = also {
            also.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reason) = call.reason {
            self.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn took(&self, micros: u64) {
        self.latency.get_or_init(Gauge::default).record(micros);
    }

    /// Calls under way.
    pub(super) fn open(&self) -> u64 {
        u64::try_from(self.open.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Takes the numbers away. A call that ends at this moment may be split between this time and the next.
    pub(super) fn drain(&self) -> Closed {
        self.read(|number| number.swap(0, Ordering::Relaxed), Gauge::drain)
    }

    /// The numbers, left in place.
    pub(super) fn peek(&self) -> Closed {
        self.read(|number| number.load(Ordering::Relaxed), Gauge::peek)
    }

    fn read(&self, number: fn(&AtomicU64) -> u64, latency: fn(&Gauge) -> Packed) -> Closed {
        let reasons = Reason::ALL.into_iter();
        let reasons = reasons.map(|reason| (reason, number(&self.reasons[reason as usize])));
        Closed {
            tally: Tally {
                calls: number(&self.calls),
                failed: number(&self.failed),
                denied: number(&self.denied),
                bytes_in: number(&self.bytes_in),
                bytes_out: number(&self.bytes_out),
                reasons: reasons.filter(|(_, count)| *count > 0).collect(),
            },
            latency: self.latency.get().map(latency).unwrap_or_default(),
            is_thinned: false,
        }
    }
}
