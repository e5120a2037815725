//! Which revisions are kept, which are offered to others, and which have an effect. Pure, and the same whatever order they come
//! in, so that nodes that heard the same hold the same.
//!
//! Of each document the newest revision of every key that signed it is kept, and of the older ones those under the five highest
//! numbers, two under each, as far as their key's share has room; the oldest go first. A deletion leaves no history of its key.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::operators::{Mark, Operators};
use super::revision::ROOT_KEY;
use super::rooms::{Fill, Fills, PEERS_SHARES, Room};
use super::system::is_system;
use super::{Document, DocumentKey, Documents, HISTORY_MAX, Revision};
use crate::metrics::Refusal;
use crate::wire::Row;

/// What becomes of a revision for the sake of who signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its key is not revoked, or it is of a kind that says whose word counts.
    Counts,
    /// Its key is revoked; a list says that it stays, as a narrowing.
    Kept,
    /// Its key is revoked, and no list names it. What it denies stays denied here; it is not offered to others.
    Unlisted,
    /// Its key is revoked, and a list says that it goes.
    Dropped,
}

/// Revisions with what decides about them, by hash.
pub(crate) type Rows = BTreeMap<[u8; 32], (DocumentKey, Row)>;

/// Which of `rows` are kept.
pub(crate) struct Selection {
    pub(crate) kept: BTreeSet<[u8; 32]>,
    pub(crate) fills: Fills,
}

impl Documents {
    /// Makes the set of `revisions`; what has no place in it is left out.
    pub(crate) fn build(
        revisions: impl Iterator<Item = Arc<Revision>>,
        lost_files: BTreeMap<[u8; 32], (DocumentKey, u64)>,
        over: BTreeSet<(Room, [u8; 32])>,
    ) -> Self {
        let all: BTreeMap<[u8; 32], Arc<Revision>> =
            revisions.map(|held| (held.hash, held)).collect();
        let operators = Operators::of(all.values());
        let rows = rows(all.values());
        let selection = select(&rows, &operators);
        let mut documents = Self {
            by_hash: all,
            operators,
            fills: selection.fills,
            over,
            lost_files,
            ..Self::default()
        };
        let fills = &documents.fills;
        documents
            .over
            .retain(|(room, key)| fills.is_nearly_full(room, key));
        documents
            .by_hash
            .retain(|hash, _| selection.kept.contains(hash));
        documents.arrange();
        documents
    }

    /// The same with more revisions, those that have a place; says which of them are news.
    pub(crate) fn with(&self, more: Vec<Arc<Revision>>) -> (Self, BTreeSet<[u8; 32]>) {
        let before = &self.by_hash;
        let all = before.values().cloned().chain(more);
        let next = Self::build(all, self.lost_files.clone(), self.over.clone());
        let news = next
            .by_hash
            .keys()
            .filter(|hash| !before.contains_key(*hash));
        let news = news.copied().collect();
        (next, news)
    }

    /// What becomes of a revision for the sake of who signed it.
    pub fn standing(&self, revision: &Revision) -> Standing {
        standing_of(&self.operators, revision)
    }

    /// Of what a peer lists, the packets with what we have a place for, by the hash of each revision wanted. What a key's share has
    /// no room for is left, and the key is remembered.
    pub(crate) fn wants(&mut self, listed: &[(DocumentKey, Row)]) -> BTreeMap<[u8; 32], [u8; 32]> {
        let is_news = |row: &Row| !self.by_hash.contains_key(&row.hash);
        let mut news: Vec<_> = listed.iter().filter(|(_, row)| is_news(row)).collect();
        news.retain(|(key, row)| {
            !matches!(
                standing(&self.operators, key, row),
                Standing::Unlisted | Standing::Dropped
            )
        });
        if news.is_empty() {
            return BTreeMap::new();
        }
        // The same order on all nodes; what is longer than what it replaces has to fit.
        news.sort_by_key(|(_, row)| (row.issued, row.hash));
        let mut candidates = rows(self.by_hash.values());
        for (key, row) in &news {
            candidates.insert(row.hash, (key.clone(), row.clone()));
        }
        let kept = select(&candidates, &self.operators).kept;
        let mut fills = self.fills.clone();
        let mut wanted = BTreeMap::new();
        for (key, row) in news.into_iter().filter(|(_, row)| kept.contains(&row.hash)) {
            if self.takes(&mut fills, key, row, PEERS_SHARES) {
                wanted.insert(row.hash, row.packet);
            } else {
                self.over.insert((Room::of(row.deleted, key), row.signer));
            }
        }
        wanted
    }

