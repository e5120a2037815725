//! The documents a node holds: taken in, kept on disk, then shown.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{counter, gauge};
use tokio::sync::watch;

use super::files::{Loaded, Unsaved};
use super::system::Statement;
use super::{Checker, Documents, Files, Receipt, Revision, SubmitError};
use crate::metrics::{
    DOCUMENT_FORKS, DOCUMENTS, DOCUMENTS_ACCEPTED, DOCUMENTS_LOST, DOCUMENTS_UNSAVED, Refusal,
};
use crate::proof::Verifier;
use crate::settings::Settings;
use crate::wire::Row;

/// One writer at a time changes the set; readers have snapshots.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) checker: Checker,
    files: Option<Files>,
    documents: ArcSwap<Documents>,
    changes: watch::Sender<u64>,
    writing: tokio::sync::Mutex<()>,
    /// Set while something could not be written.
    unsaved: ArcSwapOption<Unsaved>,
    /// Whether there is nothing to write, and the journal is ready.
    is_settled: AtomicBool,
}

impl Library {
    /// Reads what is on disk.
    pub(crate) fn open(settings: &Settings, verifier: Arc<dyn Verifier>) -> io::Result<Self> {
        let checker = Checker::new(settings, verifier);
        let files = settings.documents_dir.as_deref().map(Files::new);
        let Loaded {
            revisions,
            lost,
            has_journal,
        } = match &files {
            Some(files) => files.load(&checker)?,
            None => Loaded::default(),
        };
        // What it names is in the index before it is touched.
        let is_ready = !has_journal && files.as_ref().is_none_or(|files| prepare(files).is_ok());
        let library = Self {
            checker,
            files,
            documents: ArcSwap::default(),
            changes: watch::Sender::new(0),
            writing: tokio::sync::Mutex::default(),
            unsaved: ArcSwapOption::empty(),
            is_settled: AtomicBool::new(is_ready),
        };
        let over = std::collections::BTreeSet::new();
        library.show(Documents::build(revisions.into_iter(), lost, over));
        Ok(library)
    }

    pub(crate) fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes a packet from its operator. It is on disk before it is anywhere else.
    pub(crate) async fn submit(&self, bytes: &[u8]) -> Result<Receipt, SubmitError> {
        let revisions = self.checker.check_new(bytes);
        let revisions = revisions.map_err(SubmitError::Refused)?;
        let Some(first) = revisions.first() else {
            return Err(SubmitError::Refused(Refusal::Malformed));
        };
        let receipt = Receipt {
            key: first.key.clone(),
            revision: first.revision,
            hash: first.hash,
            rows: revisions.len(),
            is_news: true,
        };
        let _turn = self.writing.lock().await;
        let documents = self.documents.load_full();
        // What counts, or what a list names, may be handed over twice; an older revision is refused.
        let is_held = |new: &Arc<Revision>| {
            let is_newest = new.revision == documents.newest_revision(&new.key);
            documents.find(&new.hash).is_some() && (is_newest || is_listed(&documents, new))
        };
        if revisions.iter().all(is_held) {
            return Ok(Receipt {
                is_news: false,
                ..receipt
            });
        }
        check_submitted(&documents, &revisions)?;
        let count = revisions.len();
        let (documents, news) = documents.with(revisions);
        if news.len() < count {
            return Err(SubmitError::Refused(Refusal::Full));
        }
        let documents = self.save(documents).await;
        let documents = documents.map_err(|(_, error)| SubmitError::Keep(error))?;
        counter!(DOCUMENTS_ACCEPTED, "way" => "submit").increment(count as u64);
        self.show(documents);
        Ok(receipt)
    }

    /// Which packets to ask a peer for, of what it lists; by the hash of each revision wanted. Notes of which keys it offers more than
    /// there is room for.
    pub(crate) async fn wants(
        &self,
        listed: &[(super::DocumentKey, Row)],
    ) -> BTreeMap<[u8; 32], Row> {
        let _turn = self.writing.lock().await;
        let mut documents = Documents::clone(&self.documents.load());
        let before = documents.over.len();
        let wanted = documents.wants(listed);
        if documents.over.len() > before {
            Refusal::Full.count(1);
            self.show(documents.with(Vec::new()).0);
        }
        let rows = listed
            .iter()
            .filter(|(_, row)| wanted.contains_key(&row.hash));
        rows.map(|(_, row)| (row.hash, row.clone())).collect()
    }

    /// Takes in what a peer had, as far as there is room. If the disk fails it is shown nevertheless: the others have it in force
    /// too.
    pub(crate) async fn take(&self, mut revisions: Vec<Arc<Revision>>) {
        let _turn = self.writing.lock().await;
        let mut documents = Documents::clone(&self.documents.load());
        // Another peer may have brought the same meanwhile.
        let rows: Vec<_> = revisions
            .iter()
            .map(|held| (held.key.clone(), held.row()))
            .collect();
        let over = documents.over.len();
        let wanted = documents.wants(&rows);
        let is_over = documents.over.len() > over;
        if is_over {
            Refusal::Full.count(1);
        }
        revisions.retain(|revision| wanted.contains_key(&revision.hash));
        let (documents, news) = documents.with(revisions);
        if news.is_empty() && !is_over {
            return;
        }
        counter!(DOCUMENTS_ACCEPTED, "way" => "pull").increment(news.len() as u64);
        let documents = self.save_or_note(documents).await;
        self.show(documents);
    }

