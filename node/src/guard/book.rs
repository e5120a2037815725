//! The guards in force, by what they guard. They outlive a reload, so that it neither empties nor refills anything.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use starling_gossip::ServiceName;
use tokio::time::Instant;

use super::{Gate, Rates, Usage};
use crate::config::{Budget, Rate};

/// All guards of a node. Their number is that of callers, services and routes in the configuration.
#[derive(Debug, Default)]
pub struct Guards {
    usages: Mutex<HashMap<(ServiceName, ServiceName), Arc<Usage>>>,
    rates: Mutex<HashMap<Ruled, Arc<Rates>>>,
    gates: Mutex<HashMap<ServiceName, Arc<Gate>>>,
    offered: Mutex<HashMap<ServiceName, Arc<Rates>>>,
}

/// Caller, callee and the name of the route.
type Ruled = (ServiceName, ServiceName, Box<str>);

impl Guards {
    /// What calls of `caller` to `callee` share.
    pub fn usage(&self, caller: &ServiceName, callee: &ServiceName, budget: &Budget) -> Arc<Usage> {
        let key = (caller.clone(), callee.clone());
        let make = || Arc::new(Usage::new(budget, Instant::now()));
        lock(&self.usages).entry(key).or_insert_with(make).clone()
    }

    /// The rate of `caller` to `callee` by the route `rule`. Another rate begins anew.
    pub fn rates(
        &self,
        caller: &ServiceName,
        callee: &ServiceName,
        rule: &str,
        rate: &Rate,
    ) -> Arc<Rates> {
        let key = (caller.clone(), callee.clone(), rule.into());
        let is_same = |known: &Arc<Rates>| known.rate() == rate;
        kept(&self.rates, key, is_same, || {
            Arc::new(Rates::new(rate.clone()))
        })
    }

    /// The queue before the app of `service`.
    pub fn gate(&self, service: &ServiceName, concurrent: u32) -> Arc<Gate> {
        let is_same = |known: &Arc<Gate>| known.concurrent() == concurrent;
        kept(&self.gates, service.clone(), is_same, || {
            Gate::new(concurrent)
        })
    }

    /// The rates of those who call `service` of this node.
    pub fn offered(&self, service: &ServiceName, rate: &Rate) -> Arc<Rates> {
        let is_same = |known: &Arc<Rates>| known.rate() == rate;
        kept(&self.offered, service.clone(), is_same, || {
            Arc::new(Rates::new(rate.clone()))
        })
    }

    /// Whether calls that `service` makes itself have been repeated in vain of late, so that its own failures are best
    /// not repeated either.
    pub fn is_in_vain(&self, service: &ServiceName, now: Instant) -> bool {
        lock(&self.usages)
            .iter()
            .any(|((caller, _), usage)| caller == service && usage.retries.is_in_vain(now))
    }
}

/// The value of `key` if it is still the right one, else a new one in its place.
fn kept<K: Hash + Eq, V: Clone>(
    map: &Mutex<HashMap<K, V>>,
    key: K,
    is_right: impl FnOnce(&V) -> bool,
    make: impl FnOnce() -> V,
) -> V {
    let mut map = lock(map);
    if let Some(known) = map.get(&key).filter(|known| is_right(known)) {
        return known.clone();
    }
    let made = make();
    map.insert(key, made.clone());
    made
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
