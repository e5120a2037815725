//! What this agent knows of one instance, beyond what the catalogue says.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_gossip::Instance;
use tokio::time::Instant;

use super::View;
use super::breaker::{Breaker, Standing};
use super::ewma::PeakEwma;
use super::window::Window;
use crate::route::split::Subset;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) instance: Arc<Instance>,
    pub(super) load: Arc<Load>,
}

#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) in_flight: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) latency: PeakEwma,
    pub(super) breaker: Breaker,
    pub(super) window: Window,
    /// When it became usable, if we saw that.
    pub(super) since: Option<Instant>,
    /// Until when it is spared because it said that it has too much to do.
    pub(super) spared: Option<Instant>,
    /// When its next turn is, where calls are given out in turn.
    pub(super) turn: Option<f64>,
}

impl Entry {
    /// The load of this instance in a new snapshot.
    pub(super) fn carried_over(&self, new: &Instance, now: Instant) -> Arc<Load> {
        let old = &self.instance;
        if old.addr != new.addr || (!old.healthy && new.healthy) {
            let mut state = self.load.state();
            state.breaker = Breaker::default();
            state.window = Window::default();
            state.since = Some(now);
        }
        self.load.clone()
    }

    pub(super) fn is_in(&self, subset: &Subset) -> bool {
        subset.holds(&self.instance.labels, &self.instance.zone)
    }

    pub(super) fn weight(&self) -> f64 {
        f64::from(self.instance.weight.max(1))
    }

    pub(super) fn in_flight(&self) -> f64 {
        f64::from(self.load.in_flight.load(Ordering::Relaxed))
    }

    pub(super) fn view(&self, now: Instant) -> View {
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
            spared_for: state
                .spared
                .map(|until| until.saturating_duration_since(now))
                .filter(|left| !left.is_zero()),
        }
    }
}

impl Load {
    /// Of an instance that appears now.
    pub(super) fn beginning(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            state: Mutex::new(State {
                since: Some(now),
                ..State::default()
            }),
        })
    }

    /// Counts a call in; returns whether it is the probe of a half-open instance, or nothing if another call became
    /// that meanwhile.
    pub(super) fn begin(&self, now: Instant, is_forced: bool) -> Option<bool> {
        let mut state = self.state();
        let standing = state.breaker.standing(now);
        if standing == Standing::Ejected && !is_forced {
            return None;
        }
        let is_probe = standing == Standing::HalfOpen;
        if is_probe {
            state.breaker.probe();
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(is_probe)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The part of its weight that an instance gets while it warms up.
    pub(super) fn warmth(&self, slow_start: Duration, now: Instant) -> f64 {
        let Some(since) = self.since.filter(|_| !slow_start.is_zero()) else {
            return 1.0;
        };
        let age = now.saturating_duration_since(since);
        (age.as_secs_f64() / slow_start.as_secs_f64()).clamp(WARMTH_MIN, 1.0)
    }

    pub(super) fn is_spared(&self, now: Instant) -> bool {
        self.spared.is_some_and(|until| now < until)
    }
}

/// The share of its weight that an instance begins with, so that there is something to warm up by.
const WARMTH_MIN: f64 = 0.1;
