//! Whose word counts: which operators' keys are revoked, and what stays of those that are.
//!
//! Computed from the set of revisions alone, never from the order in which they came or from dates, so all nodes that hold the
//! same come to the same. Keys are taken in order of rank. Whether a key is revoked rests on senior keys only, and so does what of
//! its own revocations stays, so each step rests on steps that are done.
//!
//! - A revocation of a key counts if it is the root's, the key's own, or that of a senior key which is not revoked or whose
//!   revocation stays by a list.
//! - A list of what stays of a key counts if its signer is the root, or another key that is not revoked, or a revoked one whose list
//!   stays by a senior list. Each entry counts only if the signer may sign documents of its kind: an operator who may replace a text may
//!   also say that it stays or goes. What stays of a key's revocations of operators and of its lists is for the root and for
//!   senior keys to say.
//! - A key's own list of itself counts while nobody else has made one, and only for what stays. A thief can deny with it, until
//!   another operator answers him; he opens nothing.
//! - Lists add up, and what one of them drops is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::DocumentKey;
use super::revision::{ROOT_KEY, Revision};
use super::system::{KeyStatement, RetentionEntry, Statement, hex, is_system};
use crate::names::{DocumentKind, OperatorName};

/// What is known of the operators of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operators {
    known: BTreeMap<[u8; 32], OperatorKey>,
    revoked: BTreeMap<[u8; 32], Revoker>,
    marks: BTreeMap<[u8; 32], Mark>,
    listed: BTreeSet<Listed>,
}

/// One key that signed something that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKey {
    /// The operator's name.
    pub operator: OperatorName,
    /// The smallest rank that a grant gave the key.
    pub rank: u32,
    /// The kinds that the operator may sign, by any grant.
    pub kinds: BTreeSet<DocumentKind>,
    /// When the last of its grants ends, in seconds since 1970.
    pub granted_until: u64,
}

/// By whose word a key is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoker {
    /// The root's.
    Root,
    /// The key's own.
    Own,
    /// An operator's of this rank, the smallest of all who say so. It counts against keys of a larger rank.
    Senior(u32),
}

/// What lists say of a revision of a revoked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It stays, as a narrowing.
    Keep,
    /// It goes.
    Drop,
}

/// A revision that a list in force says stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Of which document.
    pub document: DocumentKey,
    /// Its number.
    pub revision: u64,
    /// What names it.
    pub hash: [u8; 32],
}

/// A list whose signer's word counts.
struct List<'r> {
    signer: [u8; 32],
    rank: u32,
    kinds: Arc<BTreeSet<DocumentKind>>,
    about: [u8; 32],
    entries: &'r [RetentionEntry],
}

impl Operators {
    /// Judges a set of revisions.
    pub(crate) fn of<'r>(revisions: impl Iterator<Item = &'r Arc<Revision>> + Clone) -> Self {
        let known = known(revisions.clone());
        let newest = newest_statements(revisions);
        let mut judge = Judge {
            known: &known,
            newest: &newest,
            revoked: BTreeMap::new(),
            lists: Vec::new(),
        };
        judge.take_root();
        let mut ranks: BTreeMap<u32, Vec<[u8; 32]>> = BTreeMap::new();
        for (key, operator) in &known {
            ranks.entry(operator.rank).or_default().push(*key);
        }
        for keys in ranks.values() {
            // Equals have no say over each other: all are judged before any of them has.
            keys.iter().for_each(|key| judge.take_own(key));
            keys.iter().for_each(|key| judge.take_statements(key));
        }
        let (marks, listed) = judge.marks();
        let revoked = judge.revoked;
        Self {
            marks,
            listed,
            revoked,
            known,
        }
    }

    /// By whose word a key with a grant of this rank is revoked.
    pub fn revoker(&self, key: &[u8; 32], rank: u32) -> Option<Revoker> {
        let rank = self
            .known
            .get(key)
            .map_or(rank, |known| known.rank.min(rank));
        let revoker = self.revoked.get(key).copied();
        revoker.filter(|revoker| match revoker {
            Revoker::Root | Revoker::Own => true,
            Revoker::Senior(senior) => *senior < rank,
        })
    }

    /// Whether a key with a grant of this rank is revoked.
    pub fn is_revoked(&self, key: &[u8; 32], rank: u32) -> bool {
        self.revoker(key, rank).is_some()
    }

    /// Whether a key whose hash begins with these hex digits is revoked: a lost revocation of that key takes nothing away then.
    pub fn is_revoked_named(&self, digits: &str) -> bool {
        let named = self.revoked.keys();
        let mut named = named.filter(|key| hex(key).starts_with(digits));
        // The word of a senior does not count over a key of which no rank is known.
        let rank = |key: &[u8; 32]| self.known.get(key).map_or(0, |known| known.rank);
        !digits.is_empty() && named.any(|key| self.is_revoked(key, rank(key)))
    }

    /// What lists say of a revision, by its hash.
    pub fn mark(&self, revision: &[u8; 32]) -> Option<Mark> {
        self.marks.get(revision).copied()
    }

    /// The keys that signed something that is held, by hash.
    pub fn known(&self) -> &BTreeMap<[u8; 32], OperatorKey> {
        &self.known
    }

    /// What lists in force say stays.
    pub fn listed(&self) -> &BTreeSet<Listed> {
        &self.listed
    }
}

