//! Who may call the services of this node, and how: decided here, at the callee, and nowhere else.
//!
//! TOML and documents are compiled into a [`Snapshot`], indexed by service and replaced whole. Enforcement and `starling
//! explain` ask the same function, [`Entry::judge`].

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use starling_transport::TrustDomain;
use tokio::sync::watch;

use crate::config::Config;

mod audit;
mod compile;
pub mod explain;
mod fuzz;
mod judge;
mod layered;
mod live;
mod mode;
mod rule;
mod show;
mod text;

pub use crate::config::policy::{Document, Mode, ServiceSet};
pub use audit::{Audit, LetThrough};
pub use compile::{Entry, Snapshot};
#[doc(hidden)]
pub use fuzz::fuzz;
pub use judge::{Subject, Verdict, Why};
pub use live::Live;
pub use rule::Where;
pub use text::{InForce, Text};

/// The policy in force on this node.
#[derive(Debug)]
pub struct Policy {
    trust_domain: TrustDomain,
    sources: Mutex<Sources>,
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<()>,
    /// What was let through though nothing allows it.
    pub audit: Audit,
}

/// What the snapshot in force was made of.
#[derive(Debug)]
struct Sources {
    config: Config,
    documents: Vec<InForce>,
    stand_ins: Vec<InForce>,
}

impl Policy {
    /// The policy of a node that has no documents yet.
    pub fn new(trust_domain: TrustDomain, config: &Config) -> Arc<Self> {
        let snapshot = Snapshot::compile(&trust_domain, config, &[]);
        Arc::new(Self {
            trust_domain,
            sources: Mutex::new(Sources {
                config: config.clone(),
                documents: Vec::new(),
                stand_ins: Vec::new(),
            }),
            current: ArcSwap::from_pointee(snapshot),
            changed: watch::Sender::new(()),
            audit: Audit::default(),
        })
    }

    /// Takes what the host's own files say now.
    pub fn configure(&self, config: &Config) {
        self.change(|sources| sources.config = config.clone());
    }

    /// Takes the documents of kind `policy` that are in force now, all of them.
    pub fn take_documents(&self, documents: Vec<InForce>) {
        self.change(|sources| sources.documents = documents);
    }

    /// Takes what stands in for documents of other kinds that are missing, all of it.
    pub fn stand_in(&self, documents: Vec<InForce>) {
        self.change(|sources| sources.stand_ins = documents);
    }

    /// Whether something stands in for a missing document, so that nobody knows who is thrown out.
    pub fn has_stand_ins(&self) -> bool {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        !sources.stand_ins.is_empty()
    }

    /// What is in force now, for one decision.
    pub fn current(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Tells of every change. Subscribe first and read [`Policy::current`] after, and no change is missed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn change(&self, with: impl FnOnce(&mut Sources)) {
        // Held while compiling, so that of two changes the later one wins.
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        with(&mut sources);
        let documents = [&sources.documents[..], &sources.stand_ins].concat();
        let snapshot = Snapshot::compile(&self.trust_domain, &sources.config, &documents);
        if snapshot == **self.current.load() {
            return;
        }
        self.current.store(Arc::new(snapshot));
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests;
