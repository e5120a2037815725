//! The tables that say how calls are made; they stand in upstreams, services and routes.

use serde::Deserialize;
use toml::Spanned;

use super::{Number, Text, Time};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Balance {
    pub(in crate::config) algorithm: Text,
    pub(in crate::config) on: Text,
    pub(in crate::config) zone: Option<Zone>,
    pub(in crate::config) slow_start: Time,
    pub(in crate::config) panic: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Zone {
    pub(in crate::config) prefer: Option<bool>,
    pub(in crate::config) failover: Option<Vec<Spanned<String>>>,
    pub(in crate::config) spill_below: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    pub(in crate::config) attempts: Number,
    pub(in crate::config) on: Option<Vec<Spanned<String>>>,
    pub(in crate::config) methods: Option<Vec<Spanned<String>>>,
    pub(in crate::config) budget: Option<Budget>,
    pub(in crate::config) backoff: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Budget {
    pub(in crate::config) percent: Number,
    pub(in crate::config) min_per_second: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    pub(in crate::config) request: Time,
    pub(in crate::config) idle: Time,
    pub(in crate::config) per_try: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CallLimits {
    pub(in crate::config) connections: Number,
    pub(in crate::config) pending: Number,
    pub(in crate::config) concurrent: Number,
    pub(in crate::config) rate: Option<Spanned<Rate>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rate {
    pub(in crate::config) requests: Number,
    pub(in crate::config) per: Time,
    pub(in crate::config) burst: Number,
    pub(in crate::config) key: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Outlier {
    pub(in crate::config) consecutive: Number,
    pub(in crate::config) answers: Option<bool>,
    pub(in crate::config) success_rate: Number,
    pub(in crate::config) base: Time,
    pub(in crate::config) max_share: Number,
}

/// What the callee's own agent holds calls to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ServiceLimits {
    pub(in crate::config) concurrent: Number,
    pub(in crate::config) queue: Number,
    pub(in crate::config) queue_wait: Time,
    pub(in crate::config) rate: Option<Spanned<Rate>>,
}
