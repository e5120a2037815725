//! What the agent reports of operators: who signed what is held here, and whose word counts.

use std::time::SystemTime;

use starling_gossip::documents::operators::Revoker;
use starling_gossip::documents::system::{Statement, hex};
use starling_gossip::documents::{Fill, Room, Standing};
use starling_gossip::{Documents, Revision};
use starling_transport::KeyHash;

use super::View;
use super::documents::age_s;
use crate::admin::view;
use crate::mesh::unix_s;

impl View {
    pub(super) fn list_operators(&self) -> Vec<view::Operator> {
        let documents = self.host.membership.documents();
        let now = unix_s(SystemTime::now());
        let known = documents.operators.known().iter();
        let all = known.map(|(key, known)| view::Operator {
            operator: known.operator.to_string(),
            key: named(key),
            rank: known.rank,
            kinds: known.kinds.iter().map(ToString::to_string).collect(),
            grant_left_s: known.granted_until.saturating_sub(now),
            revoked: documents.operators.revoker(key, known.rank).map(word),
            fills: fills(&documents, key),
            held: held(&documents, key),
            lists: lists(&documents, key),
        });
        all.collect()
    }
}

/// A key as revocations name it.
fn named(key: &[u8; 32]) -> String {
    KeyHash::from_bytes(*key).to_string()
}

fn word(revoker: Revoker) -> String {
    let word = match revoker {
        Revoker::Root => "root",
        Revoker::Own => "own",
        Revoker::Senior(_) => "senior",
    };
    word.to_owned()
}

fn fills(documents: &Documents, key: &[u8; 32]) -> Vec<view::Fill> {
    let of_key = documents.fills().filter(|(_, of, _)| *of == key);
    let fills = of_key.map(|(room, _, fill)| view::Fill {
        room: room.as_str().to_owned(),
        names: fill.names,
        bytes: fill.bytes,
        percent: percent(room, fill),
        is_over: documents.over().contains(&(room.clone(), *key)),
    });
    fills.collect()
}

fn percent(room: &Room, fill: Fill) -> usize {
    let share = room.share();
    (100 * fill.names / share.names).max(100 * fill.bytes / share.bytes)
}

fn held(documents: &Documents, key: &[u8; 32]) -> Vec<view::Held> {
    let newest = documents.entries.values().filter_map(|document| {
        let mut revisions = document.standings();
        revisions.find(|(held, _)| held.signer.key_hash == *key)
    });
    let held = newest.map(|(held, standing)| view::Held {
        document: held.key.to_string(),
        revision: held.revision,
        hash: hex(&held.hash),
        deleted: held.deleted,
        age_s: age_s(held.issued),
        standing: standing_word(standing).to_owned(),
        rows: held.rows(),
    });
    held.collect()
}

pub(super) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Counts => "counts",
        Standing::Kept => "kept",
        Standing::Unlisted => "unlisted",
        Standing::Dropped => "dropped",
    }
}

fn lists(documents: &Documents, key: &[u8; 32]) -> Vec<view::ListEntry> {
    let newest = documents.entries.values().map(|document| document.newest());
    let lists = newest.filter_map(|held| match held.statement() {
        Some(Statement::Retains {
            key: about,
            entries,
        }) if about == key => Some((held, entries)),
        _ => None,
    });
    let entries = lists.flat_map(|(held, entries): (&std::sync::Arc<Revision>, _)| {
        entries.iter().map(|entry| view::ListEntry {
            signer: named(&held.signer.key_hash),
            document: entry.document.to_string(),
            revision: entry.revision,
            hash: hex(&entry.hash),
            keep: entry.keep,
        })
    });
    entries.collect()
}
