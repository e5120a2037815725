//! `timeout` and `limits`: how long a call may take and how many there may be.

use std::time::Duration;

use toml::Spanned;

use super::Key;
use crate::config::check::Checker;
use crate::config::raw::calls as raw;
use crate::config::raw::{Number, Time};

/// How long a call may take; what is missing is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the head of the request to the end of the answer, all tries together.
    pub request: Option<Duration>,
    /// How long neither end may send anything.
    pub idle: Option<Duration>,
    /// How long one try may take to begin an answer.
    pub per_try: Option<Duration>,
}

/// How many calls there may be; what is missing is not limited here, only by the node's own `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallLimits {
    /// TCP connections to the service at a time.
    pub connections: Option<u32>,
    /// Calls that may wait for an instance at a time.
    pub pending: Option<u32>,
    /// Requests under way at a time.
    pub concurrent: Option<u32>,
    pub rate: Option<Rate>,
}

/// How many calls may begin in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub requests: u32,
    pub per: Duration,
    /// How many may come at once before they have to keep the rate.
    pub burst: u32,
    /// Each value of this has a rate of its own; without it all calls share one.
    pub key: Option<Key>,
}

/// What the callee's own agent holds calls to, whoever makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Requests that the app gets at a time.
    pub concurrent: Option<u32>,
    /// Requests that wait for their turn when `concurrent` are with the app.
    pub queue: u32,
    /// How long they wait at most.
    pub queue_wait: Duration,
    /// How many requests each caller may begin.
    pub rate: Option<Rate>,
}

impl Timeouts {
    pub(super) fn check(raw: &Spanned<raw::Timeouts>, checker: &mut Checker<'_>) -> Self {
        let span = raw.span();
        let raw = raw.get_ref();
        let mut time = |key, time: &Time| checker.duration(key, time.as_ref()?, MILLI..=DAY);
        let timeouts = Self {
            request: time("request", &raw.request),
            idle: time("idle", &raw.idle),
            per_try: time("per_try", &raw.per_try),
        };
        if let (Some(request), Some(per_try)) = (timeouts.request, timeouts.per_try)
            && per_try > request
        {
            let what = "`per_try` is longer than `request`, so it never counts";
            checker.problem(span, what, "`request` covers all tries together");
        }
        timeouts
    }
}

impl CallLimits {
    pub(super) fn check(raw: &Spanned<raw::CallLimits>, checker: &mut Checker<'_>) -> Self {
        let raw = raw.get_ref();
        let mut number =
            |key, number: &Number, least| checker.number(key, number.as_ref()?, least..=COUNT_MAX);
        Self {
            connections: number("connections", &raw.connections, 1),
            pending: number("pending", &raw.pending, 0),
            concurrent: number("concurrent", &raw.concurrent, 1),
            rate: raw
                .rate
                .as_ref()
                .and_then(|rate| Rate::check(rate, checker)),
        }
    }
}

impl ServiceLimits {
    pub(in crate::config) fn check(
        raw: &Spanned<raw::ServiceLimits>,
        checker: &mut Checker<'_>,
    ) -> Self {
        let raw = raw.get_ref();
        let default = Self::default();
        let mut number =
            |key, number: &Number, least| checker.number(key, number.as_ref()?, least..=COUNT_MAX);
        let concurrent = number("concurrent", &raw.concurrent, 1);
        let queue = number("queue", &raw.queue, 0);
        if let (None, Some(queue)) = (concurrent, &raw.queue) {
            let what = "`queue` says nothing without `concurrent`";
            checker.problem(
                queue.span(),
                what,
                "`concurrent = 64`: how many the app takes at a time",
            );
        }
        let wait = raw.queue_wait.as_ref();
        if let Some(key) = raw
            .rate
            .as_ref()
            .and_then(|rate| rate.get_ref().key.as_ref())
            && key.get_ref() == "source"
        {
            let hint = "each caller has a rate of its own in any case; leave it out";
            checker.problem(key.span(), "`key` cannot be `source` at the callee", hint);
        }
        Self {
            concurrent,
            queue: queue.unwrap_or(default.queue),
            queue_wait: wait
                .and_then(|time| checker.duration("queue_wait", time, MILLI..=MINUTE))
                .unwrap_or(default.queue_wait),
            rate: raw
                .rate
                .as_ref()
                .and_then(|rate| Rate::check(rate, checker)),
        }
    }
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            concurrent: None,
            queue: 64,
            queue_wait: Duration::from_secs(1),
            rate: None,
        }
    }
}

impl Rate {
    fn check(raw: &Spanned<raw::Rate>, checker: &mut Checker<'_>) -> Option<Self> {
        let span = raw.span();
        let raw = raw.get_ref();
        let requests = checker.required(
            raw.requests.as_ref(),
            &span,
            "requests",
            "how many: `requests = 100`",
        );
        let requests = requests.and_then(|count| checker.number("requests", count, 1..=COUNT_MAX));
        let per = raw.per.as_ref();
        let per = per.and_then(|time| checker.duration("per", time, MILLI..=DAY));
        let burst = raw.burst.as_ref();
        let burst = burst.and_then(|count| checker.number("burst", count, 1..=COUNT_MAX));
        let key = raw.key.as_ref();
        let key = key.and_then(|key| Key::check("key", key, checker));
        Some(Self {
            requests: requests?,
            per: per.unwrap_or(SECOND),
            burst: burst.or(requests)?,
            key,
        })
    }
}

const COUNT_MAX: u32 = 1_000_000;
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
