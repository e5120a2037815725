//! Picks an instance for each call: power of two choices over peak latency and load, by weight, nearer zone first.
//!
//! What is learnt of an instance (latency, calls in flight, ejection) survives new snapshots of the catalogue. Picking
//! reads one shared list and takes, for a few nanoseconds each, locks that only other calls to the same instance take.

mod breaker;
mod ewma;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use starling_gossip::{Instance, Liveness, NodeName};
use tokio::time::Instant;

use crate::reason::Reason;
use crate::route::split::Subset;
use crate::telemetry::metrics;
use breaker::{Blame, Breaker, Standing};
use ewma::{PeakEwma, Typical};

/// The instances of one service, as one caller's agent sees them.
#[derive(Debug)]
pub struct Balancer {
    zone: Arc<str>,
    in_flight_max: u32,
    entries: ArcSwap<Vec<Entry>>,
    typical: Typical,
}

/// An instance chosen for one call, which counts as in flight until this is dropped. Dropped without a word of how it
/// went, the call counts as given up by the caller.
#[derive(Debug)]
pub struct Pick {
    balancer: Arc<Balancer>,
    entry: Entry,
    began: Instant,
    is_probe: bool,
    is_last_resort: bool,
    is_timed: bool,
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
}

#[derive(Debug, Clone)]
struct Entry {
    instance: Arc<Instance>,
    load: Arc<Load>,
}

#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latency: PeakEwma,
    breaker: Breaker,
}

/// How willingly an instance is picked: the first tier that has any takes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Near,
    Far,
    /// Full, suspect or draining: it may well work.
    Doubtful,
    /// Calls failed of late: better than giving up, if only just.
    Ejected,
    /// Its own node says that it does not work.
    Unhealthy,
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
        })
    }

    /// Takes in a new snapshot. An instance that moved or became healthy again starts with a clean slate of failures.
    /// Called by one task at a time.
    pub fn reconcile(&self, instances: &[Arc<Instance>]) {
        let old = self.entries.load();
        let known: HashMap<_, _> = old
            .iter()
            .map(|entry| (&entry.instance.node, entry))
            .collect();
        let entries = instances.iter().map(|instance| {
            let load = known
                .get(&instance.node)
                .map_or_else(Arc::default, |entry| {
                    let before = &entry.instance;
                    if before.addr != instance.addr || (!before.healthy && instance.healthy) {
                        entry.load.state().breaker = Breaker::default();
                    }
                    entry.load.clone()
                });
            Entry {
                instance: instance.clone(),
                load,
            }
        });
        self.entries.store(Arc::new(entries.collect()));
    }

    /// An instance of `subset` for one call, on none of the nodes in `skip`; `None` if there is no other. When nothing
    /// good is left it is the least bad one, see [`Pick::is_last_resort`].
    pub fn pick(
        self: &Arc<Self>,
        now: Instant,
        rng: &mut fastrand::Rng,
        skip: &[NodeName],
        subset: &Subset,
    ) -> Option<Pick> {
        let entries = self.entries.load();
        loop {
            let (entry, tier) = self.choose(&entries, now, rng, skip, subset)?;
            let is_last_resort = tier >= Tier::Ejected;
            // Two calls may choose the same half-open instance: one probes it, the other chooses again.
            let Some(is_probe) = entry.load.begin(now, is_last_resort) else {
                continue;
            };
            return Some(Pick {
                balancer: self.clone(),
                entry: entry.clone(),
                began: now,
                is_probe,
                is_last_resort,
                is_timed: false,
            });
        }
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
        inside.any(|entry| entry.instance.weight > 0 && self.tier(entry, now) < Tier::Ejected)
    }

    /// All instances, for the operator.
    pub fn view(&self, now: Instant) -> Vec<View> {
        self.entries
            .load()
            .iter()
            .map(|entry| entry.view(now))
            .collect()
    }

    fn choose<'a>(
        &self,
        entries: &'a [Entry],
        now: Instant,
        rng: &mut fastrand::Rng,
        skip: &[NodeName],
        subset: &Subset,
    ) -> Option<(&'a Entry, Tier)> {
        let mut draw = Draw::default();
        for entry in entries {
            if entry.is_in(subset) && !skip.contains(&entry.instance.node) {
                draw.offer(entry, self.tier(entry, now), rng);
            }
        }
        let typical = self.typical.get().unwrap_or_default();
        Some((draw.better(now, typical)?, draw.tier?))
    }

    fn tier(&self, entry: &Entry, now: Instant) -> Tier {
        let instance = &*entry.instance;
        if !instance.healthy {
            return Tier::Unhealthy;
        }
        if entry.load.state().breaker.standing(now) == Standing::Ejected {
            return Tier::Ejected;
        }
        let is_full = entry.load.in_flight.load(Ordering::Relaxed) >= self.in_flight_max;
        if is_full || instance.weight == 0 || instance.liveness != Liveness::Alive {
            return Tier::Doubtful;
        }
        if instance.zone == self.zone {
            Tier::Near
        } else {
            Tier::Far
        }
    }
}

impl Pick {
    pub fn instance(&self) -> &Arc<Instance> {
        &self.entry.instance
    }

    /// Whether every instance is ejected or unhealthy, and this one merely the least so. Whoever can wait for a better
    /// one should.
    pub fn is_last_resort(&self) -> bool {
        self.is_last_resort
    }

