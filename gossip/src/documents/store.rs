//! Which revisions are kept. Pure, and the same whatever order they come in: of each document the five highest numbers, and
//! under each number the two lowest hashes. So nodes that heard the same hold the same.

use std::sync::Arc;

use super::{
    BYTES_MAX, Document, DocumentKey, Documents, HISTORY_MAX, KEYS_MAX, LIVE_MAX, Revision,
};
use crate::metrics::Refusal;

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is in the set now.
    News,
    /// It was, or it is older than what is kept.
    Known,
}

impl Documents {
    /// Whether a revision of this number and hash would be kept and is not there.
    pub(crate) fn lacks(&self, key: &DocumentKey, revision: u64, hash: &[u8; 32]) -> bool {
        match self.entries.get(key) {
            Some(document) => document.has_place(revision, hash),
            None => true,
        }
    }

    /// Takes in a revision if it has a place; `air` is how many times the limits may be filled.
    pub(crate) fn insert(
        &mut self,
        revision: Arc<Revision>,
        air: usize,
    ) -> Result<Inserted, Refusal> {
        let key = revision.key.clone();
        if !self.lacks(&key, revision.revision, &revision.hash) {
            return Ok(Inserted::Known);
        }
        self.check_room(&revision, air)?;
        let document = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Document { revisions: vec![] }));
        let document = Arc::make_mut(document);
        self.by_hash.insert(revision.hash, revision.clone());
        self.bytes += revision.bytes.len();
        for gone in document.add(revision) {
            self.by_hash.remove(&gone.hash);
            self.bytes -= gone.bytes.len();
        }
        let newest = document.newest().revision;
        if self.lost.get(&key).is_some_and(|lost| *lost <= newest) {
            self.lost.remove(&key);
        }
        Ok(Inserted::News)
    }

    /// Leaves out what `stays` does not keep; says what was left out.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Revision) -> bool) -> Vec<Arc<Revision>> {
        let gone: Vec<Arc<Revision>> = self
            .by_hash
            .values()
            .filter(|revision| !stays(revision))
            .cloned()
            .collect();
        for revision in &gone {
            self.by_hash.remove(&revision.hash);
            self.bytes -= revision.bytes.len();
            if let Some(document) = self.entries.get_mut(&revision.key) {
                let document = Arc::make_mut(document);
                document.revisions.retain(|held| held.hash != revision.hash);
                if document.revisions.is_empty() {
                    self.entries.remove(&revision.key);
                }
            }
        }
        gone
    }

    /// To be called after a change: counts it and makes the digest anew.
    pub(crate) fn sealed(mut self) -> Self {
        self.version += 1;
        self.digest = digest(self.by_hash.keys());
        self
    }

    /// Everything held, in order of hash, behind `after`.
    pub(crate) fn behind(&self, after: Option<[u8; 32]>) -> impl Iterator<Item = &Arc<Revision>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_hash.range((from, Unbounded)).map(|(_, held)| held)
    }

    /// The revision of this hash.
    pub(crate) fn find(&self, hash: &[u8; 32]) -> Option<&Arc<Revision>> {
        self.by_hash.get(hash)
    }

    fn check_room(&self, revision: &Revision, air: usize) -> Result<(), Refusal> {
        let is_new_key = !self.entries.contains_key(&revision.key);
        let is_live = self
            .entries
            .get(&revision.key)
            .is_some_and(|document| !document.newest().deleted);
        let too_many_keys = is_new_key && self.entries.len() >= air * KEYS_MAX;
        let becomes_live = !is_live && !revision.deleted;
        let too_many_live = becomes_live && self.live().count() >= air * LIVE_MAX;
        // A deletion has to be possible when everything is full.
        let full_at = BYTES_MAX * if revision.deleted { air + 1 } else { air };
        let too_large = self.bytes + revision.bytes.len() > full_at;
        if too_many_keys || too_many_live || too_large {
            return Err(Refusal::Full);
        }
        Ok(())
    }
}

impl Document {
    fn has_place(&self, revision: u64, hash: &[u8; 32]) -> bool {
        let same: Vec<&[u8; 32]> = self
            .revisions
            .iter()
            .filter(|held| held.revision == revision)
            .map(|held| &held.hash)
            .collect();
        if same.contains(&hash) {
            return false;
        }
        let below_two = same.len() < RIVALS_MAX || same.iter().any(|held| *held > hash);
        let newer = self
            .winners()
            .filter(|held| held.revision > revision)
            .count();
        newer < HISTORY_MAX && below_two
    }

    /// Puts a revision in its place; returns what has none any more.
    fn add(&mut self, revision: Arc<Revision>) -> Vec<Arc<Revision>> {
        self.revisions.push(revision);
        self.revisions
            .sort_by(|a, b| (b.revision, a.hash).cmp(&(a.revision, b.hash)));
        let mut numbers = 0;
        let mut rivals = 0;
        let mut before = None;
        let mut gone = Vec::new();
        self.revisions.retain(|held| {
            if before == Some(held.revision) {
                rivals += 1;
            } else {
                (numbers, rivals) = (numbers + 1, 1);
            }
            before = Some(held.revision);
            let stays = numbers <= HISTORY_MAX && rivals <= RIVALS_MAX;
            if !stays {
                gone.push(held.clone());
            }
            stays
        });
        gone
    }
}

/// What tells one set of documents from another: SHA-256 over their hashes in ascending order.
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

/// Revisions kept under one number: the one that wins, and one to show that there is a fork.
const RIVALS_MAX: usize = 2;
