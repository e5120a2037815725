//! The documents a node holds: taken in, kept on disk, then shown.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use tokio::sync::watch;

use super::{Checker, DocumentKey, Documents, Files, Inserted, Receipt, Revision, SubmitError};
use crate::metrics::{DOCUMENT_FORKS, DOCUMENTS, DOCUMENTS_ACCEPTED, DOCUMENTS_LOST, Refusal};
use crate::proof::Verifier;
use crate::settings::Settings;

/// One writer at a time changes the set; readers have snapshots.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) checker: Checker,
    files: Option<Files>,
    documents: ArcSwap<Documents>,
    changes: watch::Sender<u64>,
    writing: tokio::sync::Mutex<()>,
    /// What could not be written yet.
    unsaved: Mutex<BTreeSet<DocumentKey>>,
}

impl Library {
    /// Reads what is on disk.
    pub(crate) fn open(settings: &Settings, verifier: Arc<dyn Verifier>) -> io::Result<Self> {
        let checker = Checker::new(settings, verifier);
        let files = settings.documents_dir.as_deref().map(Files::new);
        let documents = match &files {
            Some(files) => files.load(&checker)?,
            None => Documents::default(),
        };
        let library = Self {
            checker,
            files,
            documents: ArcSwap::default(),
            changes: watch::Sender::new(0),
            writing: tokio::sync::Mutex::default(),
            unsaved: Mutex::default(),
        };
        library.show(documents);
        Ok(library)
    }

    pub(crate) fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes a document from its operator. It is on disk before it is anywhere else.
    pub(crate) async fn submit(&self, bytes: &[u8]) -> Result<Receipt, SubmitError> {
        let revision = self
            .checker
            .check_new(bytes)
            .map_err(SubmitError::Refused)?;
        let receipt = Receipt {
            key: revision.key.clone(),
            revision: revision.revision,
            hash: revision.hash,
        };
        let _turn = self.writing.lock().await;
        let mut documents = Documents::clone(&self.documents.load());
        let newest = documents.newest_revision(&receipt.key);
        if revision.revision <= newest {
            return Err(SubmitError::Stale { newest });
        }
        documents
            .insert(Arc::new(revision), 1)
            .map_err(SubmitError::Refused)?;
        let documents = self
            .save(documents, vec![receipt.key.clone()])
            .await
            .map_err(|(_, error)| SubmitError::Keep(error))?;
        counter!(DOCUMENTS_ACCEPTED, "way" => "submit").increment(1);
        self.show(documents);
        Ok(receipt)
    }

    /// Takes in what a peer had; says whether all of it has a place. If the disk fails it is shown nevertheless: the others
    /// have it in force too.
    pub(crate) async fn take(&self, revisions: Vec<Revision>) -> Result<(), Refusal> {
        let _turn = self.writing.lock().await;
        let mut documents = Documents::clone(&self.documents.load());
        let mut changed = BTreeSet::new();
        let mut outcome = Ok(());
        for revision in revisions {
            let key = revision.key.clone();
            match documents.insert(Arc::new(revision), PEERS_AIR) {
                Ok(Inserted::News) => {
                    counter!(DOCUMENTS_ACCEPTED, "way" => "pull").increment(1);
                    changed.insert(key);
                }
                Ok(Inserted::Known) => {}
                Err(refusal) => {
                    refusal.count(1);
                    outcome = Err(refusal);
                }
            }
        }
        if !changed.is_empty() {
            let documents = self.save_or_remember(documents, changed).await;
            self.show(documents);
        }
        outcome
    }

    /// Checks everything again, after the roots or the revocations changed. What a root no longer vouches for counts as lost;
    /// what a revoked operator signed is gone.
    pub(crate) async fn recheck(&self) {
        let _turn = self.writing.lock().await;
        self.checker.forget_grants();
        let mut documents = Documents::clone(&self.documents.load());
        let verdict = |held: &Revision| self.checker.check_proof(&held.bytes, held.heard_at).err();
        let gone = documents.retain(|held| verdict(held).is_none());
        if gone.is_empty() {
            return;
        }
        for revision in &gone {
            let is_revoked = verdict(revision) == Some(Refusal::Revoked);
            tracing::warn!(
                document = %revision.key,
                revision = revision.revision,
                operator = %revision.operator,
                reason = if is_revoked { "revoked" } else { "untrusted" },
                "document dropped"
            );
            if !is_revoked && documents.newest_revision(&revision.key) < revision.revision {
                documents
                    .lost
                    .insert(revision.key.clone(), revision.revision);
            }
        }
        let changed = gone.iter().map(|revision| revision.key.clone()).collect();
        let documents = self.save_or_remember(documents, changed).await;
        self.show(documents);
    }

    /// Tries again to write what could not be written.
    pub(crate) async fn save_again(&self) {
        if self.unsaved().is_empty() {
            return;
        }
        let _turn = self.writing.lock().await;
        let documents = Documents::clone(&self.documents.load());
        self.save_or_remember(documents, BTreeSet::new()).await;
    }

    async fn save_or_remember(
        &self,
        documents: Documents,
        mut changed: BTreeSet<DocumentKey>,
    ) -> Documents {
        changed.extend(self.unsaved().iter().cloned());
        let keys = changed.iter().cloned().collect();
        match self.save(documents, keys).await {
            Ok(documents) => {
                self.unsaved().clear();
                documents
            }
            Err((documents, error)) => {
                tracing::error!(%error, "documents cannot be kept on disk; tried again");
                *self.unsaved() = changed;
                documents
            }
        }
    }

    /// Writes the files of `changed`. Hands the documents back in any case.
    async fn save(
        &self,
        documents: Documents,
        changed: Vec<DocumentKey>,
    ) -> Result<Documents, (Documents, io::Error)> {
        let Some(files) = self.files.clone() else {
            return Ok(documents);
        };
        let written = documents.clone();
        let saved = tokio::task::spawn_blocking(move || files.save(&written, &changed)).await;
        match saved.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(()) => Ok(documents),
            Err(error) => Err((documents, error)),
        }
    }

    fn show(&self, documents: Documents) {
        let before = self.documents.load();
        let documents = Documents {
            version: before.version,
            ..documents
        }
        .sealed();
        let live = documents.live();
        let forks = live
            .filter(|(_, document)| document.rival().is_some())
            .count();
        gauge!(DOCUMENTS).set(documents.live().count() as f64);
        gauge!(DOCUMENT_FORKS).set(forks as f64);
        gauge!(DOCUMENTS_LOST).set(documents.lost.len() as f64);
        let version = documents.version;
        self.documents.store(Arc::new(documents));
        self.changes.send_replace(version);
    }

    fn unsaved(&self) -> std::sync::MutexGuard<'_, BTreeSet<DocumentKey>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many times the limits of operators peers may fill.
const PEERS_AIR: usize = 2;
