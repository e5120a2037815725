//! Finds the mesh, and finds it again: seeds, and the peers seen before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};

use super::{Core, pick};
use crate::carrier::ANSWER_BYTES_MAX;
use crate::names::NodeId;
use crate::registry::{Registry, Source};
use crate::settings::Settings;
use crate::state_file::{PEERS_MAX, Seen, read_peers, write_peers};
use crate::wire::Question;

/// The peers seen in this and former lives, and the file that keeps them.
#[derive(Debug)]
pub(super) struct Book {
    file: Option<PathBuf>,
    peers: BTreeMap<NodeId, Seen>,
}

impl Book {
    /// Opens the file, if there is one, and has the registry refuse what is older than what it tells.
    pub(super) fn open(settings: &Settings, registry: &Registry) -> Self {
        let file = settings.peers_file.clone();
        let peers = file.as_deref().map_or_else(Vec::new, |file| match read_peers(file) {
            Ok(peers) => peers,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "the peers seen before cannot be read");
                }
                Vec::new()
            }
        });
        registry.set_floors(
            peers
                .iter()
                .map(|seen| (seen.node, (seen.generation, seen.sequence))),
        );
        Self {
            file,
            peers: peers.into_iter().map(|seen| (seen.node, seen)).collect(),
        }
    }

    /// Notes who is here now.
    fn note(&mut self, here: impl Iterator<Item = Seen>) {
        self.peers.extend(here.map(|seen| (seen.node, seen)));
        while self.peers.len() > 2 * PEERS_MAX {
            let oldest = self
                .peers
                .values()
                .min_by_key(|seen| seen.at)
                .map(|seen| seen.node);
            oldest.and_then(|node| self.peers.remove(&node));
        }
    }
}

