//! Spreads documents: each manifest names the digest of what its node holds; who sees one that it cannot explain asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Core, pick};
use crate::carrier::{ANSWER_BYTES_MAX, Answer};
use crate::documents::{Documents, Receipt, SubmitError, digest};
use crate::metrics::Refusal;
use crate::names::NodeId;
use crate::wire::document::{Bodies, Listing};
use crate::wire::{Blob, HASHES_MAX, LENGTH_BYTES_MAX, Question, Row};

type Digest = [u8; 32];

/// What is known of others' sets.
#[derive(Debug, Default)]
pub(super) struct Syncs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Digests of sets that hold nothing for us, newest last.
    settled: VecDeque<Digest>,
    /// Sets being asked for: of how many peers, and since when of the last.
    under_way: BTreeMap<Digest, (usize, Instant)>,
    /// Peers that are left alone for a while, and how long it was last.
    shunned: BTreeMap<NodeId, (Instant, Duration)>,
    /// When to tell others that our own set changed.
    announce_at: Option<Instant>,
    recheck: bool,
}

/// A set that a peer says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    digest: Digest,
    node: NodeId,
    addr: SocketAddr,
}

impl Core {
    /// Takes a document from its operator, and has everybody told at once.
    pub(crate) async fn submit(&self, bytes: &[u8]) -> Result<Receipt, SubmitError> {
        let receipt = self.library.submit(bytes).await?;
        self.announce_documents();
        Ok(receipt)
    }

    /// Has all documents checked again.
    pub(crate) fn recheck_documents(&self) {
        self.syncs().recheck = true;
        self.registry.documents_due.notify_one();
    }

    /// Looks for sets that we cannot explain, and gets what we lack.
    pub(super) async fn keep_documents(self: Arc<Self>) {
        loop {
            let pause = self.documents_pause();
            let _ = timeout(pause, self.registry.documents_due.notified()).await;
            if std::mem::take(&mut self.syncs().recheck) {
                self.recheck_now().await;
            }
            self.library.save_again().await;
            for offer in self.choose_offers() {
                self.spawn(self.clone().follow_up(offer));
            }
            if self.take_announcement() {
                self.announce_documents();
            }
            // What comes within moments is seen together.
            sleep(GATHER_TIME).await;
        }
    }

