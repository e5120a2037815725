//! Many documents under one signature: what an operator does whose share is nearly full.
//!
//! Each document alone carries its operator's grant and a signature, some 600 bytes; together they carry one of each. The texts stay
//! as they are, under the next number each.

use std::collections::BTreeMap;

use starling_gossip::documents::system::from_hex;
use starling_gossip::documents::{BODY_BYTES_MAX, Draft, DraftRow, ROWS_MAX};
use starling_gossip::{DocumentKey, DocumentKind};

use super::sign::{self, Sign};
use super::{block_on, client, out};
use crate::admin::view;
use crate::operator::{Operator, key_hash};

/// How much was signed of each room since the agent was last asked how full it is, so that a thousand documents do not cost a
/// thousand long answers.
#[derive(Debug)]
pub(super) struct Room(BTreeMap<(DocumentKind, bool), (usize, usize)>);

impl Room {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether to ask before another document is signed; `None` deletes one. At first, and then before so much is signed that
    /// a share with less than [`SHORT_PERCENT`] could be full.
    pub(super) fn must_be_asked(&mut self, kind: &DocumentKind, body: Option<&str>) -> bool {
        let bytes = body.map_or(0, str::len) + ALONE_BYTES;
        let room = (kind.clone(), body.is_none());
        let signed = self.0.entry(room).or_insert((COUNT_MAX, BYTES_MAX));
        signed.0 += 1;
        signed.1 += bytes;
        let is_due = signed.0 > COUNT_MAX || signed.1 > BYTES_MAX;
        if is_due {
            *signed = (1, bytes);
        }
        is_due
    }
}

/// Signs documents of `kind` anew, many together, if the operator's share of their room is nearly full; `deleted` says of which room.
/// Does nothing where that would not help.
pub(super) fn if_short(
    sign: &Sign,
    operator: &Operator,
    kind: &DocumentKind,
    deleted: bool,
) -> anyhow::Result<()> {
    let own = key_hash(&operator.grant().public_key).to_string();
    let all: Vec<view::Operator> = sign.ask("/v1/operators")?;
    let Some(mine) = all.into_iter().find(|other| other.key == own) else {
        return Ok(());
    };
    let room = if deleted { "deletions" } else { kind.as_str() };
    let is_short = mine
        .fills
        .iter()
        .any(|fill| fill.room == room && fill.percent >= SHORT_PERCENT);
    let alone = singles(&mine, kind, deleted)?;
    if !is_short || alone.len() < WORTH_IT {
        return Ok(());
    }
    for draft in drafts(sign, kind, &alone)? {
        let count = draft.rows.len();
        let packet = operator.sign(&draft)?;
        let _receipt: view::Receipt =
            block_on(client::post_for(sign.socket(), "/v1/documents", &packet))??;
        out::complain(&format!(
            "note: {count} documents of kind {kind} are signed together now, as your share of the room is nearly full"
        ));
    }
    Ok(())
}

/// Those that were signed alone and still count.
fn singles(
    mine: &view::Operator,
    kind: &DocumentKind,
    deleted: bool,
) -> anyhow::Result<Vec<DocumentKey>> {
    let alone = mine
        .held
        .iter()
        .filter(|held| held.rows == 1 && held.deleted == deleted && held.standing == "counts");
    let mut keys = Vec::new();
    for held in alone {
        let key: DocumentKey = held.document.parse()?;
        if key.kind == *kind {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// As few as hold all of them, each in order of name.
fn drafts(sign: &Sign, kind: &DocumentKind, keys: &[DocumentKey]) -> anyhow::Result<Vec<Draft>> {
    let (mut drafts, mut rows, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut finish = |rows: &mut Vec<DraftRow>| {
        let rows = std::mem::take(rows);
        let highest = rows
            .iter()
            .map(|row| row.revision)
            .max()
            .unwrap_or_default();
        if rows.len() > 1 {
            drafts.push(Draft {
                kind: kind.clone(),
                issued: sign::date_for(highest),
                rows,
            });
        }
    };
    for key in keys {
        let history = sign.history(key)?;
        let Some(newest) = history.revisions.first() else {
            continue;
        };
        // Another operator's word came after ours: that is not ours to repeat.
        if newest.revision != history.newest || newest.standing != "counts" {
            continue;
        }
        if bytes + newest.body.len() > BODY_BYTES_MAX || rows.len() >= ROWS_MAX {
            finish(&mut rows);
            bytes = 0;
        }
        bytes += newest.body.len();
        rows.push(DraftRow {
            name: key.name.clone(),
            revision: newest.revision + 1,
            replaces: from_hex(&newest.hash),
            deleted: newest.deleted,
            body: newest.body.clone(),
        });
    }
    finish(&mut rows);
    Ok(drafts)
}

/// Of its share an operator uses so much before documents are signed together.
const SHORT_PERCENT: usize = 90;

/// Fewer than this free less than they cost.
const WORTH_IT: usize = 8;

/// A tenth of the names of a share.
const COUNT_MAX: usize = 50;

/// A tenth of the bytes of a share.
const BYTES_MAX: usize = 100 * 1024;

/// What a document that is signed alone takes besides its text.
const ALONE_BYTES: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_asked_before_a_share_could_be_full_and_not_for_each_document() {
        let [policy, route] = ["policy", "route"].map(|kind| kind.parse().unwrap());
        let mut room = Room::new();
        let asked = |room: &mut Room, kind, body, count| {
            (0..count)
                .filter(|_| room.must_be_asked(kind, body))
                .count()
        };
        assert_eq!(asked(&mut room, &policy, Some("x"), 500), 10);
        assert_eq!(
            asked(&mut room, &route, Some("x"), 1),
            1,
            "a room of its own"
        );
        assert_eq!(asked(&mut room, &policy, None, 50), 1, "deletions too");
        let long = "x".repeat(60 * 1024);
        assert_eq!(
            asked(&mut room, &route, Some(&long), 10),
            9,
            "two do not fit"
        );
    }
}
