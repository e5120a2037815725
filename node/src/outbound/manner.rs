//! How the calls of one upstream are made, or those of them that a rule of a route sees to.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::HeaderMap;
use starling_gossip::ServiceName;
use tokio::time::Instant;

use super::Route;
use crate::balance::Lane;
use crate::config::CallSettings;
use crate::guard::{Counted, Rates, Refusal, Usage};
use crate::hash;
use crate::host::Host;
use crate::key;
use crate::route::Rule;

/// Made when settings are taken; a call only reads it.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) lane: Lane,
    pub(crate) usage: Arc<Usage>,
    rates: Option<Arc<Rates>>,
}

/// The manners of one caller towards one service. Connections that are open learn of new ones.
#[derive(Debug)]
pub(super) struct Manners {
    base: ArcSwap<Manner>,
    /// Of rules that say something else; made for the first call of each.
    ruled: Mutex<Vec<(Arc<Rule>, Arc<Manner>)>>,
}

impl Manner {
    /// Calls of `caller` to `callee`. `rule` names the rule that says how, and is empty for what the upstream says itself.
    pub(super) fn new(
        host: &Host,
        caller: &ServiceName,
        callee: &ServiceName,
        rule: &str,
        settings: &Arc<CallSettings>,
    ) -> Self {
        let rate = settings.limits.rate.as_ref();
        Self {
            lane: host.balancer(callee).lane(settings),
            usage: host.guards.usage(caller, callee, &settings.retry.budget),
            rates: rate.map(|rate| host.guards.rates(caller, callee, rule, rate)),
        }
    }

    pub(super) fn settings(&self) -> &Arc<CallSettings> {
        self.lane.settings()
    }

    /// Lets a request begin, unless it comes too fast or there are too many. What it returns is held until its end.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        source: IpAddr,
        now: Instant,
    ) -> Result<Option<Counted>, Refusal> {
        self.keep_rate(headers, source, now)?;
        let most = self.settings().limits.concurrent;
        let counted = most
            .map(|most| {
                self.usage
                    .concurrent
                    .enter(most)
                    .ok_or_else(Refusal::overloaded)
            })
            .transpose()?;
        self.usage.retries.deposit(&self.settings().retry.budget);
        Ok(counted)
    }

    /// The same for a TCP connection.
    pub(super) fn admit_connection(
        &self,
        source: IpAddr,
        now: Instant,
    ) -> Result<Option<Counted>, Refusal> {
        self.keep_rate(&HeaderMap::new(), source, now)?;
        let most = self.settings().limits.connections;
        most.map(|most| {
            self.usage
                .connections
                .enter(most)
                .ok_or_else(Refusal::overloaded)
        })
        .transpose()
    }

    /// Where a request belongs, for algorithms that ask.
    pub(super) fn key(&self, headers: &HeaderMap, source: IpAddr) -> Option<u64> {
        let key = self.settings().balance.algorithm.key()?;
        key::value(key, headers, source).map(|value| hash::of(&value))
    }

    fn keep_rate(&self, headers: &HeaderMap, source: IpAddr, now: Instant) -> Result<(), Refusal> {
        let Some(rates) = &self.rates else {
            return Ok(());
        };
        let key = rates.rate().key.as_ref();
        let key = key.and_then(|key| key::value(key, headers, source));
        rates.admit(key.as_deref(), now).map_err(Refusal::too_fast)
    }
}

impl Manners {
    pub(super) fn new(base: Manner) -> Arc<Self> {
        Arc::new(Self {
            base: ArcSwap::from_pointee(base),
            ruled: Mutex::default(),
        })
    }

    /// Calls that begin from now on are made like this.
    pub(super) fn set(&self, base: Manner) {
        self.base.store(Arc::new(base));
        self.ruled().clear();
    }

    /// How a call is made that `rule` decides, or none.
    pub(super) fn of(&self, route: &Route, rule: Option<&Arc<Rule>>) -> Arc<Manner> {
        match rule.filter(|rule| !rule.action.calls.is_empty()) {
            Some(rule) => self.ruled_by(route, rule),
            None => self.base.load_full(),
        }
    }

    fn ruled_by(&self, route: &Route, rule: &Arc<Rule>) -> Arc<Manner> {
        let mut ruled = self.ruled();
        if let Some((_, known)) = ruled.iter().find(|(known, _)| Arc::ptr_eq(known, rule)) {
            return known.clone();
        }
        // What nobody else holds is no longer in force.
        ruled.retain(|(rule, _)| Arc::strong_count(rule) > 1);
        let settings = rule.action.calls.over(self.base.load().settings());
        let name = if rule.name.is_empty() {
            rule.declared.to_string()
        } else {
            rule.name.clone()
        };
        let (caller, callee) = (&route.caller_name, &route.service);
        let manner = Manner::new(&route.host, caller, callee, &name, &Arc::new(settings));
        let manner = Arc::new(manner);
        ruled.push((rule.clone(), manner.clone()));
        manner
    }

    fn ruled(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<Rule>, Arc<Manner>)>> {
        self.ruled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
