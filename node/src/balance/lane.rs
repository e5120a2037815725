//! Calls that agree in how they are balanced: those of one upstream, or of one rule of a route.

use std::sync::Arc;

use starling_gossip::NodeName;
use tokio::time::Instant;

use super::field::{Drawn, Field, Rule, Seen, Tier, is_steady};
use super::instance::Entry;
use super::pick::Pick;
use super::sticky::Sticky;
use super::{Balancer, zones};
use crate::config::{Algorithm, CallSettings};
use crate::route::split::Subset;

/// How some calls to a service find their instance. Made when settings are taken, not for each call.
#[derive(Debug)]
pub struct Lane {
    balancer: Arc<Balancer>,
    settings: Arc<CallSettings>,
    sticky: Option<Arc<Sticky>>,
}

/// What one call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Nodes that it has tried.
    pub skip: &'a [NodeName],
    /// The instances that may take it.
    pub subset: &'a Subset,
    /// A hash of what keeps calls together, where the algorithm asks for it.
    pub key: Option<u64>,
}

/// What one pick knows before it looks at any instance.
struct Round<'r> {
    lane: &'r Lane,
    ask: &'r Ask<'r>,
    now: Instant,
    is_panic: bool,
    turn: f64,
}

impl Lane {
    pub(super) fn new(
        balancer: Arc<Balancer>,
        settings: Arc<CallSettings>,
        sticky: Option<Arc<Sticky>>,
    ) -> Self {
        Self {
            balancer,
            settings,
            sticky,
        }
    }

    pub fn settings(&self) -> &Arc<CallSettings> {
        &self.settings
    }

    /// The instances of the whole service.
    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    /// An instance for one call, on none of the nodes it skips; `None` if there is no other. When nothing good is left it
    /// is the least bad one, see [`Pick::is_last_resort`].
    pub fn pick(&self, ask: &Ask<'_>, now: Instant, rng: &mut fastrand::Rng) -> Option<Pick> {
        let entries = self.balancer.entries.load();
        let round = Round {
            lane: self,
            ask,
            now,
            is_panic: self.is_panic(&entries, ask, now),
            turn: self.balancer.turn(),
        };
        loop {
            let drawn = round
                .placed(&entries)
                .or_else(|| round.drawn(&entries, rng))?;
            let is_last_resort = drawn.tier >= Tier::Ejected;
            // Two calls may choose the same half-open instance: one probes it, the other chooses again.
            let is_forced = is_last_resort || round.is_panic;
            let Some(is_probe) = drawn.entry.load.begin(now, is_forced) else {
                continue;
            };
            if self.settings.balance.algorithm == Algorithm::RoundRobin {
                drawn.entry.load.state().turn = Some(drawn.place + 1.0 / drawn.weight);
                self.balancer.set_turn(drawn.place);
            }
            let (balancer, entry) = (self.balancer.clone(), drawn.entry.clone());
            let outlier = self.settings.outlier;
            return Some(Pick::new(
                balancer,
                entry,
                outlier,
                now,
                is_probe,
                is_last_resort,
            ));
        }
    }

    /// Whether so few instances are usable that their errors must not count.
    fn is_panic(&self, entries: &[Entry], ask: &Ask<'_>, now: Instant) -> bool {
        let threshold = usize::from(self.settings.balance.panic);
        if threshold == 0 {
            return false;
        }
        let all = entries.iter().filter(|entry| entry.is_in(ask.subset));
        let (mut count, mut usable) = (0, 0);
        for entry in all {
            count += 1;
            usable += usize::from(Tier::of(entry, u32::MAX, false, now) <= Tier::Doubtful);
        }
        usable * 100 < threshold * count
    }
}

impl Round<'_> {
    /// The instance that the key belongs to, or the next on its way that can take the call.
    fn placed<'a>(&self, entries: &'a [Entry]) -> Option<Drawn<'a>> {
        let (sticky, key) = (self.lane.sticky.as_ref()?, self.ask.key?);
        let places = sticky.places()?;
        let room = sticky.is_bounded().then(|| self.room(entries));
        let usable = |node: &NodeName, room: Option<f64>| {
            let entry = entries.iter().find(|entry| entry.instance.node == *node)?;
            let is_free = room.is_none_or(|room| entry.in_flight() < room * entry.weight());
            let is_usable = is_free && self.is_asked(entry) && self.tier(entry) == Tier::Good;
            is_usable.then_some(entry)
        };
        let by_walk = places.walk(key).find_map(|node| usable(node, room));
        let entry = by_walk.or_else(|| {
            let highest = places.highest(key, |node| usable(node, None).is_some());
            usable(highest?, None)
        })?;
        Some(Drawn {
            entry,
            tier: Tier::Good,
            weight: entry.weight(),
            place: 0.0,
        })
    }

    fn is_asked(&self, entry: &Entry) -> bool {
        entry.is_in(self.ask.subset) && !self.ask.skip.contains(&entry.instance.node)
    }

    /// How many calls an instance may have under way for each unit of its weight before keys go on to the next: a
    /// quarter more than its share (Mirrokni et al., consistent hashing with bounded loads).
    fn room(&self, entries: &[Entry]) -> f64 {
        let ours = entries.iter().filter(|entry| entry.is_in(self.ask.subset));
        let (mut load, mut weight) = (1.0, 0.0);
        for entry in ours {
            load += entry.in_flight();
            weight += entry.weight();
        }
        BOUND * load / weight
    }

    fn drawn<'a>(&self, entries: &'a [Entry], rng: &mut fastrand::Rng) -> Option<Drawn<'a>> {
        let lane = self.lane;
        let mut field = Field::default();
        for entry in entries {
            if entry.is_in(self.ask.subset) {
                let is_tried = self.ask.skip.contains(&entry.instance.node);
                field.offer(entry, self.look(entry, rng), is_tried);
            }
        }
        let balance = &lane.settings.balance;
        let rule = Rule {
            algorithm: &balance.algorithm,
            spill_below: balance.zone.spill_below,
            now: self.now,
            typical: lane.balancer.typical.get().unwrap_or_default(),
        };
        field.draw(&rule, rng)
    }

    fn look(&self, entry: &Entry, rng: &mut fastrand::Rng) -> Seen {
        let balance = &self.lane.settings.balance;
        let tier = self.tier(entry);
        let state = entry.load.state();
        let weight = entry.weight() * state.warmth(balance.slow_start, self.now);
        let place = if balance.algorithm == Algorithm::RoundRobin {
            // Whoever was away does not catch up on what it missed. A new one takes its first turn at random, so that
            // agents that start together do not all begin with the same instance.
            let turn = state.turn.unwrap_or_else(|| self.turn + rng.f64() / weight);
            turn.max(self.turn)
        } else {
            // Exponential variates with the weights as rates: the smallest is each one's with a chance equal to its share.
            -(1.0 - rng.f64()).ln() / weight
        };
        Seen {
            tier,
            // What is full or spared works, and its zone need not give calls away for good.
            is_capacity: tier <= Tier::Doubtful && is_steady(entry),
            group: zones::group(
                &balance.zone,
                &self.lane.balancer.zone,
                &entry.instance.zone,
            ),
            weight,
            place,
        }
    }

    fn tier(&self, entry: &Entry) -> Tier {
        Tier::of(
            entry,
            self.lane.balancer.in_flight_max,
            self.is_panic,
            self.now,
        )
    }
}

/// See [`Round::room`].
const BOUND: f64 = 1.25;
