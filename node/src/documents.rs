//! What the operators' documents do on this node: which revision of each is in force, and why others are not.
//!
//! Gossip keeps and spreads documents without knowing what they mean. Here each kind is handed to its consumer. The newest revision
//! of a document is in force, or it acts as held back ([`kinds::Fallback`]): an earlier grant never comes back because the
//! agent was killed or cannot read what came after it. Before the agent reads a text for the first time a child process does
//! ([`preflight`]); only how that ends is evidence against a text.
//!
//! A kind is two lines in [`kinds`], both with the same parser `fn(&DocumentName, &Path, &str) -> Result<T, Problems>`:
//! - in `PARSERS`: `starling apply` reads a body with it before anything is signed, and the agent once more before it takes the
//!   document. The path only serves messages; the lines that name kind and name are blank in the body.
//! - in [`kinds::consumers`]: [`Kind::new`] with a closure that puts a [`Set`] in force. It gets *all* documents of its kind that
//!   are in force, as `T`, when the agent starts, before anything is served, and on each change. What is not in the set any more
//!   is to be dropped. `missing` are texts that count in the mesh and cannot be in force here: what they may have denied must
//!   not become possible. The closure must neither block nor fail; what could fail belongs into the parser.
//!
//! And an arm in `preflight::rehearsal`, which tries what was read.

mod choose;
mod clearance;
mod coverage;
pub mod file;
pub mod kinds;
pub mod preflight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use starling_gossip::{Document, DocumentKey, DocumentKind, Documents, Membership, Revision};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::host::Host;
use crate::state::StateDir;
use crate::telemetry::metrics;

use choose::Chooser;
pub use choose::{Count, Standing, Standings, Why};
use clearance::{Clearance, Clearances};
pub use kinds::{Consumer, InForce, Kind, Set};
use preflight::{Checked, Outcome, Preflight, Runner};

/// Keeps what is in force on the newest documents.
pub struct Keeper {
    consumers: BTreeMap<DocumentKind, Box<dyn Consumer>>,
    /// In the order in which sets are put in force.
    order: Vec<DocumentKind>,
    preflight: Preflight,
    clearances: Mutex<Clearances>,
    /// Documents whose newest revision is not decided, and since when. It is the document that waits, so that one revision after
    /// the other cannot put the end off.
    undecided: Mutex<BTreeMap<DocumentKey, Instant>>,
    state: StateDir,
    standings: ArcSwap<Standings>,
}

impl Keeper {
    /// Puts in force what is on disk, before anything is served. What is not decided within a second acts as held back.
    pub async fn start(
        state: &StateDir,
        membership: &Membership,
        consumers: Vec<Box<dyn Consumer>>,
        runner: Arc<dyn Runner>,
    ) -> Arc<Self> {
        Self::start_as(&clearance::build(), state, membership, consumers, runner).await
    }

    async fn start_as(
        build: &str,
        state: &StateDir,
        membership: &Membership,
        consumers: Vec<Box<dyn Consumer>>,
        runner: Arc<dyn Runner>,
    ) -> Arc<Self> {
        let consumers = consumers.into_iter().map(|consumer| {
            let kind: DocumentKind = consumer.kind().parse().expect("kinds are plain words");
            (kind, consumer)
        });
        let consumers: Vec<_> = consumers.collect();
        let keeper = Arc::new(Self {
            order: consumers.iter().map(|(kind, _)| kind.clone()).collect(),
            consumers: consumers.into_iter().collect(),
            preflight: Preflight::new(runner),
            clearances: Mutex::new(Clearances::open(state, build)),
            undecided: Mutex::default(),
            state: state.clone(),
            standings: ArcSwap::default(),
        });
        while let Some(end) = keeper.update(&membership.documents()) {
            // It may end for one document and not yet for another.
            let _elapsed = timeout_at(end, keeper.preflight.decided()).await;
        }
        keeper.save().await;
        keeper
    }

