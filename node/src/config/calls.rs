//! How calls to a service are made: balancing, retries, timeouts, limits, outliers. An upstream says it for all its calls,
//! a route for those that it matches.

mod balance;
mod limits;
mod retry;

use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::raw::calls as raw;

pub use balance::{Algorithm, Balance, Key, Outlier, Zone};
pub use limits::{CallLimits, Rate, ServiceLimits, Timeouts};
pub use retry::{Budget, Condition, Conditions, Retry};

/// How calls are made, every part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallSettings {
    pub balance: Balance,
    pub retry: Retry,
    pub timeout: Timeouts,
    pub limits: CallLimits,
    pub outlier: Outlier,
}

/// The tables that somebody wrote; those that are missing are somebody else's to say. A table replaces the other one
/// whole, so that what it means can be read in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOverrides {
    pub balance: Option<Balance>,
    pub retry: Option<Retry>,
    pub timeout: Option<Timeouts>,
    pub limits: Option<CallLimits>,
    pub outlier: Option<Outlier>,
}

/// The tables as written.
pub(in crate::config) struct Tables<'r> {
    pub(in crate::config) balance: Option<&'r Spanned<raw::Balance>>,
    pub(in crate::config) retry: Option<&'r Spanned<raw::Retry>>,
    pub(in crate::config) timeout: Option<&'r Spanned<raw::Timeouts>>,
    pub(in crate::config) limits: Option<&'r Spanned<raw::CallLimits>>,
    pub(in crate::config) outlier: Option<&'r Spanned<raw::Outlier>>,
}

impl CallSettings {
    /// What calls are held to, one phrase for each thing that somebody wrote.
    pub fn limits_in_words(&self) -> Vec<String> {
        let time = |time: Option<Duration>, what: &str| {
            time.map(|time| format!("{what} {}", humantime::format_duration(time)))
        };
        let count =
            |count: Option<u32>, what: &str| count.map(|count| format!("at most {count} {what}"));
        let rate = self.limits.rate.as_ref().map(|rate| {
            let per = humantime::format_duration(rate.per);
            let (requests, burst) = (rate.requests, rate.burst);
            let key = rate.key.as_ref();
            let key = key.map_or_else(String::new, |key| format!(" for each {key}"));
            format!("{requests} requests in {per}, {burst} at once{key}")
        });
        let retry = &self.retry;
        let tries = retry.is_declared.then(|| {
            let (tries, percent) = (retry.attempts, retry.budget.percent);
            format!("up to {tries} tries, retries in {percent} % of requests")
        });
        let all = [
            time(self.timeout.request, "whole call within"),
            time(self.timeout.per_try, "each try answered within"),
            time(self.timeout.idle, "never silent for"),
            tries,
            count(self.limits.concurrent, "requests under way"),
            count(self.limits.pending, "waiting for an instance"),
            count(self.limits.connections, "connections"),
            rate,
        ];
        all.into_iter().flatten().collect()
    }
}

impl CallOverrides {
    pub(in crate::config) fn check(tables: &Tables<'_>, checker: &mut Checker<'_>) -> Self {
        Self {
            balance: tables.balance.map(|raw| Balance::check(raw, checker)),
            retry: tables.retry.map(|raw| Retry::check(raw, checker)),
            timeout: tables.timeout.map(|raw| Timeouts::check(raw, checker)),
            limits: tables.limits.map(|raw| CallLimits::check(raw, checker)),
            outlier: tables.outlier.map(|raw| Outlier::check(raw, checker)),
        }
    }

    /// Whether they say nothing at all.
    pub fn is_empty(&self) -> bool {
        self.tables().next().is_none()
    }

    /// The names of the tables that somebody wrote.
    pub fn tables(&self) -> impl Iterator<Item = &'static str> {
        let tables = [
            ("balance", self.balance.is_some()),
            ("retry", self.retry.is_some()),
            ("timeout", self.timeout.is_some()),
            ("limits", self.limits.is_some()),
            ("outlier", self.outlier.is_some()),
        ];
        tables
            .into_iter()
            .filter_map(|(name, is_written)| is_written.then_some(name))
    }

    /// These where they say something, else `base`.
    pub fn over(&self, base: &CallSettings) -> CallSettings {
        CallSettings {
            balance: self.balance.clone().unwrap_or_else(|| base.balance.clone()),
            retry: self.retry.clone().unwrap_or_else(|| base.retry.clone()),
            timeout: self.timeout.unwrap_or(base.timeout),
            limits: self.limits.clone().unwrap_or_else(|| base.limits.clone()),
            outlier: self.outlier.unwrap_or(base.outlier),
        }
    }
}