    fn documents_pause(&self) -> Duration {
        let at = self.syncs().announce_at;
        let until = at.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        });
        until.min(self.settings.interval)
    }

    /// Whether it is time to announce our set.
    fn take_announcement(&self) -> bool {
        let mut syncs = self.syncs();
        let is_due = syncs.announce_at.is_some_and(|at| at <= Instant::now());
        if is_due {
            syncs.announce_at = None;
        }
        is_due
    }

    fn announce_documents(&self) {
        if let Err(error) = self.announce_again() {
            tracing::error!(%error, "the documents held are not announced");
        }
    }

    async fn recheck_now(&self) {
        let before = self.library.documents().version;
        self.library.recheck().await;
        {
            let mut syncs = self.syncs();
            syncs.settled.clear();
            syncs.shunned.clear();
        }
        if self.library.documents().version != before {
            self.announce_documents();
        }
    }

    /// Whom to ask now: one peer for each set that we cannot explain.
    fn choose_offers(&self) -> Vec<Offer> {
        let now = Instant::now();
        let ours = self.library.documents().digest();
        let offers = self.offers();
        let mut syncs = self.syncs();
        syncs
            .shunned
            .retain(|_, (until, last)| now < *until + *last);
        if let Some(ours) = ours {
            syncs.settle(ours);
        }
        let mut chosen = Vec::new();
        let mut room = SYNCS_MAX.saturating_sub(syncs.asked());
        for same in offers.chunk_by(|a, b| a.digest == b.digest) {
            let digest = same[0].digest;
            if room == 0 || syncs.settled.contains(&digest) || !syncs.may_ask(&digest, now) {
                continue;
            }
            let free: Vec<Offer> = same
                .iter()
                .filter(|offer| syncs.is_free(offer.node, now))
                .copied()
                .collect();
            if let [offer] = pick(&free, 1)[..] {
                syncs.begin(digest, now);
                chosen.push(offer);
                room -= 1;
            }
        }
        chosen
    }

    /// What others say they hold, by digest.
    fn offers(&self) -> Vec<Offer> {
        let table = self.registry.table();
        let others = table
            .entries
            .iter()
            .filter(|(node, entry)| **node != self.registry.own && entry.here());
        let mut offers: Vec<Offer> = others
            .filter_map(|(node, entry)| {
                Some(Offer {
                    digest: entry.manifest.docs?,
                    node: *node,
                    addr: entry.manifest.gossip_addr(),
                })
            })
            .collect();
        offers.sort_unstable();
        offers
    }

    /// Gets what a peer holds and we lack.
    async fn follow_up(self: Arc<Self>, offer: Offer) {
        let before = self.library.documents().version;
        let outcome = self.sync(offer).await;
        {
            let mut syncs = self.syncs();
            syncs.end(&offer.digest);
            match outcome {
                Ok(listed) => {
                    if let Some(listed) = listed {
                        syncs.settle(listed);
                    }
                    // What it announced was not what it lists: a newer manifest is on its way, or it lies.
                    if listed != Some(offer.digest) {
                        syncs.shun(offer.node, Instant::now());
                    }
                }
                Err(Failed) => syncs.shun(offer.node, Instant::now()),
            }
            if self.library.documents().version != before {
                let spread = self.members_alive() as u32 * ANNOUNCE_SPREAD;
                let at = Instant::now() + spread.mul_f64(fastrand::f64());
                syncs.announce_at = Some(syncs.announce_at.map_or(at, |due| due.min(at)));
            }
        }
        self.registry.documents_due.notify_one();
    }

    /// Returns the digest of what the peer listed, once all of it that has a place with us is there.
    async fn sync(&self, offer: Offer) -> Result<Option<Digest>, Failed> {
        let (listed, mut wanted) = self.list(offer.addr).await?;
        while !wanted.is_empty() {
            let asked: Vec<Digest> = wanted.iter().take(HASHES_MAX).copied().collect();
            let question = Question::Bodies { hashes: asked };
            let answer = self
                .ask(offer.addr, &question, ANSWER_BYTES_MAX, BODIES_TIME)
                .await
                .ok_or(Failed)?;
            let left = wanted.len();
            self.take_bodies(&answer, &mut wanted).await?;
            if wanted.len() == left {
                return Err(Failed);
            }
        }
        Ok(listed)
    }

    /// Asks what a peer holds; returns its digest, and what of it we lack.
    async fn list(&self, addr: SocketAddr) -> Result<(Option<Digest>, BTreeSet<Digest>), Failed> {
        let documents = self.library.documents();
        let mut hashes = Vec::new();
        let mut wanted = BTreeSet::new();
        loop {
            let after = hashes.last().copied();
            let answer = self
                .ask(
                    addr,
                    &Question::Listing { after },
                    ANSWER_BYTES_MAX,
                    LIST_TIME,
                )
                .await
                .ok_or(Failed)?;
            let listing = Listing::decode(&answer.bytes).map_err(Failed::counted)?;
            let in_order = listing
                .rows
                .first()
                .is_none_or(|row| after < Some(row.hash));
            let last_page = !listing.more;
            if !in_order || (!last_page && listing.rows.is_empty()) {
                return Err(Failed::counted(Refusal::Malformed));
            }
            for row in listing.rows {
                hashes.push(row.hash);
                if lacks(&documents, &row)? {
                    wanted.insert(row.hash);
                }
            }
            if hashes.len() > ROWS_MAX {
                return Err(Failed::counted(Refusal::TooMany));
            }
            if last_page {
                return Ok((digest(hashes.iter()), wanted));
            }
        }
    }

    /// Takes in documents that were asked for. Anything wrong with one ends it, after what was right before is taken.
    async fn take_bodies(
        &self,
        answer: &Answer,
        wanted: &mut BTreeSet<Digest>,
    ) -> Result<(), Failed> {
        let bodies = Bodies::decode(&answer.bytes).map_err(Failed::counted)?;
        let mut revisions = Vec::new();
        let mut outcome = Ok(());
        for Blob(bytes) in bodies.documents {
            let checked = self
                .guard
                .charge_document(&answer.peer)
                .and_then(|()| self.library.checker.check(&bytes))
                .and_then(|revision| {
                    let was_wanted = wanted.remove(&revision.hash);
                    was_wanted.then_some(revision).ok_or(Refusal::Unasked)
                });
            match checked {
                Ok(revision) => revisions.push(revision),
                Err(refusal) => {
                    outcome = Err(Failed::counted(refusal));
                    break;
                }
            }
        }
        self.library
            .take(revisions)
            .await
            .map_err(|_counted| Failed)?;
        outcome
    }

    /// A page of what we hold.
    pub(super) fn listing(&self, after: Option<Digest>) -> Listing {
        let documents = self.library.documents();
        let mut listing = Listing::default();
        let mut bytes = PAGE_HEADER_BYTES;
        for held in documents.behind(after) {
            let row = Row {
                kind: held.key.kind.to_string(),
                name: held.key.name.to_string(),
                revision: held.revision,
                hash: held.hash,
            };
            bytes += row.wire_bytes();
            if bytes > ANSWER_BYTES_MAX {
                listing.more = true;
                break;
            }
            listing.rows.push(row);
        }
        listing
    }

    /// Of the documents asked for those that we have, as many as fit.
    pub(super) fn bodies(&self, hashes: &[Digest]) -> Bodies {
        let documents = self.library.documents();
        let mut left = ANSWER_BYTES_MAX - PAGE_HEADER_BYTES;
        let found = hashes.iter().filter_map(|hash| documents.find(hash));
        let fitting = found.map_while(|held| {
            left = left.checked_sub(held.bytes.len() + LENGTH_BYTES_MAX)?;
            Some(Blob(held.bytes.to_vec()))
        });
        Bodies {
            documents: fitting.collect(),
        }
    }

    fn syncs(&self) -> MutexGuard<'_, State> {
        self.syncs.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self, digest: Digest) {
        if self.settled.contains(&digest) {
            return;
        }
        if self.settled.len() >= SETTLED_MAX {
            self.settled.pop_front();
        }
        self.settled.push_back(digest);
    }

    /// Whether to ask another peer for a set: nobody is being asked, or they take their time.
    fn may_ask(&self, digest: &Digest, now: Instant) -> bool {
        self.under_way
            .get(digest)
            .is_none_or(|(count, since)| *count < HEDGES_MAX && *since + HEDGE_TIME <= now)
    }

    fn begin(&mut self, digest: Digest, now: Instant) {
        let (count, since) = self.under_way.entry(digest).or_insert((0, now));
        *count += 1;
        *since = now;
    }

    fn end(&mut self, digest: &Digest) {
        if let Some((count, _)) = self.under_way.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(digest);
            }
        }
    }

    fn asked(&self) -> usize {
        self.under_way.values().map(|(count, _)| count).sum()
    }

    fn is_free(&self, node: NodeId, now: Instant) -> bool {
        self.shunned
            .get(&node)
            .is_none_or(|(until, _)| *until <= now)
    }

    /// Leaves a peer alone, for longer each time until it was quiet for as long.
    fn shun(&mut self, node: NodeId, now: Instant) {
        let last = self.shunned.get(&node).map(|(_, last)| *last);
        let pause = last.map_or(SHUN_MIN, |last| (2 * last).min(SHUN_MAX));
        let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.shunned.insert(node, (now + pause, pause));
    }
}