    /// Follows the documents for as long as it runs.
    pub async fn run(self: Arc<Self>, host: Arc<Host>) {
        let membership = &host.membership;
        let mut changes = membership.document_changes();
        changes.mark_changed();
        loop {
            let end = self.update(&membership.documents());
            let out_of_force = self.standings().count().out_of_force();
            if let Err(error) = membership.set_documents_out_of_force(out_of_force) {
                tracing::warn!(%error, "failed to announce the documents that are not in force");
            }
            self.save().await;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = self.preflight.decided() => {}
                () = sleep_until(end.unwrap_or_else(far_off)) => {}
            }
        }
    }

    /// What is in force now, and what is not.
    pub fn standings(&self) -> Arc<Standings> {
        self.standings.load_full()
    }

    /// Why documents are read by the agent without a check in a child process, if that is so.
    pub fn no_child(&self) -> Option<String> {
        self.preflight.no_child()
    }

    /// Whether a revision could be put in force here; otherwise why not.
    pub async fn check(&self, revision: &Revision) -> Result<(), String> {
        let Some(consumer) = self.consumers.get(&revision.key.kind) else {
            return Err(unknown_kind(&revision.key.kind));
        };
        let text = text(revision);
        match self.preflight.check(text).await {
            Checked::Readable => {
                self.clearances().clear(revision.hash);
                Ok(())
            }
            Checked::Unreadable(problem) => Err(problem),
            Checked::Crashed(evidence) => Err(format!(
                "the process that checked it ended ({evidence}), which is a bug of this version"
            )),
            Checked::Undecided { began: true, why } => {
                Err(format!("its check did not end: {why}; try again"))
            }
            // There is no child to be had.
            Checked::Undecided { began: false, why } => {
                tracing::warn!(reason = why, document = %revision.key, "document checked without a child process");
                consumer.check(&revision.key, &revision.body)
            }
        }
    }

    /// Puts in force what can be. Says until when something may stay undecided.
    fn update(&self, documents: &Documents) -> Option<Instant> {
        let now = Instant::now();
        self.take_news();
        self.clearances().keep_only(documents);
        self.note_undecided(documents, now);
        let standings_before = self.standings();
        let clearance = |hash: &clearance::Hash| self.clearances().of(hash);
        let is_patient = |key: &DocumentKey| {
            let undecided = self.undecided();
            undecided.get(key).is_some_and(|since| now < *since + GRACE)
        };
        let chooser = Chooser {
            consumers: &self.consumers,
            clearance: &clearance,
            is_patient: &is_patient,
            before: &standings_before,
        };
        let unchecked = chooser.unchecked(documents);
        let end = self.wait_for(&unchecked, now);
        let wanted = unchecked.into_iter();
        let wanted = wanted.map(|revision| (revision.hash, text(revision)));
        self.preflight.want(wanted.collect());
        let (standings, mut sets) = chooser.choose(documents);
        for kind in &self.order {
            if let Some(set) = sets.remove(kind) {
                self.consumers[kind].take(set);
            }
        }
        self.standings.store(Arc::new(standings));
        self.report(&standings_before);
        end
    }

    fn take_news(&self) {
        let news = self.preflight.take_news();
        let mut clearances = self.clearances();
        for (hash, coverage) in news.coverages {
            clearances.report(hash, coverage);
        }
        for (hash, outcome) in news.outcomes {
            match outcome {
                Outcome::Cleared => clearances.clear(hash),
                Outcome::Held(evidence) => clearances.hold(hash, evidence),
                Outcome::Unsandboxed => {
                    tracing::warn!(
                        reason = self.preflight.no_child(),
                        "document read without a check in a child process"
                    );
                    clearances.clear_unsandboxed(hash);
                }
            }
        }
    }

    /// Notes which documents wait for a check of their newest revision.
    fn note_undecided(&self, documents: &Documents, now: Instant) {
        let clearances = self.clearances();
        let mut undecided = self.undecided();
        let is_undecided = |document: &Document| {
            let newest = document.newest();
            let clearance = clearances.of(&newest.hash);
            !newest.deleted && matches!(clearance, Clearance::Pending { .. })
        };
        undecided.retain(|key, _| documents.entries.contains_key(key));
        for (key, document) in &documents.entries {
            if self.consumers.contains_key(&key.kind) && is_undecided(document) {
                undecided.entry(key.clone()).or_insert(now);
            }
        }
    }

    /// Forgets documents of which nothing is unchecked any more. Says when the first of the others has waited for long enough.
    fn wait_for(&self, unchecked: &[&Arc<Revision>], now: Instant) -> Option<Instant> {
        let waiting: BTreeSet<_> = unchecked.iter().map(|revision| &revision.key).collect();
        let mut undecided = self.undecided();
        undecided.retain(|key, _| waiting.contains(key));
        for key in waiting {
            // An earlier revision, after the newest was found to be out of force.
            undecided.entry(key.clone()).or_insert(now);
        }
        let ends = undecided.values().map(|since| *since + GRACE);
        ends.filter(|end| *end > now).min()
    }

    /// Kept for the next start, which then has less to check. If it cannot be, the next start checks all.
    async fn save(&self) {
        let Some(text) = self.clearances().changed_text() else {
            return;
        };
        let state = self.state.clone();
        let write = move || state.write(clearance::FILE, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            let error = anyhow::Error::from(error);
            tracing::error!(
                error = format!("{error:#}"),
                "failed to write document clearances; the next start checks all documents again"
            );
        }
    }

    fn report(&self, before: &Standings) {
        let standings = self.standings();
        metrics::documents(&standings.count());
        for (key, standing) in standings.iter() {
            if before.get(key) != Some(standing) {
                standing.log(key);
            }
        }
    }

    fn clearances(&self) -> MutexGuard<'_, Clearances> {
        self.clearances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn undecided(&self) -> MutexGuard<'_, BTreeMap<DocumentKey, Instant>> {
        self.undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(revision: &Revision) -> preflight::Text {
    preflight::Text {
        key: revision.key.clone(),
        body: revision.body.clone(),
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

/// How long a check may take before the text acts as held back. One takes 10 ms; a start waits for it with nothing served.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
