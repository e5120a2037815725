//! Looks again and again at who is here, and builds the catalogue from it.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Core;
use crate::catalogue::{Catalogue, Liveness};
use crate::engine::chitchat_id;
use crate::local::State;
use crate::metrics::{BEHIND, CONVERGENCE, MEMBERS};
use crate::names::NodeId;
use crate::registry::ProbePlan;
use crate::wire::Question;

impl Core {
    /// Twice per interval: asks the failure detector, judges, probes.
    pub(super) async fn keep_reviewing(self: Arc<Self>) {
        let mut ticks = interval(self.settings.interval / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let plan = ProbePlan {
            ahead: 3 * self.settings.interval,
            pause: 5 * self.settings.interval,
        };
        loop {
            ticks.tick().await;
            let engine = self.engine.load_full();
            let alive = match &engine {
                Some(engine) => engine.alive().await,
                None => Vec::new(),
            };
            for node in self.registry.review(&alive, plan) {
                self.probe(node);
            }
            self.tell_convergence();
            if let Some(engine) = engine {
                engine.learned(&self.versions()).await;
            }
        }
    }

    /// How many peers are known to lack what we announced last, and how long the others took to have it.
    fn tell_convergence(&self) {
        let Some(newest) = self.newest() else {
            return;
        };
        let (table, acks) = (self.registry.table(), self.acks.borrow());
        let others = table.entries.values();
        let others = others.filter(|entry| {
            let is_other = entry.manifest.node != self.registry.own;
            is_other && entry.here() && entry.pulse.liveness() == Liveness::Alive
        });
        let held = others.map(|entry| acks.get(&entry.manifest.node).copied());
        let mut convergence = self
            .convergence
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (behind, took) = convergence.look(newest, held, Instant::now());
        gauge!(BEHIND).set(behind as f64);
        if let Some(took) = took {
            gauge!(CONVERGENCE).set(took.as_secs_f64());
        }
    }

    /// The version we hold of each life believed to be here, as chitchat knows them. Telling it of the dead would have everyone
    /// remember them anew.
    fn versions(&self) -> Vec<(chitchat::ChitchatId, u64)> {
        let table = self.registry.table();
        let others = table
            .entries
            .values()
            .filter(|entry| entry.manifest.node != self.registry.own && entry.here());
        others
            .map(|entry| {
                let manifest = &entry.manifest;
                let id = chitchat_id(manifest.node, manifest.generation, manifest.gossip_addr());
                (id, manifest.kv_version)
            })
            .collect()
    }

    /// Asks a node whether it is there, twice if need be.
    fn probe(self: &Arc<Self>, node: NodeId) {
        let addr = self
            .registry
            .table()
            .entries
            .get(&node)
            .map(|entry| entry.manifest.gossip_addr());
        let (Some(addr), Ok(permit)) = (addr, self.probing.clone().try_acquire_owned()) else {
            return;
        };
        let core = self.clone();
        self.spawn(async move {
            let answered = core.answers(node, addr).await || core.answers(node, addr).await;
            if answered {
                core.registry.seen(node);
            } else {
                core.registry.probe_failed(node);
            }
            drop(permit);
        });
    }

    async fn answers(&self, node: NodeId, addr: SocketAddr) -> bool {
        let answer = self
            .ask(addr, &Question::Ping, PING_BYTES_MAX, PROBE_TIME)
            .await;
        answer.is_some_and(|answer| NodeId::of(&answer.peer) == node)
    }

    /// Replaces the catalogue whenever something changed, changes that come together at once.
    pub(super) async fn keep_building(self: Arc<Self>) {
        loop {
            // Certificates run out without anything being told.
            let _ = timeout(REBUILD_TIME, self.registry.changed.notified()).await;
            self.rebuild();
            sleep(BUILD_PAUSE).await;
        }
    }

    pub(super) fn rebuild(&self) {
        let before = self.catalogue();
        let catalogue = self
            .registry
            .catalogue(&before, self.settings.clock.now_s());
        if catalogue.same_as(&before) {
            return;
        }
        log_changes(&before, &catalogue);
        for (liveness, label) in [
            (Liveness::Alive, "alive"),
            (Liveness::Suspect, "suspect"),
            (Liveness::Dead, "dead"),
        ] {
            let count = catalogue
                .members
                .values()
                .filter(|member| member.liveness == liveness)
                .count();
            gauge!(MEMBERS, "liveness" => label).set(count as f64);
        }
        let version = catalogue.version;
        self.catalogue.store(Arc::new(catalogue));
        self.changes.send_replace(version);
    }
}

/// Tells what became of members, ourselves aside.
fn log_changes(before: &Catalogue, after: &Catalogue) {
    let others = after
        .members
        .values()
        .filter(|member| member.name != after.local);
    for member in others {
        let (node, addr, generation) = (&member.name, member.addrs[0], member.generation);
        let old = before.members.get(&member.name);
        let was = old.map(|old| (old.state, old.liveness, old.generation));
        if was == Some((member.state, member.liveness, generation)) {
            continue;
        }
        let what = match (member.state, member.liveness, old) {
            (State::Left, ..) => "member left",
            (_, Liveness::Dead, _) => "member dead",
            (_, Liveness::Suspect, _) => "member suspect",
            (State::Draining, Liveness::Alive, _) => "member draining",
            (State::Serving, Liveness::Alive, None) => "member joined",
            (State::Serving, Liveness::Alive, Some(_)) => "member alive",
        };
        tracing::info!(peer.node = %node, peer.addr = %addr, generation, "{what}");
    }
    for gone in before
        .members
        .keys()
        .filter(|name| !after.members.contains_key(*name))
    {
        tracing::info!(peer.node = %gone, "member forgotten");
    }
}

/// A page with nothing on it.
const PING_BYTES_MAX: usize = 64;

/// How long an answer to a probe may take: a new connection over a slow link, with one retransmission.
const PROBE_TIME: Duration = Duration::from_millis(1500);

/// The least time between two catalogues, far below what a rumour takes to arrive.
const BUILD_PAUSE: Duration = Duration::from_millis(5);

/// The most time between two catalogues.
const REBUILD_TIME: Duration = Duration::from_secs(10);