/// The peer could not be asked, or what it said did not hold; that is counted already.
#[derive(Debug, Clone, Copy)]
struct Failed;

impl Failed {
    fn counted(refusal: Refusal) -> Self {
        refusal.count(1);
        Self
    }
}

fn lacks(documents: &Documents, row: &Row) -> Result<bool, Failed> {
    let key = row
        .key()
        .ok_or_else(|| Failed::counted(Refusal::Malformed))?;
    Ok(documents.lacks(&key, row.revision, &row.hash))
}

/// Peers asked at once.
const SYNCS_MAX: usize = 8;

/// Peers asked at once for one set.
const HEDGES_MAX: usize = 4;

/// When a peer takes longer another one is asked too, so that one that stands still holds nobody up.
const HEDGE_TIME: Duration = Duration::from_millis(750);

/// Sets remembered to hold nothing for us: as many as a full cell has at once, and those before. At the limit the oldest is
/// forgotten and costs one more question.
const SETTLED_MAX: usize = 1024;

/// Rows of one listing: all documents a peer may hold, with five revisions and a rival of each.
const ROWS_MAX: usize = 2048 * 10;

/// Time in which changes are looked at together.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// How far apart nodes announce that they took a document over, each: whoever brought it has told everybody, so this only has
/// to give others more sources, and a cell must not be flooded with as many manifests as it has nodes.
const ANNOUNCE_SPREAD: Duration = Duration::from_millis(20);

const SHUN_MIN: Duration = Duration::from_millis(200);
const SHUN_MAX: Duration = Duration::from_secs(30);
const LIST_TIME: Duration = Duration::from_secs(3);
const BODIES_TIME: Duration = Duration::from_secs(5);
const PAGE_HEADER_BYTES: usize = 64;
