//! What became of calls from one service to another: numbers that can be added up.

use std::collections::BTreeMap;

use super::sketch::Packed;
use crate::config::Protocol;
use crate::reason::Reason;
use crate::telemetry::access::Ended;
use crate::telemetry::series::Side;

/// Who calls whom, how, and which of the two agents tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub side: Side,
    pub caller: Box<str>,
    pub callee: Box<str>,
    pub protocol: Protocol,
}

/// Calls of some time. One that ended counts in the time when it ended, bytes count as they pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub calls: u64,
    pub failed: u64,
    pub denied: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Why the mesh failed calls, those that it denied among them.
    pub reasons: BTreeMap<Reason, u64>,
}

/// A tally and how long the calls took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    pub tally: Tally,
    pub latency: Packed,
    /// Some of the times were dropped for want of memory.
    pub is_thinned: bool,
}

/// What a call counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine,
    /// The app answered with 5xx, or the mesh could not do it.
    Failed,
    /// Policy said no.
    Denied,
}

impl Outcome {
    pub(super) fn of(call: &Ended<'_>) -> Self {
        match call.reason {
            Some(Reason::Denied) => Self::Denied,
            // What the caller does not wait for, and what nobody uses any more, has not failed.
            Some(Reason::CallerGone | Reason::Idle) => Self::Fine,
            Some(_) => Self::Failed,
            None if call.status.is_some_and(|status| status.is_server_error()) => Self::Failed,
            None => Self::Fine,
        }
    }
}

impl Tally {
    pub fn is_empty(&self) -> bool {
        (self.calls, self.bytes_in, self.bytes_out) == (0, 0, 0)
    }

    /// Numbers stop at their largest: some come from other nodes.
    pub fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.calls, other.calls),
            (&mut self.failed, other.failed),
            (&mut self.denied, other.denied),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        for (reason, more) in &other.reasons {
            let sum = self.reasons.entry(*reason).or_default();
            *sum = sum.saturating_add(*more);
        }
    }
}
