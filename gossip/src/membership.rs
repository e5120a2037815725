//! The running membership of this node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::carrier::Carrier;
use crate::catalogue::Catalogue;
use crate::core::Core;
use crate::documents::{Documents, Library, Receipt, Revision, SubmitError};
use crate::local::{Local, LocalError, State};
use crate::names::NodeName;
use crate::own::{Own, next_generation};
use crate::proof::Verifier;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::summary::Summary;

/// This node's part in the mesh. Dropping it ends all its tasks without a word to the others; [`Membership::leave`] says goodbye.
#[derive(Debug)]
pub struct Membership {
    core: Arc<Core>,
}

/// What our own connections to a node tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It does not answer. It is suspect at once, and asked whether it is there; heartbeats that others relay no longer speak for
    /// it until it shows itself.
    Suspect,
    /// It does.
    Alive,
}

/// Why membership could not start. Nothing runs after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What this node would say of itself cannot be said.
    #[error("this node cannot be announced")]
    Local(#[from] LocalError),
    /// The generation could not be read or kept.
    #[error("the generation cannot be kept")]
    Generation(#[source] std::io::Error),
    /// The directory of the documents could not be read.
    #[error("the documents cannot be read")]
    Documents(#[source] std::io::Error),
}

impl Membership {
    /// Joins the mesh: announces `local`, looks for others at the seeds and at the addresses seen before. Returns at once, with a
    /// catalogue of this node alone; the others follow as they are found. Reads the small files named in `settings`.
    pub fn start(
        settings: Settings,
        carrier: Arc<dyn Carrier>,
        verifier: Arc<dyn Verifier>,
        local: Local,
    ) -> Result<Self, StartError> {
        let settings = settings.within_bounds();
        let now_ms = settings.clock.now_ms();
        let generation = next_generation(now_ms, 1, settings.generation_file.as_deref())
            .map_err(StartError::Generation)?;
        let own = Own::new(&settings, verifier.clone(), local.clone(), generation);
        let library = Library::open(&settings, verifier.clone()).map_err(StartError::Documents)?;
        let registry = Arc::new(Registry::new(&settings, own.id(), verifier));
        let core = Arc::new(Core::new(settings, carrier, own, registry, library));
        core.announce(local)?;
        core.start();
        Ok(Self { core })
    }

    /// Announces something new about this node. Others learn of it at once. Signs, so it takes some 100 µs, more when
    /// certificates or services changed.
    pub fn set_local(&self, local: Local) -> Result<(), LocalError> {
        self.core.announce(local)
    }

    /// Takes in how the calls of this node go, to be told to everybody within a minute or so. May be called as often as one
    /// likes. Signs at most twice a minute, and only what is new.
    pub fn summarize(&self, summary: Summary) -> Result<(), LocalError> {
        self.core.summarize(summary)
    }

    /// How the calls of the other nodes go, by their own words: those that have any, the dead included until they are
    /// forgotten, each with the age of what it said.
    pub fn summaries(&self) -> Vec<(NodeName, Duration, Summary)> {
        self.core.registry.summaries()
    }

    /// The present view of the mesh. Takes no lock.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.core.catalogue()
    }

    /// Tells the version of the catalogue whenever it is replaced.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.changes()
    }

    /// Takes a hint from our own connections. Unknown names are ignored.
    pub fn hint(&self, node: &NodeName, hint: Hint) {
        let registry = &self.core.registry;
        match (registry.find(node), hint) {
            (Some(node), Hint::Suspect) => registry.doubt(node),
            (Some(node), Hint::Alive) => registry.seen(node),
            (None, _) => {}
        }
    }

    /// The documents held at present. Takes no lock.
    pub fn documents(&self) -> Arc<Documents> {
        self.core.library.documents()
    }

    /// Tells the version of the documents whenever they change.
    pub fn document_changes(&self) -> watch::Receiver<u64> {
        self.core.library.changes()
    }

    /// Announces how many documents have no effect on this node in their newest revision.
    pub fn set_documents_out_of_force(&self, count: usize) -> Result<(), LocalError> {
        self.core.set_documents_out_of_force(count)
    }

    /// Checks what an operator signed, without taking it: one revision or more.
    pub fn check(&self, document: &[u8]) -> Result<Vec<Arc<Revision>>, SubmitError> {
        let checked = self.core.library.checker.check_new(document);
        checked.map_err(|refusal| {
            refusal.count(1);
            SubmitError::Refused(refusal)
        })
    }

    /// Takes a document that an operator signed. When it returns the document is on disk, and others are being told of it.
    pub async fn submit(&self, document: &[u8]) -> Result<Receipt, SubmitError> {
        let receipt = self.core.submit(document).await;
        if let Err(SubmitError::Refused(refusal)) = &receipt {
            refusal.count(1);
        }
        receipt
    }

    /// Checks everybody's certificates again. To be called when the trust bundle or the revocations changed; takes as long as
    /// checking two signatures per node and service, and blocks. Documents are checked again right after.
    pub fn recheck(&self) {
        self.core.registry.recheck();
        self.core.recheck_documents();
    }

    /// Says goodbye: draining until the others know it (3 seconds at most) unless that was said before, then gone until they know
    /// it (a second at most). Ends all tasks. Connections should be kept open until it returns.
    pub async fn leave(&self) {
        // Whoever said so before has given callers their time.
        if self.core.local().state != State::Draining && self.say(State::Draining) {
            let _ = timeout(DRAIN_TIME, self.heard()).await;
        }
        if self.say(State::Left) {
            let _ = timeout(LINGER, self.heard()).await;
        }
        self.core.save_book().await;
        self.close().await;
    }

    /// Ends all tasks without a word to the others, as a crash would.
    pub async fn close(&self) {
        self.core.stop();
        self.core.stopped().await;
    }

    /// Which life and version of ours is the newest.
    #[cfg(test)]
    pub(crate) fn announced(&self) -> (u64, u64) {
        self.core.newest().expect("it was announced at the start")
    }

    /// Ends chitchat as a panic in it would.
    #[cfg(test)]
    pub(crate) fn abort_engine(&self) {
        self.core.abort_engine();
    }

    /// Announces our state; says whether that was possible and there is anybody to hear it.
    fn say(&self, state: State) -> bool {
        let said = self.core.announce(Local {
            state,
            ..self.core.local()
        });
        if let Err(error) = &said {
            tracing::warn!(%error, "leaving without a word");
        }
        said.is_ok() && !self.core.peers().is_empty()
    }

    /// Ends when enough peers are known to have our newest manifest.
    async fn heard(&self) {
        let Some(newest) = self.core.newest() else {
            return;
        };
        let enough = self.core.peers().len().min(HEARD_BY);
        let mut acks = self.core.acks();
        // Fails only with the core, which we hold.
        let _ = acks
            .wait_for(|acks| acks.values().filter(|acked| **acked >= newest).count() >= enough)
            .await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.core.stop();
    }
}

/// How many peers have to know before we go on leaving.
const HEARD_BY: usize = 3;

/// How long we wait for that.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// How long we stay after we are gone, unless enough know it sooner: the others have it from them. Callers of the only instance
/// of a service that restarts wait this long at most.
const LINGER: Duration = Duration::from_secs(1);