/// The judgement as far as it has come.
struct Judge<'r> {
    known: &'r BTreeMap<[u8; 32], OperatorKey>,
    newest: &'r BTreeMap<[u8; 32], Vec<&'r Arc<Revision>>>,
    revoked: BTreeMap<[u8; 32], Revoker>,
    lists: Vec<List<'r>>,
}

impl<'r> Judge<'r> {
    fn statements(&self, key: &[u8; 32]) -> impl Iterator<Item = &'r Arc<Revision>> + use<'r> {
        let of_key = self.newest.get(key).map_or(&[][..], Vec::as_slice);
        of_key.iter().copied()
    }

    fn take_root(&mut self) {
        for revision in self.statements(&ROOT_KEY) {
            match &revision.statement {
                Some(Statement::Revokes(KeyStatement { key, .. })) => {
                    self.revoked.insert(*key, Revoker::Root);
                }
                Some(Statement::Retains { .. }) => self.take_list(revision),
                None => {}
            }
        }
    }

    /// Whether a key has revoked itself, unless a senior list dropped that. Seniors had their say when their rank was taken.
    fn take_own(&mut self, key: &[u8; 32]) {
        let rank = self.known[key].rank;
        let own = self
            .statements(key)
            .find(|revision| revokes(revision) == Some(*key));
        let stands = own.is_some_and(|own| self.senior_mark(own, rank) != Some(Mark::Drop));
        if stands {
            let revoker = self.revoked.entry(*key).or_insert(Revoker::Own);
            *revoker = (*revoker).min(Revoker::Own);
        }
    }

    /// What a key says of others, as far as it counts.
    fn take_statements(&mut self, key: &[u8; 32]) {
        let rank = self.known[key].rank;
        let is_revoked = match self.revoked.get(key) {
            None => false,
            Some(Revoker::Root | Revoker::Own) => true,
            Some(Revoker::Senior(senior)) => *senior < rank,
        };
        for revision in self.statements(key) {
            if is_revoked && self.senior_mark(revision, rank) != Some(Mark::Keep) {
                continue;
            }
            match revokes(revision) {
                Some(about) if about != *key => {
                    let revoker = self.revoked.entry(about).or_insert(Revoker::Senior(rank));
                    *revoker = (*revoker).min(Revoker::Senior(rank));
                }
                Some(_own) => {}
                None => self.take_list(revision),
            }
        }
    }

    fn take_list(&mut self, revision: &'r Arc<Revision>) {
        if let Some(Statement::Retains { key, entries }) = &revision.statement {
            let signer = revision.signer.key_hash;
            self.lists.push(List {
                signer,
                rank: self.known.get(&signer).map_or(0, |known| known.rank),
                kinds: revision.signer.kinds.clone(),
                about: *key,
                entries,
            });
        }
    }

    /// What the root and senior keys say of a revision of a key of `rank`.
    fn senior_mark(&self, revision: &Revision, rank: u32) -> Option<Mark> {
        let about = revision.signer.key_hash;
        let lists = self
            .lists
            .iter()
            .filter(|list| list.about == about && (list.signer == ROOT_KEY || list.rank < rank));
        let entries = lists.flat_map(|list| list.entries);
        let marks = entries.filter(|entry| entry.hash == revision.hash);
        marks.map(mark_of).max()
    }