impl Core {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps looking for the mesh while it is small or gone, and for lost parts of it for ever.
    pub(super) async fn dial(self: Arc<Self>) {
        let mut pause = self.settings.interval / 4;
        let mut alive_before = 0;
        let mut lost_at = Instant::now();
        loop {
            let alive = self.peers().len();
            let candidates = self.candidates();
            if alive < alive_before {
                pause = self.settings.interval;
            }
            alive_before = alive;
            if alive == 0 {
                let joins = pick(&candidates, JOINS_MAX)
                    .into_iter()
                    .map(|addr| self.join(addr));
                let joined = join_all(joins).await.into_iter().any(|joined| joined);
                pause = if joined {
                    self.settings.interval
                } else {
                    (2 * pause).min(JOIN_PAUSE_MAX)
                };
            } else if alive < ENOUGH {
                self.knock(&pick(&candidates, KNOCKS_MAX));
                pause = (2 * pause).min(LOST_PAUSE);
            } else {
                pause = self.settings.interval;
                if lost_at.elapsed() >= LOST_PAUSE {
                    lost_at = Instant::now();
                    self.knock(&pick(&candidates, 1));
                }
            }
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Addresses where somebody may be whom we do not have: seeds and peers seen before.
    fn candidates(&self) -> Vec<SocketAddr> {
        let have: BTreeSet<SocketAddr> = {
            let table = self.registry.table();
            let here = table.entries.values().filter(|entry| entry.here());
            here.flat_map(|entry| entry.manifest.addrs.iter().copied())
                .collect()
        };
        let seeds = self
            .seeds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let seen = self
            .book()
            .peers
            .values()
            .map(|seen| seen.addr)
            .collect::<Vec<_>>();
        let all: BTreeSet<SocketAddr> = seeds.into_iter().chain(seen).collect();
        all.difference(&have).copied().collect()
    }

    /// Opens a handshake with each, so that it learns of us and we of what it knows.
    fn knock(&self, addrs: &[SocketAddr]) {
        if let Some(engine) = self.engine.load().as_ref() {
            addrs.iter().for_each(|addr| engine.gossip(*addr));
        }
    }

    /// Asks the node at `addr` for everyone, and tells it of us. So the catalogue is usable before the first reconciliation.
    async fn join(self: &Arc<Self>, addr: SocketAddr) -> bool {
        let mut after = None;
        for page in 0..PAGES_MAX {
            let Some(answer) = self
                .ask(addr, &Question::All { after }, ANSWER_BYTES_MAX, JOIN_TIME)
                .await
            else {
                return page > 0;
            };
            if NodeId::of(&answer.peer) == self.registry.own {
                // One of the seeds is another address of ours.
                return false;
            }
            let taken = self.take_page(&answer, Source::Believer);
            if page == 0 {
                self.greet(addr);
                self.knock(&[addr]);
            }
            after = taken.last.map(|node| node.bytes());
            if !taken.more || after.is_none() {
                return true;
            }
        }
        true
    }

    /// Resolves the seeds, host names again every minute.
    pub(super) async fn resolve_seeds(self: Arc<Self>) {
        loop {
            let mut addrs = BTreeSet::from_iter(literal_seeds(&self.settings));
            for seed in &self.settings.seeds {
                if seed.parse::<SocketAddr>().is_ok() {
                    continue;
                }
                match timeout(RESOLVE_TIME, lookup_host(seed)).await {
                    Ok(Ok(resolved)) => addrs.extend(resolved.take(ADDRS_PER_SEED_MAX)),
                    Ok(Err(error)) => tracing::debug!(seed, %error, "seed not resolved"),
                    Err(_) => tracing::debug!(seed, "seed not resolved in time"),
                }
            }
            *self.seeds.lock().unwrap_or_else(PoisonError::into_inner) =
                addrs.into_iter().collect();
            sleep(RESOLVE_PAUSE).await;
        }
    }

    /// Notes who is here, and writes it down every minute.
    pub(super) async fn keep_book(self: Arc<Self>) {
        // Soon after the start, so that a short life leaves a trace too.
        let mut pause = SAVE_PAUSE / 6;
        loop {
            sleep(pause).await;
            pause = SAVE_PAUSE;
            self.save_book().await;
        }
    }

    /// Writes the peers seen to their file, if there is one.
    pub(crate) async fn save_book(&self) {
        let at = self.settings.clock.now_s();
        let here: Vec<Seen> = {
            let table = self.registry.table();
            let others = table
                .entries
                .iter()
                .filter(|(node, entry)| **node != self.registry.own && entry.here());
            others
                .map(|(node, entry)| {
                    let (generation, sequence) = entry.manifest.order();
                    Seen {
                        node: *node,
                        addr: entry.manifest.gossip_addr(),
                        generation,
                        sequence,
                        at,
                    }
                })
                .collect()
        };
        let (file, peers) = {
            let mut book = self.book();
            book.note(here.into_iter());
            book.peers
                .retain(|_, seen| at < seen.at.saturating_add(SEEN_S_MAX));
            (
                book.file.clone(),
                book.peers.values().copied().collect::<Vec<_>>(),
            )
        };
        let Some(file) = file.filter(|_| !peers.is_empty()) else {
            return;
        };
        let shown = file.display().to_string();
        let written = tokio::task::spawn_blocking(move || write_peers(&file, peers)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(file = shown, %error, "the peers seen cannot be kept");
        }
    }
}

/// The seeds that need no resolving.
pub(super) fn literal_seeds(settings: &Settings) -> impl Iterator<Item = SocketAddr> {
    settings.seeds.iter().filter_map(|seed| seed.parse().ok())
}

/// With as many peers the mesh holds together by itself.
const ENOUGH: usize = 3;

/// Nodes asked for everyone at once.
const JOINS_MAX: usize = 5;

/// Addresses tried at once while there are too few peers.
const KNOCKS_MAX: usize = 8;

/// Pages of one answer; each has 1 MiB or all there is.
const PAGES_MAX: usize = 64;

/// How long the first answer may take, a new connection included.
const JOIN_TIME: Duration = Duration::from_secs(5);

const JOIN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a lost address is tried, for ever: partitions outlast what gossip remembers.
const LOST_PAUSE: Duration = Duration::from_secs(30);

const RESOLVE_TIME: Duration = Duration::from_secs(5);
const RESOLVE_PAUSE: Duration = Duration::from_secs(60);
const ADDRS_PER_SEED_MAX: usize = 16;
const SAVE_PAUSE: Duration = Duration::from_secs(60);

/// A peer not seen for 30 days is forgotten.
const SEEN_S_MAX: u64 = 30 * 24 * 3600;