    /// The answer has begun (the head of a response, an open tunnel): its latency counts and the instance is good.
    pub fn answered(&mut self, now: Instant) {
        if !self.is_timed {
            self.is_probe = false;
            self.time(now).breaker.succeeded();
        }
    }

    /// The call failed, before or after the answer began. What the reason says of the instance decides whether it is
    /// ejected.
    pub fn failed(&mut self, reason: Reason, now: Instant, rng: &mut fastrand::Rng) {
        let blame = Blame::of(reason);
        if blame == Blame::None {
            return;
        }
        let is_probe = std::mem::take(&mut self.is_probe);
        let ejection = self
            .time(now)
            .breaker
            .failed(blame, is_probe, now, rng.f64());
        if let Some(ejection) = ejection {
            let Instance { node, service, .. } = &**self.instance();
            metrics::ejected(service, reason);
            tracing::debug!(%service, %node, %reason, ?ejection, "instance ejected");
        }
    }

    /// Records the latency unless that was done, and gives the state for what else there is to say.
    fn time(&mut self, now: Instant) -> MutexGuard<'_, State> {
        let taken = now.saturating_duration_since(self.began);
        let typical = &self.balancer.typical;
        let mut state = self.entry.load.state();
        if !std::mem::replace(&mut self.is_timed, true) {
            typical.record(taken);
            state
                .latency
                .record(taken, now, typical.get().unwrap_or_default());
        }
        state
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.entry.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_timed && !self.is_probe {
            return;
        }
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.began);
        let typical = self.balancer.typical.get().unwrap_or_default();
        let mut state = self.entry.load.state();
        if self.is_probe {
            state.breaker.abandoned();
        }
        // The answer would have taken longer still: a caller's patience must not make a slow instance look quick.
        let is_slow = state
            .latency
            .at(now, typical)
            .is_some_and(|latency| waited.as_secs_f64() > latency);
        if is_slow && !self.is_timed {
            state.latency.record(waited, now, typical);
        }
    }
}

impl Entry {
    fn is_in(&self, subset: &Subset) -> bool {
        subset.holds(&self.instance.labels, &self.instance.zone)
    }

    /// What one more call costs here: its latency times the calls that share it, by weight.
    fn cost(&self, now: Instant, typical: f64, weight_mean: f64) -> f64 {
        let latency = self
            .load
            .state()
            .latency
            .at(now, typical)
            .unwrap_or(typical);
        let in_flight = f64::from(self.load.in_flight.load(Ordering::Relaxed));
        (latency + LATENCY_NOISE_S) * (in_flight * weight_mean / self.weight() + 1.0)
    }

    fn weight(&self) -> f64 {
        f64::from(self.instance.weight.max(1))
    }

    fn view(&self, now: Instant) -> View {
        let state = self.load.state();
        View {
            instance: self.instance.clone(),
            in_flight: self.load.in_flight.load(Ordering::Relaxed),
            latency: state
                .latency
                .last()
                .and_then(|latency| Duration::try_from_secs_f64(latency).ok()),
            ejected_for: state
                .breaker
                .ejected_until()
                .map(|until| until.saturating_duration_since(now)),
        }
    }
}

impl Load {
    /// Counts a call in; returns whether it is the probe of a half-open instance, or nothing if another call became
    /// that meanwhile.
    fn begin(&self, now: Instant, is_last_resort: bool) -> Option<bool> {
        let mut state = self.state();
        let standing = state.breaker.standing(now);
        if standing == Standing::Ejected && !is_last_resort {
            return None;
        }
        let is_probe = standing == Standing::HalfOpen;
        if is_probe {
            state.breaker.probe();
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(is_probe)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two instances of the best tier offered so far, drawn by weight in one pass without a list of candidates.
#[derive(Default)]
struct Draw<'a> {
    tier: Option<Tier>,
    first: Option<(f64, &'a Entry)>,
    second: Option<(f64, &'a Entry)>,
    weight: f64,
    count: u32,
}

impl<'a> Draw<'a> {
    /// Exponential variates with the weights as rates: the smallest is each one's with a chance equal to its share.
    fn offer(&mut self, entry: &'a Entry, tier: Tier, rng: &mut fastrand::Rng) {
        match self.tier {
            Some(best) if tier > best => return,
            Some(best) if tier == best => {}
            _ => {
                *self = Self {
                    tier: Some(tier),
                    ..Self::default()
                }
            }
        }
        self.weight += entry.weight();
        self.count += 1;
        let drawn = (-(1.0 - rng.f64()).ln() / entry.weight(), entry);
        if self.first.is_none_or(|first| drawn.0 < first.0) {
            self.second = self.first.replace(drawn);
        } else if self.second.is_none_or(|second| drawn.0 < second.0) {
            self.second = Some(drawn);
        }
    }

    /// The first drawn, unless the second is clearly better: instances that do equally well share exactly by weight.
    fn better(&self, now: Instant, typical: f64) -> Option<&'a Entry> {
        let (_, first) = self.first?;
        let Some((_, second)) = self.second else {
            return Some(first);
        };
        let weight_mean = self.weight / f64::from(self.count);
        let cost = |entry: &Entry| entry.cost(now, typical, weight_mean);
        Some(if cost(second) * CLEARLY < cost(first) {
            second
        } else {
            first
        })
    }
}

/// How many times cheaper an instance must be to be taken before the one that weights chose.
const CLEARLY: f64 = 1.5;

/// Differences of latency below this are noise of the machine, not of the instance.
const LATENCY_NOISE_S: f64 = 0.001;