    /// Whether a revision that is to be the newest of its key has room, and counts it. One that is no longer than what it replaces
    /// always has, and so has one that is not the newest: it only gets what is left over.
    fn takes(&self, fills: &mut Fills, key: &DocumentKey, row: &Row, shares: usize) -> bool {
        let held = self.of_key(key, &row.signer);
        if held.is_some_and(|held| held.revision > row.revision) {
            return true;
        }
        let room = Room::of(row.deleted, key);
        let replaced = held.map(|held| (Room::of(held.deleted, key), held.packet.bytes.len()));
        let is_no_longer =
            replaced.is_some_and(|(of, bytes)| of == room && row.packet_bytes as usize <= bytes);
        if !is_no_longer && !fills.fits(&room, row, shares) {
            return false;
        }
        fills.add(&room, row);
        true
    }

    /// Checks that revisions that an operator hands over have room in one share of its key.
    pub(crate) fn check_room(&self, revisions: &[Arc<Revision>]) -> Result<(), Refusal> {
        // What is replaced makes room.
        let replaced = |held: &Revision| {
            let same = |new: &Arc<Revision>| {
                new.key == held.key && new.signer.key_hash == held.signer.key_hash
            };
            revisions.iter().any(same)
        };
        let mut fills = Fills::default();
        for (key, row) in self.newest_of_keys() {
            if !self.find(&row.hash).is_some_and(|held| replaced(held)) {
                fills.add(&Room::of(row.deleted, &key), &row);
            }
        }
        for revision in revisions {
            if !self.takes(&mut fills, &revision.key, &revision.row(), 1) {
                return Err(Refusal::Full);
            }
        }
        Ok(())
    }

    /// The newest revision of a document that a key signed.
    pub(crate) fn of_key(&self, key: &DocumentKey, signer: &[u8; 32]) -> Option<&Arc<Revision>> {
        let document = self.entries.get(key)?;
        let mut revisions = document.revisions.iter();
        revisions.find(|held| held.signer.key_hash == *signer)
    }

    fn newest_of_keys(&self) -> Vec<(DocumentKey, Row)> {
        let mut newest = Vec::new();
        for (key, document) in &self.entries {
            let mut signers = BTreeSet::new();
            for held in &document.revisions {
                if signers.insert(held.signer.key_hash) {
                    newest.push((key.clone(), held.row()));
                }
            }
        }
        newest
    }

