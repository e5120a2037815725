//! Picks an instance for each call: of those that a lane may use, nearer zone first, by latency and load, in turn or by
//! a key.
//!
//! What is learnt of an instance (latency, calls in flight, ejection) survives new snapshots of the catalogue. Picking
//! reads one shared list and takes, for a few nanoseconds each, locks that only other calls to the same instance take.

mod breaker;
mod ewma;
mod field;
mod instance;
mod lane;
mod maglev;
mod pick;
mod ring;
mod sticky;
#[cfg(test)]
mod tests;
mod window;
mod zones;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use starling_gossip::Instance;
use tokio::time::Instant;

use crate::config::CallSettings;
use crate::route::split::Subset;
use breaker::Standing;
use ewma::Typical;
use field::Tier;
use instance::{Entry, Load};
use sticky::Sticky;
use window::Window;

pub use lane::{Ask, Lane};
pub use pick::Pick;

/// The instances of one service, as one caller's agent sees them.
#[derive(Debug)]
pub struct Balancer {
    zone: Arc<str>,
    in_flight_max: u32,
    entries: ArcSwap<Vec<Entry>>,
    typical: Typical,
    /// The turn of the last call that took one, as the bits of a number.
    turn: AtomicU64,
    /// Where keys belong, for the lanes that still use it.
    sticky: Mutex<Vec<Weak<Sticky>>>,
}

/// What is known of one instance, for the operator.
#[derive(Debug, Clone)]
pub struct View {
    pub instance: Arc<Instance>,
    pub in_flight: u32,
    /// `None` until it answered once.
    pub latency: Option<Duration>,
    /// How long it gets no calls because of failures; zero while one call finds out.
    pub ejected_for: Option<Duration>,
    /// How long it is spared because it said that it has too much to do.
    pub spared_for: Option<Duration>,
}

impl Balancer {
    /// For callers in `zone`. An instance with `in_flight_max` of our calls is full: others, also in other zones, come
    /// first.
    pub fn new(zone: &str, in_flight_max: u32) -> Arc<Self> {
        Arc::new(Self {
            zone: zone.into(),
            in_flight_max,
            entries: ArcSwap::default(),
            typical: Typical::default(),
            turn: AtomicU64::new(0.0_f64.to_bits()),
            sticky: Mutex::default(),
        })
    }

    /// A way to call these instances, as `settings` say. Tables of keys are made here, so that no call waits for them.
    pub fn lane(self: &Arc<Self>, settings: &Arc<CallSettings>) -> Lane {
        let sticky = Sticky::new(&settings.balance.algorithm);
        if let Some(sticky) = &sticky {
            self.place(sticky);
            let mut all = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(sticky));
        }
        Lane::new(self.clone(), settings.clone(), sticky)
    }

    /// Takes in a new snapshot. An instance that moved or became healthy again starts with a clean slate of failures.
    /// Called by one task at a time.
    pub fn reconcile(&self, instances: &[Arc<Instance>], now: Instant) {
        let old = self.entries.load();
        let known: HashMap<_, _> = old
            .iter()
            .map(|entry| (&entry.instance.node, entry))
            .collect();
        let entries = instances.iter().map(|instance| Entry {
            instance: instance.clone(),
            load: match known.get(&instance.node) {
                Some(before) => before.carried_over(instance, now),
                // Those that were there before us have long been running.
                None if old.is_empty() => Arc::default(),
                None => Load::beginning(now),
            },
        });
        self.entries.store(Arc::new(entries.collect()));
    }

    /// Makes the tables of keys anew where the instances changed. Takes a millisecond or two for each: not for the
    /// request path, which uses the old ones meanwhile.
    pub fn replace_keys(&self) {
        let mut all = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|sticky| sticky.strong_count() > 0);
        let used: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        for sticky in used {
            self.place(&sticky);
        }
    }

    /// Whether any lane places calls by a key.
    pub fn has_keys(&self) -> bool {
        let all = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|sticky| sticky.strong_count() > 0)
    }

    /// Whether the catalogue lists no instance at all, good or bad.
    pub fn is_empty(&self) -> bool {
        self.entries.load().is_empty()
    }

    /// Whether a call to `subset` would find an instance that is better than a last resort.
    pub fn is_usable(&self, now: Instant, subset: &Subset) -> bool {
        let entries = self.entries.load();
        let mut inside = entries.iter().filter(|entry| entry.is_in(subset));
        // One that drains still works, but is about to go.
        inside.any(|entry| {
            entry.instance.weight > 0
                && Tier::of(entry, self.in_flight_max, false, now) < Tier::Ejected
        })
    }

    /// All instances, for the operator.
    pub fn view(&self, now: Instant) -> Vec<View> {
        self.entries
            .load()
            .iter()
            .map(|entry| entry.view(now))
            .collect()
    }

    fn place(&self, sticky: &Sticky) {
        sticky.place(self.entries.load().iter().map(|entry| &entry.instance));
    }

    /// Whether one more may be ejected for errors.
    fn may_eject(&self, max_share: u8, now: Instant) -> bool {
        let entries = self.entries.load();
        let out = entries.iter().filter(|entry| {
            let state = entry.load.state();
            state.breaker.standing(now) != Standing::Good && !state.breaker.is_dead()
        });
        (out.count() + 1) * 100 <= usize::from(max_share) * entries.len()
    }

    /// How the other instances did of late, as one.
    fn peers_of(&self, load: &Arc<Load>, now: Instant) -> Window {
        let mut peers = Window::default();
        for entry in self.entries.load().iter() {
            if !Arc::ptr_eq(&entry.load, load) {
                let window = entry.load.state().window;
                peers.add(&window, now);
            }
        }
        peers
    }

    fn turn(&self) -> f64 {
        f64::from_bits(self.turn.load(Ordering::Relaxed))
    }

    fn set_turn(&self, turn: f64) {
        self.turn.store(turn.to_bits(), Ordering::Relaxed);
    }
}
