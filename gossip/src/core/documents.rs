//! Spreads documents: each manifest names the digest of what its node holds; a node that sees one that it cannot explain asks, room
//! by room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Core, pick};
use crate::carrier::{ANSWER_BYTES_MAX, Answer};
use crate::documents::system::{OPERATOR_REVOCATION, RETENTION, ROOT_RETENTION, ROOT_REVOCATION};
use crate::documents::{
    DocumentKey, Documents, Receipt, Revision, SubmitError, digest, rooms_digest,
};
use crate::metrics::Refusal;
use crate::names::NodeId;
use crate::wire::document::{Bodies, Listing, Parts, Rooms};
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
    /// The documents by which `settled` was found.
    judged: Option<Arc<Documents>>,
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
        let documents = self.library.documents();
        let ours = documents.digest();
        let offers = self.offers();
        let mut syncs = self.syncs();
        // What held nothing for us may hold something now.
        if syncs
            .judged
            .as_ref()
            .is_none_or(|judged| !judged.judges_like(&documents))
        {
            syncs.settled.clear();
        }
        syncs.judged = Some(documents);
        syncs
            .shunned
            .retain(|_, (until, last)| now < *until + *last);
        if let Some(ours) = ours {
            syncs.settle(ours);
        }
        let mut candidates = Vec::new();
        for same in offers.chunk_by(|a, b| a.digest == b.digest) {
            let digest = same[0].digest;
            if syncs.settled.contains(&digest) || !syncs.may_ask(&digest, now) {
                continue;
            }
            let free = same.iter().filter(|offer| syncs.is_free(offer.node, now));
            let (well, failed): (Vec<Offer>, Vec<Offer>) =
                free.partition(|offer| !syncs.shunned.contains_key(&offer.node));
            let has_failed = well.is_empty();
            if let [offer] = pick(if has_failed { &failed } else { &well }, 1)[..] {
                candidates.push((has_failed, fastrand::u64(..), offer));
            }
        }
        // Peers that failed before come last, or a few that list what they do not hand out would keep all others waiting.
        candidates.sort_by_key(|(has_failed, turn, _)| (*has_failed, *turn));
        candidates.truncate(SYNCS_MAX.saturating_sub(syncs.asked()));
        let chosen = candidates.into_iter().map(|(_, _, offer)| offer);
        chosen
            .inspect(|offer| syncs.begin(offer.digest, now))
            .collect()
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
        let answer = self
            .question(offer.addr, &Question::Rooms, LIST_TIME)
            .await?;
        let rooms = Rooms::decode(&answer.bytes).map_err(Failed::counted)?.rooms;
        let named = rooms.iter().map(|(room, digest)| (room.as_str(), digest));
        let listed = rooms_digest(named);
        let mut differing: Vec<_> = rooms
            .into_iter()
            .filter(|room| !self.library.documents().rooms().contains(room))
            .collect();
        differing.sort_by_key(|(room, _)| urgency(room));
        for (room, digest) in differing {
            if room.is_empty() {
                self.sync_deletions(offer.addr).await?;
            } else {
                self.sync_room(offer.addr, &room, None, digest).await?;
            }
        }
        Ok(listed)
    }

    /// Gets the deletions that we lack, part by part.
    async fn sync_deletions(&self, addr: SocketAddr) -> Result<(), Failed> {
        let answer = self.question(addr, &Question::Parts, LIST_TIME).await?;
        let parts = Parts::decode(&answer.bytes).map_err(Failed::counted)?.parts;
        let ours = self.library.documents().parts();
        for (part, digest) in parts {
            if !ours.contains(&(part, digest)) {
                self.sync_room(addr, "", Some(part), digest).await?;
            }
        }
        Ok(())
    }

    /// Gets what we lack of one room. All of it is taken in at once: a grant and the denial beside it come in force together.
    async fn sync_room(
        &self,
        addr: SocketAddr,
        room: &str,
        part: Option<u8>,
        expected: Digest,
    ) -> Result<(), Failed> {
        let listed = self.list(addr, room, part, expected).await?;
        let mut wanted = self.library.wants(&listed).await;
        let mut taken = Vec::new();
        let mut outcome = Ok(());
        while !wanted.is_empty() {
            let packets: BTreeSet<Digest> = wanted.values().map(|row| row.packet).collect();
            let hashes = packets.into_iter().take(HASHES_MAX).collect();
            let question = Question::Bodies { hashes };
            let left = wanted.len();
            outcome = match self.question(addr, &question, BODIES_TIME).await {
                Ok(answer) => self.take_bodies(&answer, &mut wanted, &mut taken),
                Err(failed) => Err(failed),
            };
            if outcome.is_ok() && wanted.len() == left {
                outcome = Err(Failed);
            }
            if outcome.is_err() {
                break;
            }
        }
        // Anything wrong with one ends it, after what was right before is taken.
        self.library.take(taken).await;
        outcome
    }

    async fn question(
        &self,
        addr: SocketAddr,
        question: &Question,
        time: Duration,
    ) -> Result<Answer, Failed> {
        let answer = self.ask(addr, question, ANSWER_BYTES_MAX, time).await;
        answer.ok_or(Failed)
    }

    /// Asks what a peer holds in a room.
    async fn list(
        &self,
        addr: SocketAddr,
        room: &str,
        part: Option<u8>,
        expected: Digest,
    ) -> Result<Vec<(DocumentKey, Row)>, Failed> {
        let mut rows: Vec<(DocumentKey, Row)> = Vec::new();
        loop {
            let after = rows.last().map(|(_, row)| row.hash);
            let question = Question::Listing {
                room: room.to_owned(),
                part,
                after,
            };
            let answer = self.question(addr, &question, LIST_TIME).await?;
            let listing = Listing::decode(&answer.bytes).map_err(Failed::counted)?;
            let first = listing.rows.first();
            let in_order = first.is_none_or(|row| after < Some(row.hash));
            let last_page = !listing.more;
            if !in_order || (!last_page && listing.rows.is_empty()) {
                return Err(Failed::counted(Refusal::Malformed));
            }
            for row in listing.rows {
                let key = row.key().filter(|key| match room {
                    "" => row.deleted,
                    kind => !row.deleted && key.kind.as_str() == kind,
                });
                let key = key.ok_or_else(|| Failed::counted(Refusal::Malformed))?;
                rows.push((key, row));
            }
            if rows.len() > ROWS_MAX {
                return Err(Failed::counted(Refusal::TooMany));
            }
            if last_page {
                break;
            }
        }
        // What it listed is not what it said: it changed meanwhile, or it lies.
        let is_same = digest(rows.iter().map(|(_, row)| &row.hash)) == Some(expected);
        if is_same { Ok(rows) } else { Err(Failed) }
    }

    /// Checks packets that were asked for. Every row has to be what was listed.
    fn take_bodies(
        &self,
        answer: &Answer,
        wanted: &mut BTreeMap<Digest, Row>,
        taken: &mut Vec<Arc<Revision>>,
    ) -> Result<(), Failed> {
        let bodies = Bodies::decode(&answer.bytes).map_err(Failed::counted)?;
        for Blob(bytes) in bodies.documents {
            let charged = self.guard.charge_document(&answer.peer);
            let checked = charged.and_then(|()| self.library.checker.check(&bytes));
            let revisions = checked.map_err(Failed::counted)?;
            let before = taken.len();
            for revision in revisions {
                match wanted.remove(&revision.hash) {
                    Some(row) if row == revision.row() => taken.push(revision),
                    Some(_other) => return Err(Failed::counted(Refusal::Malformed)),
                    None => {}
                }
            }
            if taken.len() == before {
                return Err(Failed::counted(Refusal::Unasked));
            }
        }
        Ok(())
    }

    /// What we hold, room by room.
    pub(super) fn rooms(&self) -> Rooms {
        Rooms {
            rooms: self.library.documents().rooms(),
        }
    }

    /// The deletions we hold, part by part.
    pub(super) fn parts(&self) -> Parts {
        Parts {
            parts: self.library.documents().parts(),
        }
    }

    /// A page of what we hold in a room.
    pub(super) fn listing(&self, room: &str, part: Option<u8>, after: Option<Digest>) -> Listing {
        let documents = self.library.documents();
        let mut listing = Listing::default();
        let mut bytes = PAGE_HEADER_BYTES;
        for held in documents.behind(room, part, after) {
            let row = held.row();
            bytes += row.wire_bytes();
            if bytes > ANSWER_BYTES_MAX {
                listing.more = true;
                break;
            }
            listing.rows.push(row);
        }
        listing
    }

    /// Of the packets asked for those that we have, as many as fit.
    pub(super) fn bodies(&self, hashes: &[Digest]) -> Bodies {
        let documents = self.library.documents();
        let mut left = ANSWER_BYTES_MAX - PAGE_HEADER_BYTES;
        let found = hashes.iter().filter_map(|hash| documents.find_packet(hash));
        let fitting = found.map_while(|held| {
            left = left.checked_sub(held.packet.bytes.len() + LENGTH_BYTES_MAX)?;
            Some(Blob(held.packet.bytes.to_vec()))
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

/// The order in which rooms are asked for: first what says whose word counts, the lists of what stays before the revocations; then
/// who is thrown out, and what is deleted; and only then what may allow something.
fn urgency(room: &str) -> usize {
    let order = [
        ROOT_RETENTION,
        RETENTION,
        ROOT_REVOCATION,
        OPERATOR_REVOCATION,
        "revocation",
        "",
    ];
    order
        .iter()
        .position(|first| *first == room)
        .unwrap_or(order.len())
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

/// Rows of one listing: of 64 keys, four times what may fill a room, as many as four shares hold. They take 300 bytes each until they
/// are judged, so eight members who list as many of nothing cost 314 MB for moments, and are left alone for longer each time.
const ROWS_MAX: usize = 64 * 2_048;

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