    /// Everything offered to others in a room, in order of hash, behind `after`.
    pub(crate) fn behind(
        &self,
        room: &str,
        part: Option<u8>,
        after: Option<[u8; 32]>,
    ) -> impl Iterator<Item = &Arc<Revision>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let first = part.map_or(Unbounded, |part| {
            let mut first = [0; 32];
            first[0] = part;
            Included(first)
        });
        let from = after.map_or(first, Excluded);
        let rows = self.offered.get(room).into_iter();
        let rows = rows.flat_map(move |rows| rows.range((from, Unbounded)));
        rows.take_while(move |hash| part.is_none_or(|part| hash[0] == part))
            .filter_map(|hash| self.by_hash.get(hash))
    }

    /// What tells each room from others, in order of name.
    pub(crate) fn rooms(&self) -> Vec<(String, [u8; 32])> {
        self.digests
            .iter()
            .map(|(room, digest)| (room.clone(), *digest))
            .collect()
    }

    /// What tells each part of the deletions from others, in order.
    pub(crate) fn parts(&self) -> Vec<(u8, [u8; 32])> {
        let deletions = self.offered.get("");
        let mut parts: BTreeMap<u8, Vec<&[u8; 32]>> = BTreeMap::new();
        for hash in deletions.into_iter().flatten() {
            parts.entry(hash[0]).or_default().push(hash);
        }
        let digest = |hashes: Vec<&[u8; 32]>| digest(hashes.into_iter());
        parts
            .into_iter()
            .filter_map(|(part, hashes)| Some((part, digest(hashes)?)))
            .collect()
    }

    /// The revision of this hash.
    pub(crate) fn find(&self, hash: &[u8; 32]) -> Option<&Arc<Revision>> {
        self.by_hash.get(hash)
    }

    /// The packet of this hash.
    pub(crate) fn find_packet(&self, hash: &[u8; 32]) -> Option<&Arc<Revision>> {
        self.by_hash.get(self.packets.get(hash)?)
    }

    /// All revisions held, those that are only kept included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.by_hash.values()
    }

    /// Derives from `by_hash` and `operators` everything else.
    fn arrange(&mut self) {
        for revision in self.by_hash.values() {
            let document = self.entries.entry(revision.key.clone());
            let document = document.or_insert_with(|| Arc::new(Document::default()));
            Arc::make_mut(document).revisions.push(revision.clone());
            self.packets.insert(revision.packet.hash, revision.hash);
        }
        let operators = &self.operators;
        for document in self.entries.values_mut() {
            Arc::make_mut(document).arrange(operators);
        }
        let entries = &self.entries;
        let is_past = |key: &DocumentKey, revision: u64| {
            let base = entries.get(key).and_then(|document| document.base.as_ref());
            base.is_some_and(|base| base.revision > revision)
        };
        let held = &self.by_hash;
        self.lost_files
            .retain(|hash, (key, revision)| !held.contains_key(hash) && !is_past(key, *revision));
        let files = self.lost_files.values().cloned();
        let listed = self.operators.listed().iter().filter(|listed| {
            let (key, revision) = (&listed.document, listed.revision);
            !is_system(&key.kind) && !held.contains_key(&listed.hash) && !is_past(key, revision)
        });
        let listed = listed.map(|listed| (listed.document.clone(), listed.revision));
        for (key, revision) in files.chain(listed) {
            let lost = self.lost.entry(key).or_default();
            *lost = (*lost).max(revision);
        }
        let mut offered: BTreeMap<String, BTreeSet<[u8; 32]>> = BTreeMap::new();
        for revision in self.by_hash.values() {
            let room = Room::of(revision.deleted, &revision.key);
            let is_offered = matches!(
                standing_of(&self.operators, revision),
                Standing::Counts | Standing::Kept
            );
            let wire = room.wire();
            if is_offered && !self.over.contains(&(room, revision.signer.key_hash)) {
                offered.entry(wire).or_default().insert(revision.hash);
            }
        }
        self.digests = offered
            .iter()
            .filter_map(|(room, hashes)| Some((room.clone(), digest(hashes.iter())?)))
            .collect();
        self.offered = offered;
        self.digest = rooms_digest(
            self.digests
                .iter()
                .map(|(room, digest)| (room.as_str(), digest)),
        );
    }
}

impl Document {
    /// Sorts the revisions and finds those that have an effect: of all whose key is not revoked the newest, and above it the
    /// narrowings of revoked keys.
    fn arrange(&mut self, operators: &Operators) {
        self.revisions.sort_by(|a, b| a.order(b));
        let standing = |held: &Arc<Revision>| standing_of(operators, held);
        self.standings = self.revisions.iter().map(standing).collect();
        let mut signers = BTreeSet::new();
        for (held, standing) in self.revisions.iter().zip(&self.standings) {
            let is_newest = signers.insert(held.signer.key_hash);
            match standing {
                Standing::Counts => {
                    self.base = Some(held.clone());
                    break;
                }
                Standing::Kept => self.narrowings.push(held.clone()),
                Standing::Unlisted if is_newest => self.narrowings.push(held.clone()),
                Standing::Unlisted | Standing::Dropped => {}
            }
        }
    }
}

fn standing_of(operators: &Operators, revision: &Revision) -> Standing {
    let signer = &revision.signer;
    let by = (&signer.key_hash, signer.rank);
    judge(operators, &revision.key, by, &revision.hash)
}

fn standing(operators: &Operators, key: &DocumentKey, row: &Row) -> Standing {
    judge(operators, key, (&row.signer, row.rank), &row.hash)
}

/// What becomes of a revision of `key` by a signer with its rank.
fn judge(
    operators: &Operators,
    key: &DocumentKey,
    (signer, rank): (&[u8; 32], u32),
    hash: &[u8; 32],
) -> Standing {
    let is_free = *signer == ROOT_KEY || is_system(&key.kind);
    if is_free || !operators.is_revoked(signer, rank) {
        return Standing::Counts;
    }
    match operators.mark(hash) {
        Some(Mark::Keep) => Standing::Kept,
        Some(Mark::Drop) => Standing::Dropped,
        None => Standing::Unlisted,
    }
}

