//! Finds out whether the apps of this host work, and tells whoever watches.
//!
//! A service without a health check is taken to work. One with a check does not until its first check passes, so that
//! nobody is sent to an app that is still starting.

mod exec;
mod grpc;
mod probe;
#[cfg(test)]
mod tests;
mod threshold;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use starling_gossip::ServiceName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::{Health, HttpVersion, Service};
use crate::telemetry::metrics;
use threshold::Threshold;

/// What is known of one local app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub healthy: bool,
    /// What the last failed check said, while unhealthy.
    pub problem: Option<Arc<str>>,
}

/// All local apps. A service that is not in it is not declared.
pub type States = BTreeMap<ServiceName, State>;

/// The health checks of this host's services. Dropping it ends them.
#[derive(Debug)]
pub struct Checks {
    states: watch::Sender<States>,
    running: HashMap<ServiceName, Running>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    target: Target,
    stop: CancellationToken,
}

/// What a check depends on: while it stays the same, so does the check and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    http: HttpVersion,
    health: Health,
}

impl Checks {
    /// Needs a tokio runtime for the checks that [`Checks::reconcile`] begins.
    pub fn new() -> Self {
        Self {
            states: watch::Sender::default(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// The states as they change. A service is in it from the moment it is declared.
    pub fn watch(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Checks these services from now on. What did not change keeps its state and its rhythm.
    pub fn reconcile(&mut self, services: &[Service]) {
        while self.tasks.try_join_next().is_some() {}
        let wanted: HashMap<_, _> = services
            .iter()
            .map(|service| (&service.name, Target::of(service)))
            .collect();
        self.running.retain(|name, running| {
            let stays = wanted
                .get(name)
                .is_some_and(|target| target.as_ref() == Some(&running.target));
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        let begun: HashMap<_, _> = wanted
            .iter()
            .filter(|(name, _)| !self.running.contains_key(**name))
            .collect();
        self.states.send_modify(|states| {
            states.retain(|name, _| wanted.contains_key(name));
            for (name, target) in &begun {
                states.insert(
                    (**name).clone(),
                    State {
                        healthy: target.is_none(),
                        problem: None,
                    },
                );
            }
        });
        for (name, target) in begun {
            metrics::health(name, target.is_none());
            if let Some(target) = target {
                self.begin((*name).clone(), target.clone());
            }
        }
    }

    fn begin(&mut self, name: ServiceName, target: Target) {
        let stop = CancellationToken::new();
        let states = self.states.clone();
        let check = Check {
            name: name.clone(),
            target: target.clone(),
            states,
            stop: stop.clone(),
        };
        self.tasks.spawn(check.run());
        self.running.insert(name, Running { target, stop });
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl Target {
    fn of(service: &Service) -> Option<Self> {
        let health = service.health.clone()?;
        Some(Self {
            address: service.address,
            http: service.http,
            health,
        })
    }
}

/// The task that checks one app.
struct Check {
    name: ServiceName,
    target: Target,
    states: watch::Sender<States>,
    stop: CancellationToken,
}

impl Check {
    async fn run(self) {
        self.stop.run_until_cancelled(self.repeat()).await;
    }

    async fn repeat(&self) {
        let health = &self.target.health;
        let mut threshold = Threshold::new(health.up, health.down);
        loop {
            let outcome = probe::probe(&self.target).await;
            metrics::health_checked(&self.name, outcome.is_ok());
            if threshold.record(outcome.is_ok()) {
                self.publish(outcome.err().map(|problem| problem.to_string()));
            }
            // A tenth either way keeps many checks from falling into step.
            sleep(health.interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }

    /// The app became healthy, or unhealthy because of `problem`.
    fn publish(&self, problem: Option<String>) {
        self.states.send_if_modified(|states| {
            let Some(state) = states.get_mut(self.name.as_str()) else {
                return false;
            };
            // Another check may have taken over meanwhile; its word is the newer one.
            if self.stop.is_cancelled() {
                return false;
            }
            match &problem {
                None => tracing::info!(service = %self.name, "app is healthy"),
                Some(problem) => tracing::warn!(service = %self.name, problem, "app is unhealthy"),
            }
            metrics::health(&self.name, problem.is_none());
            *state = State {
                healthy: problem.is_none(),
                problem: problem.map(Into::into),
            };
            true
        });
    }
}
