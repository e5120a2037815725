//! The instances that could take a call, sorted in one pass without a list of candidates.

use tokio::time::Instant;

use super::breaker::Standing;
use super::instance::Entry;
use super::zones::{self, Capacity, GROUPS};
use crate::config::Algorithm;

/// How willingly an instance is picked: the first tier that has any takes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Good,
    /// Full, spared, suspect or draining: it may well work.
    Doubtful,
    /// Calls failed of late: better than giving up, if only just.
    Ejected,
    /// Its own node says that it does not work.
    Unhealthy,
}

/// What a look at an instance told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) tier: Tier,
    /// Whether its zone can count on it.
    pub(super) is_capacity: bool,
    pub(super) group: usize,
    pub(super) weight: f64,
    /// Its place in the order of draws: the smallest is first.
    pub(super) place: f64,
}

/// An instance drawn from the field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn<'a> {
    pub(super) entry: &'a Entry,
    pub(super) tier: Tier,
    pub(super) weight: f64,
    pub(super) place: f64,
}

/// Slots for the good ones of each zone, then one for each other tier.
#[derive(Default)]
pub(super) struct Field<'a> {
    capacity: [Capacity; GROUPS],
    slots: [Slot<'a>; GROUPS + 3],
}

/// The two that come first of those offered.
#[derive(Clone, Copy, Default)]
struct Slot<'a> {
    first: Option<Drawn<'a>>,
    second: Option<Drawn<'a>>,
    weight: f64,
    count: u32,
}

impl<'a> Field<'a> {
    /// Takes note of an instance. One that was tried already counts for its zone and cannot be drawn.
    pub(super) fn offer(&mut self, entry: &'a Entry, seen: Seen, is_tried: bool) {
        let capacity = &mut self.capacity[seen.group];
        let weight = f64::from(entry.instance.weight);
        capacity.all += weight;
        if seen.is_capacity {
            capacity.usable += weight;
        }
        if is_tried {
            return;
        }
        let slot = match seen.tier {
            Tier::Good => seen.group,
            Tier::Doubtful => GROUPS,
            Tier::Ejected => GROUPS + 1,
            Tier::Unhealthy => GROUPS + 2,
        };
        self.slots[slot].offer(Drawn {
            entry,
            tier: seen.tier,
            weight: seen.weight,
            place: seen.place,
        });
    }

    /// The one that takes the call.
    pub(super) fn draw(&self, by: &Rule<'_>, rng: &mut fastrand::Rng) -> Option<Drawn<'a>> {
        let mut filled = self.slots.iter().filter(|slot| slot.count > 0);
        let first = filled.next()?;
        let good = self.slots[..GROUPS].iter().filter(|slot| slot.count > 0);
        if good.count() > 1 {
            let shares = zones::shares(&self.capacity, by.spill_below);
            let slot = &self.slots[zones::choose(&shares, rng.f64())];
            if slot.count > 0 {
                return slot.better(by);
            }
        }
        first.better(by)
    }
}

/// How one of two is chosen.
pub(super) struct Rule<'r> {
    pub(super) algorithm: &'r Algorithm,
    pub(super) spill_below: u8,
    pub(super) now: Instant,
    /// The usual latency of the service in seconds.
    pub(super) typical: f64,
}

impl<'a> Slot<'a> {
    fn offer(&mut self, drawn: Drawn<'a>) {
        self.weight += drawn.weight;
        self.count += 1;
        if self.first.is_none_or(|first| drawn.place < first.place) {
            self.second = self.first.replace(drawn);
        } else if self.second.is_none_or(|second| drawn.place < second.place) {
            self.second = Some(drawn);
        }
    }

    /// The first drawn, unless the second is clearly better: instances that do equally well share exactly by weight.
    fn better(&self, by: &Rule<'_>) -> Option<Drawn<'a>> {
        let first = self.first?;
        let Some(second) = self.second else {
            return Some(first);
        };
        let weight_mean = self.weight / f64::from(self.count);
        let takes_second = match by.algorithm {
            Algorithm::RoundRobin => false,
            Algorithm::LeastRequest => second.load(weight_mean) < first.load(weight_mean),
            Algorithm::PeakEwma | Algorithm::RingHash(_) | Algorithm::Maglev(_) => {
                second.cost(by, weight_mean) * CLEARLY < first.cost(by, weight_mean)
            }
        };
        Some(if takes_second { second } else { first })
    }
}

impl Drawn<'_> {
    /// What one more call costs here: its latency times the calls that share it, by weight.
    fn cost(&self, by: &Rule<'_>, weight_mean: f64) -> f64 {
        let latency = self.entry.load.state().latency.at(by.now, by.typical);
        (latency.unwrap_or(by.typical) + LATENCY_NOISE_S) * (self.load(weight_mean) + 1.0)
    }

    /// Calls under way, as if all had the same weight.
    fn load(&self, weight_mean: f64) -> f64 {
        self.entry.in_flight() * weight_mean / self.weight
    }
}

impl Tier {
    /// Where an instance belongs by what its node and the calls of late say. `is_panic` overlooks errors.
    pub(super) fn of(entry: &Entry, in_flight_max: u32, is_panic: bool, now: Instant) -> Self {
        let instance = &*entry.instance;
        if !instance.healthy {
            return Self::Unhealthy;
        }
        let state = entry.load.state();
        let is_out = state.breaker.standing(now) == Standing::Ejected;
        if is_out && (!is_panic || state.breaker.is_dead()) {
            return Self::Ejected;
        }
        let is_full = entry.in_flight() >= f64::from(in_flight_max);
        if is_full || state.is_spared(now) || !is_steady(entry) {
            return Self::Doubtful;
        }
        Self::Good
    }
}

/// Whether neither its node nor gossip want it to get fewer calls.
pub(super) fn is_steady(entry: &Entry) -> bool {
    entry.instance.weight > 0 && entry.instance.liveness == starling_gossip::Liveness::Alive
}

/// How many times cheaper an instance must be to be taken before the one that weights chose.
const CLEARLY: f64 = 1.5;

/// Differences of latency below this are noise of the machine, not of the instance.
const LATENCY_NOISE_S: f64 = 0.001;