fn rows<'r>(revisions: impl Iterator<Item = &'r Arc<Revision>>) -> Rows {
    let row = |held: &Arc<Revision>| (held.hash, (held.key.clone(), held.row()));
    revisions.map(row).collect()
}

/// Which of `rows` are kept.
pub(crate) fn select(rows: &Rows, operators: &Operators) -> Selection {
    let mut names: BTreeMap<&DocumentKey, Vec<&Row>> = BTreeMap::new();
    for (key, row) in rows.values() {
        names.entry(key).or_default().push(row);
    }
    let mut kept = BTreeSet::new();
    let mut fills = Fills::default();
    let mut history: BTreeMap<(Room, [u8; 32]), Vec<&Row>> = BTreeMap::new();
    for (key, mut rows) in names {
        rows.sort_by(|a, b| (b.revision, a.hash).cmp(&(a.revision, b.hash)));
        // What is not offered is counted by itself: others must not have less history for it.
        let (mut offered, mut withheld) = (History::default(), History::default());
        let mut newest_of: BTreeMap<[u8; 32], bool> = BTreeMap::new();
        let is_deleted = rows
            .iter()
            .find(|row| standing(operators, key, row) == Standing::Counts)
            .is_some_and(|row| row.deleted);
        for row in rows {
            let has_place = match standing(operators, key, row) {
                Standing::Counts | Standing::Kept => offered.has_place(row.revision),
                Standing::Unlisted | Standing::Dropped => withheld.has_place(row.revision),
            };
            let room = Room::of(row.deleted, key);
            let is_newest = !newest_of.contains_key(&row.signer);
            let signer_deleted = *newest_of.entry(row.signer).or_insert(row.deleted);
            let is_pinned = is_newest || operators.mark(&row.hash) == Some(Mark::Keep);
            if is_pinned {
                kept.insert(row.hash);
                fills.add(&room, row);
                if operators.is_revoked(&row.signer, row.rank) {
                    fills.revoke(row.signer);
                }
            } else if has_place && !is_deleted && !signer_deleted && !row.deleted {
                history.entry((room, row.signer)).or_default().push(row);
            }
        }
    }
    for ((room, key), mut rows) in history {
        rows.sort_by_key(|row| Reverse((row.issued, row.revision, row.hash)));
        let Fill { mut bytes, .. } = fills.get(&room, &key);
        let mut counted = BTreeSet::new();
        for row in rows {
            let is_counted = fills.has_packet(&room, &row.packet) || counted.contains(&row.packet);
            if !is_counted {
                bytes += row.packet_bytes as usize;
                counted.insert(row.packet);
            }
            if bytes > room.share().bytes {
                break;
            }
            kept.insert(row.hash);
        }
    }
    Selection { kept, fills }
}

/// How many numbers, and revisions under the last of them, went by.
#[derive(Default)]
struct History {
    numbers: usize,
    rivals: usize,
    last: Option<u64>,
}

impl History {
    /// Counts a revision of this number; says whether there is a place for it among the older ones.
    fn has_place(&mut self, revision: u64) -> bool {
        if self.last.replace(revision) == Some(revision) {
            self.rivals += 1;
        } else {
            (self.numbers, self.rivals) = (self.numbers + 1, 1);
        }
        self.numbers <= HISTORY_MAX && self.rivals <= RIVALS_MAX
    }
}

/// What tells one set of revisions from another: SHA-256 over their hashes in ascending order.
pub(crate) fn digest<'a>(hashes: impl Iterator<Item = &'a [u8; 32]>) -> Option<[u8; 32]> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut is_empty = true;
    for hash in hashes {
        is_empty = false;
        context.update(hash);
    }
    let digest = context.finish();
    let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    (!is_empty).then_some(digest)
}

/// What tells all rooms together from others: SHA-256 over their names and digests in order of name.
pub(crate) fn rooms_digest<'a>(
    rooms: impl Iterator<Item = (&'a str, &'a [u8; 32])>,
) -> Option<[u8; 32]> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut is_empty = true;
    for (room, digest) in rooms {
        is_empty = false;
        context.update(room.as_bytes());
        context.update(&[0]);
        context.update(digest);
    }
    let digest = context.finish();
    let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    (!is_empty).then_some(digest)
}

/// Revisions kept under one number: the one that wins, and one to show that there is a fork.
const RIVALS_MAX: usize = 2;
