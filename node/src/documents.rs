//! What the operators' documents do on this node: which revision of each is in force, and why others are not.
//!
//! Gossip keeps and spreads documents without knowing what they mean. Here each kind is handed to its consumer. What cannot be
//! read is not in force: the last revision that could be read stays. What makes the agent crash is held back when it is
//! started again (`Trials`).
//!
//! A kind is two lines in [`kinds`], both with the same parser `fn(&DocumentName, &Path, &str) -> Result<T, Problems>`:
//! - in `PARSERS`: `starling apply` reads a body with it before anything is signed, and the agent once more before it takes the
//!   document. The path only serves messages; the lines that name kind and name are blank in the body.
//! - in [`kinds::consumers`]: [`Kind::new`] with a closure that puts a [`Set`] in force. It gets *all* documents of its kind that
//!   are in force, as `T`, when the agent starts, before anything is served, and on each change. What is not in the set any more
//!   is to be dropped. `missing` are documents that count in the mesh and cannot be in force here: what they may have denied must
//!   not become possible. The closure must neither block nor fail; what could fail belongs into the parser.

mod choose;
pub mod file;
pub mod kinds;
mod trial;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use starling_gossip::{DocumentKey, DocumentKind, Documents, Membership, Revision};
use tokio::time::{Instant, sleep_until};

use crate::host::Host;
use crate::state::StateDir;
use crate::telemetry::metrics;

pub use choose::{Count, Standing, Standings};
pub use kinds::{Consumer, InForce, Kind, Set};
use trial::Trials;

/// Keeps what is in force on the newest documents.
pub struct Keeper {
    consumers: BTreeMap<DocumentKind, Box<dyn Consumer>>,
    trials: Mutex<Trials>,
    state: StateDir,
    standings: ArcSwap<Standings>,
}

impl Keeper {
    /// Puts in force what is on disk, before anything is served. Revisions that an agent crashed with are held back.
    pub async fn start(
        state: &StateDir,
        membership: &Membership,
        consumers: Vec<Box<dyn Consumer>>,
    ) -> Arc<Self> {
        let consumers = consumers.into_iter().map(|consumer| {
            let kind = consumer.kind().parse().expect("kinds are plain words");
            (kind, consumer)
        });
        let keeper = Arc::new(Self {
            consumers: consumers.collect(),
            trials: Mutex::new(Trials::open(state)),
            state: state.clone(),
            standings: ArcSwap::default(),
        });
        keeper.update(membership.documents()).await;
        keeper
    }

    /// Follows the documents for as long as it runs.
    pub async fn run(self: Arc<Self>, host: Arc<Host>) {
        let membership = &host.membership;
        let mut changes = membership.document_changes();
        changes.mark_changed();
        loop {
            let passed = self.trials().next();
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.update(membership.documents()).await,
                    Err(_ended) => return,
                },
                () = sleep_until(passed.unwrap_or_else(far_off)) => {
                    self.trials().pass(Instant::now());
                    self.save_trials().await;
                }
            }
        }
    }

    /// What is in force now, and what is not.
    pub fn standings(&self) -> Arc<Standings> {
        self.standings.load_full()
    }

    /// Whether a body could be put in force here; otherwise why not.
    pub fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String> {
        match self.consumers.get(&key.kind) {
            Some(consumer) => consumer.check(key, body),
            None => Err(unknown_kind(&key.kind)),
        }
    }

    /// An orderly end is no crash: what is on trial starts it anew the next time.
    pub async fn stop(&self) {
        self.trials().adjourn();
        self.save_trials().await;
    }

    async fn update(&self, documents: Arc<Documents>) {
        // Reading may be what it dies of, so the trial begins before.
        self.trials().keep_only(&documents);
        let is_held = |hash: &[u8; 32]| self.trials().is_held(hash);
        let newest = documents.entries.values().filter_map(|document| {
            let mut winners = document.winners();
            winners.find(|revision| !is_held(&revision.hash))
        });
        self.begin_trials(newest.collect()).await;
        let (standings, sets) = choose::choose(&documents, &self.consumers, is_held);
        // An earlier one, where the newest cannot be read.
        self.begin_trials(standings.in_force().collect()).await;
        for (kind, set) in sets {
            self.consumers[&kind].take(set);
        }
        let before = self.standings.swap(Arc::new(standings));
        self.tell(&before);
    }

    async fn begin_trials(&self, revisions: Vec<&Arc<Revision>>) {
        let has_begun = self.trials().begin(revisions.into_iter(), Instant::now());
        if has_begun {
            self.save_trials().await;
        }
    }

    /// Written before what is on trial is used, so that it is found after a crash.
    async fn save_trials(&self) {
        let (state, text) = (self.state.clone(), self.trials().to_text());
        let write = move || state.write(trial::FILE, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            let error = anyhow::Error::from(error);
            tracing::error!(
                error = format!("{error:#}"),
                "which documents are on trial cannot be kept; a crash would not hold them back"
            );
        }
    }

    fn tell(&self, before: &Standings) {
        let standings = self.standings();
        metrics::documents(&standings.count());
        for (key, standing) in standings.iter() {
            if before.get(key) != Some(standing) {
                standing.log(key);
            }
        }
    }

    fn trials(&self) -> std::sync::MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("kinds", &self.consumers.keys())
            .finish_non_exhaustive()
    }
}

fn unknown_kind(kind: &DocumentKind) -> String {
    let known: Vec<_> = kinds::known().collect();
    format!(
        "this version knows no documents of kind `{kind}`, only {}",
        known.join(", ")
    )
}

/// A time that does not come.
fn far_off() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 60 * 60)
}

#[cfg(test)]
mod tests;
