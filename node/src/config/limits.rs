//! `[limits]`: what the agent may use at most.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::Checker;
use super::raw;

/// What the agent may use at most. Past a limit it refuses or waits and says so; it does not grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections from local apps. Default 4096. Costs two file descriptors and up to about 15 KiB each; past it new
    /// connections wait in the kernel's queue. Needs a restart.
    pub connections: u32,
    /// Requests and tunnels that one peer connection carries at a time. Default 256. Costs up to the stream window in
    /// memory for each that its reader does not drain; past it the peer waits. Needs a restart.
    pub streams_per_peer: u32,
    /// Bytes of all header fields of one request or response. Default 65536. Costs that much for each request whose
    /// headers are being read; a larger one is answered with 431 (a larger response with 502). Needs a restart.
    pub header_bytes: u32,
    /// Requests that wait for an instance at a time. Default 1024; 0 means none waits. Costs a task each, a few KiB; past
    /// it they fail at once. Needs a restart.
    pub pending: u32,
    /// How long an app connection or a tunnel may carry nothing before it is closed. Default 5 minutes. Longer keeps more
    /// idle connections in memory. Reloadable, for new connections.
    pub idle: Duration,
    /// How long a request waits for an instance before it fails. Default 2 seconds; 0 means not at all. Reloadable, for
    /// new requests.
    pub wait: Duration,
    /// How long a connection attempt may take, to a peer or to an app. Default 3 seconds. Needs a restart.
    pub connect: Duration,
    /// Grace for what is in flight when the agent is asked to stop. Default 30 seconds; what is left then is cut off.
    /// Reloadable.
    pub drain: Duration,
}

impl Limits {
    pub(super) fn check(raw: &raw::Limits, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        let mut number =
            |key: &str, value: &Option<_>, range: RangeInclusive<u32>, default: u32| {
                value
                    .as_ref()
                    .and_then(|value| checker.number(key, value, range))
                    .unwrap_or(default)
            };
        let connections = number(
            "connections",
            &raw.connections,
            1..=1_000_000,
            default.connections,
        );
        let streams_per_peer = number(
            "streams_per_peer",
            &raw.streams_per_peer,
            1..=65_535,
            default.streams_per_peer,
        );
        let header_bytes = number(
            "header_bytes",
            &raw.header_bytes,
            1024..=1024 * 1024,
            default.header_bytes,
        );
        let pending = number("pending", &raw.pending, 0..=1_000_000, default.pending);
        let mut time =
            |key: &str, value: &Option<_>, range: RangeInclusive<Duration>, default: Duration| {
                value
                    .as_ref()
                    .and_then(|value| checker.duration(key, value, range))
                    .unwrap_or(default)
            };
        Self {
            connections,
            streams_per_peer,
            header_bytes,
            pending,
            idle: time("idle", &raw.idle, SECOND..=24 * HOUR, default.idle),
            wait: time("wait", &raw.wait, Duration::ZERO..=MINUTE, default.wait),
            connect: time(
                "connect",
                &raw.connect,
                Duration::from_millis(10)..=MINUTE,
                default.connect,
            ),
            drain: time("drain", &raw.drain, Duration::ZERO..=HOUR, default.drain),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams_per_peer: 256,
            header_bytes: 64 * 1024,
            pending: 1024,
            idle: 5 * MINUTE,
            wait: 2 * SECOND,
            connect: 3 * SECOND,
            drain: 30 * SECOND,
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