    /// Checks everything again, after the roots changed. What no root vouches for any more counts as lost.
    pub(crate) async fn recheck(&self) {
        let _turn = self.writing.lock().await;
        self.checker.forget_grants();
        let documents = self.documents.load_full();
        // Once for each packet, however many revisions it holds: each check reads all of them.
        let mut packets: BTreeMap<[u8; 32], bool> = BTreeMap::new();
        let is_good = |held: &&Arc<Revision>| {
            let check = || {
                let checked = self.checker.check_proof(&held.packet.bytes, held.heard_at);
                checked.is_ok()
            };
            *packets.entry(held.packet.hash).or_insert_with(check)
        };
        let (good, gone): (Vec<_>, Vec<_>) = documents.all().partition(is_good);
        if gone.is_empty() {
            return;
        }
        let mut lost = documents.lost_files.clone();
        for revision in gone {
            tracing::warn!(
                document = %revision.key,
                revision = revision.revision,
                operator = %revision.operator(),
                reason = "untrusted",
                "document dropped"
            );
            lost.insert(revision.hash, (revision.key.clone(), revision.revision));
        }
        let good = good.into_iter().cloned();
        let documents = Documents::build(good, lost, documents.over.clone());
        let documents = self.save_or_note(documents).await;
        self.show(documents);
    }

    /// Tries again to write what could not be written, and to allocate the journal.
    pub(crate) async fn save_again(&self) {
        if self.is_settled.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.writing.lock().await;
        let before = self.unsaved.load_full();
        let documents = Documents::clone(&self.documents.load());
        let documents = self.save_or_note(documents).await;
        if self.unsaved.load_full() != before {
            self.show(documents);
        }
    }

    /// Writes `documents`, or else notes in the journal what could not be written.
    async fn save_or_note(&self, documents: Documents) -> Documents {
        let Some(files) = self.files.clone() else {
            return documents;
        };
        let (documents, error) = match self.save(documents).await {
            Ok(documents) => {
                let is_ready = blocking(move || prepare(&files)).await.is_ok();
                self.is_settled.store(is_ready, Ordering::Relaxed);
                self.unsaved.store(None);
                return documents;
            }
            Err(failed) => failed,
        };
        let noted = documents.clone();
        let noted = blocking(move || Ok(files.note(&noted, &error))).await;
        let unsaved = noted.unwrap_or_else(|error| Unsaved {
            count: documents.live().count(),
            unnoted: documents.live().count(),
            error: error.to_string(),
        });
        tracing::error!(
            error = unsaved.error,
            documents = unsaved.count,
            unnoted = unsaved.unnoted,
            "documents in force cannot be written to disk; tried again"
        );
        self.is_settled.store(false, Ordering::Relaxed);
        self.unsaved.store(Some(Arc::new(unsaved)));
        documents
    }

    /// Brings the files to `documents`. Hands the documents back in any case.
    async fn save(&self, documents: Documents) -> Result<Documents, (Documents, io::Error)> {
        let Some(files) = self.files.clone() else {
            return Ok(documents);
        };
        let written = documents.clone();
        match blocking(move || files.save(&written)).await {
            Ok(()) => Ok(documents),
            Err(error) => Err((documents, error)),
        }
    }

    fn show(&self, documents: Documents) {
        let before = self.documents.load();
        let documents = Documents {
            version: before.version + 1,
            unsaved: self.unsaved.load_full(),
            ..documents
        };
        let live = documents.live();
        let forks = live
            .filter(|(_, document)| document.rival().is_some())
            .count();
        gauge!(DOCUMENTS).set(documents.live().count() as f64);
        gauge!(DOCUMENT_FORKS).set(forks as f64);
        gauge!(DOCUMENTS_LOST).set(documents.lost.len() as f64);
        let unsaved = documents.unsaved.as_ref();
        gauge!(DOCUMENTS_UNSAVED).set(unsaved.map_or(0, |unsaved| unsaved.count) as f64);
        let version = documents.version;
        self.documents.store(Arc::new(documents));
        self.changes.send_replace(version);
    }
}

fn prepare(files: &Files) -> io::Result<()> {
    let prepared = files.prepare();
    prepared.inspect_err(|error| {
        tracing::warn!(%error, "failed to allocate the journal of documents; tried again");
    })
}

/// Does what waits for a disk on a thread of its own. A panic there is an error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Whether a list says that a revision stays.
fn is_listed(documents: &Documents, revision: &Revision) -> bool {
    documents.operators.mark(&revision.hash) == Some(super::operators::Mark::Keep)
}

/// Whether what an operator hands over may be taken: its number is the next one, its key is not revoked and may say it, and there
/// is room. What a list names is taken in any case: it is lost here.
fn check_submitted(documents: &Documents, revisions: &[Arc<Revision>]) -> Result<(), SubmitError> {
    let operators = &documents.operators;
    if revisions
        .iter()
        .all(|revision| is_listed(documents, revision))
    {
        return Ok(());
    }
    for revision in revisions {
        let signer = &revision.signer;
        if !signer.is_root() && operators.is_revoked(&signer.key_hash, signer.rank) {
            return Err(SubmitError::Refused(Refusal::Revoked));
        }
        let newest = documents.newest_revision(&revision.key);
        // The root may be where no agent tells it the newest number.
        let is_next = match signer.is_root() {
            true => revision.revision > newest,
            false => revision.revision == newest + 1,
        };
        if !is_next {
            return Err(SubmitError::Stale {
                key: revision.key.clone(),
                newest,
            });
        }
        if let Some(Statement::Revokes(revoked)) = &revision.statement
            && !signer.is_root()
            && revoked.key != signer.key_hash
            && let Some(known) = operators.known().get(&revoked.key)
            && known.rank <= signer.rank
        {
            return Err(SubmitError::Refused(Refusal::Rank));
        }
    }
    documents
        .check_room(revisions)
        .map_err(SubmitError::Refused)
}