    /// What lists say of all revisions of revoked keys, and what has to be held for it.
    fn marks(&self) -> (BTreeMap<[u8; 32], Mark>, BTreeSet<Listed>) {
        let mut marks: BTreeMap<[u8; 32], Mark> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        let own = self.own_lists();
        for list in self.lists.iter().chain(&own) {
            let Some(revoker) = self.revoked.get(&list.about) else {
                continue;
            };
            let rank = self
                .known
                .get(&list.about)
                .map_or(u32::MAX, |known| known.rank);
            if matches!(revoker, Revoker::Senior(senior) if *senior >= rank) {
                continue;
            }
            let counts = |entry: &&RetentionEntry| {
                let kind = &entry.document.kind;
                if list.signer == ROOT_KEY {
                    true
                } else if list.signer == list.about {
                    entry.keep && !is_system(kind)
                } else if is_system(kind) {
                    list.rank < rank
                } else {
                    list.kinds.contains(kind)
                }
            };
            for entry in list.entries.iter().filter(counts) {
                let mark = marks.entry(entry.hash).or_insert_with(|| mark_of(entry));
                *mark = (*mark).max(mark_of(entry));
                if entry.keep {
                    listed.insert(Listed {
                        document: entry.document.clone(),
                        revision: entry.revision,
                        hash: entry.hash,
                    });
                }
            }
        }
        listed.retain(|listed: &Listed| marks.get(&listed.hash) == Some(&Mark::Keep));
        (marks, listed)
    }

    /// The lists that revoked keys made of themselves, where nobody else made one. What they drop does not count.
    fn own_lists(&self) -> Vec<List<'r>> {
        let mut own = Vec::new();
        for key in self.revoked.keys() {
            let has_another = self
                .lists
                .iter()
                .any(|list| list.about == *key && list.signer != *key);
            if has_another {
                continue;
            }
            for revision in self.statements(key) {
                if let Some(Statement::Retains {
                    key: about,
                    entries,
                }) = &revision.statement
                    && about == key
                {
                    own.push(List {
                        signer: *key,
                        rank: revision.signer.rank,
                        kinds: revision.signer.kinds.clone(),
                        about: *key,
                        entries,
                    });
                }
            }
        }
        own
    }
}

fn mark_of(entry: &RetentionEntry) -> Mark {
    if entry.keep { Mark::Keep } else { Mark::Drop }
}

fn revokes(revision: &Revision) -> Option<[u8; 32]> {
    match &revision.statement {
        Some(Statement::Revokes(KeyStatement { key, .. })) => Some(*key),
        _ => None,
    }
}

fn known<'r>(
    revisions: impl Iterator<Item = &'r Arc<Revision>>,
) -> BTreeMap<[u8; 32], OperatorKey> {
    let mut known: BTreeMap<[u8; 32], OperatorKey> = BTreeMap::new();
    for revision in revisions {
        let signer = &revision.signer;
        if signer.is_root() {
            continue;
        }
        let key = known.entry(signer.key_hash).or_insert_with(|| OperatorKey {
            operator: signer.operator.clone(),
            rank: signer.rank,
            kinds: BTreeSet::new(),
            granted_until: 0,
        });
        if signer.rank < key.rank {
            (key.rank, key.operator) = (signer.rank, signer.operator.clone());
        }
        key.granted_until = key.granted_until.max(signer.granted_until);
        if !signer.kinds.is_subset(&key.kinds) {
            key.kinds.extend(signer.kinds.iter().cloned());
        }
    }
    known
}

/// The newest revision of each document of a system kind, by signer, where it is no deletion. The own revocation of a key has
/// no deletion.
fn newest_statements<'r>(
    revisions: impl Iterator<Item = &'r Arc<Revision>>,
) -> BTreeMap<[u8; 32], Vec<&'r Arc<Revision>>> {
    let mut newest: BTreeMap<&DocumentKey, &Arc<Revision>> = BTreeMap::new();
    for revision in revisions.filter(|revision| is_system(&revision.key.kind)) {
        let held = newest.entry(&revision.key).or_insert(revision);
        if revision.order(held).is_lt() {
            *held = revision;
        }
    }
    let mut by_signer: BTreeMap<[u8; 32], Vec<&Arc<Revision>>> = BTreeMap::new();
    for revision in newest.into_values().filter(|revision| !revision.deleted) {
        by_signer
            .entry(revision.signer.key_hash)
            .or_default()
            .push(revision);
    }
    by_signer
}
