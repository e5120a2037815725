//! The handles of all metrics of one caller and callee at one end, fetched once and used for every call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, counter, gauge};

use super::access::Ended;
use super::edges::Live;
use super::metrics as names;
use super::outcomes::ByRoute;
use crate::config::Protocol;
use crate::reason::Reason;
use crate::tap::Taps;

/// Which of the two agents tells of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Caller,
    Callee,
}

/// Who calls whom, how, and at which end. Shared by all calls that agree in this.
///
/// Callers must be names from the configuration or members of `allow`: a peer that is refused is [`OTHER`], or anyone
/// with a certificate could add series.
pub struct Series {
    side: Side,
    caller: Arc<str>,
    callee: Arc<str>,
    protocol: Protocol,
    outcomes: ByRoute,
    bytes_in: Counter,
    bytes_out: Counter,
    calls_open: Gauge,
    connections_open: Gauge,
    edge: Arc<Live>,
    taps: Arc<Taps>,
}

/// The caller's name in labels when it is not one we know.
pub const OTHER: &str = "other";

/// Bytes of one call as they pass. `in` is from caller to callee and `out` is back, at both ends.
#[derive(Debug)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    cut: OnceLock<Reason>,
    series: Arc<Series>,
}

/// Counts one connection with an app as open until dropped.
#[derive(Debug)]
pub struct Open(Arc<Series>);

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
        }
    }
}

impl Series {
    /// As [`Series::tapped`], with nobody who looks.
    #[cfg(test)]
    pub(crate) fn new(
        side: Side,
        caller: &str,
        callee: &str,
        protocol: Protocol,
        edge: Arc<Live>,
    ) -> Arc<Self> {
        Self::tapped(side, caller, callee, protocol, edge, Arc::default())
    }

    /// `edge` is what the history of calls counts them in, `taps` are those who look at them.
    pub fn tapped(
        side: Side,
        caller: &str,
        callee: &str,
        protocol: Protocol,
        edge: Arc<Live>,
        taps: Arc<Taps>,
    ) -> Arc<Self> {
        let labels = [
            ("side", side.as_str().to_owned()),
            ("caller", caller.to_owned()),
            ("callee", callee.to_owned()),
            ("protocol", protocol.as_str().to_owned()),
        ];
        let traffic = |direction: &'static str| {
            let mut labels = labels.to_vec();
            labels.push(("direction", direction.to_owned()));
            counter!(names::TRAFFIC, &labels)
        };
        Arc::new(Self {
            side,
            caller: caller.into(),
            callee: callee.into(),
            protocol,
            outcomes: ByRoute::default(),
            bytes_in: traffic("in"),
            bytes_out: traffic("out"),
            calls_open: gauge!(names::CALLS_OPEN, &labels),
            connections_open: gauge!(names::CONNECTIONS_OPEN, &labels),
            edge,
            taps,
        })
    }

    pub fn side(&self) -> Side {
        self.side
    }

    pub fn caller(&self) -> &str {
        &self.caller
    }

    pub fn callee(&self) -> &str {
        &self.callee
    }

    pub(crate) fn taps(&self) -> &Taps {
        &self.taps
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn edge(&self) -> &Live {
        &self.edge
    }

    /// Counts a connection with an app.
    pub fn open(self: &Arc<Self>) -> Open {
        self.connections_open.increment(1.0);
        Open(self.clone())
    }

    pub(super) fn began(self: &Arc<Self>) -> Arc<Traffic> {
        self.calls_open.increment(1.0);
        self.edge.began();
        Arc::new(Traffic {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            cut: OnceLock::new(),
            series: self.clone(),
        })
    }

    pub(super) fn ended(&self, call: &Ended<'_>) {
        self.calls_open.decrement(1.0);
        self.outcomes.note(call);
    }
}

impl Traffic {
    /// Bytes passed from the caller's side to the callee's.
    pub fn add_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.series.bytes_in.increment(bytes as u64);
        self.series.edge.carried(bytes, 0);
    }

    /// Bytes passed from the callee's side to the caller's.
    pub fn add_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.series.bytes_out.increment(bytes as u64);
        self.series.edge.carried(0, bytes);
    }

    /// Notes why the agent cuts the call, before the task that carries it is dropped. The first reason stays.
    pub fn cut(&self, reason: Reason) {
        let _first = self.cut.set(reason);
    }

    pub(crate) fn cut_for(&self) -> Option<Reason> {
        self.cut.get().copied()
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.decrement(1.0);
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            side,
            caller,
            callee,
            protocol,
            ..
        } = self;
        write!(f, "{caller}→{callee} {protocol} at the {}", side.as_str())
    }
}
