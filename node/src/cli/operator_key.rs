//! `starling revoke key/…` of an operator: what of it stays is listed first, then the key is revoked.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use starling_gossip::DocumentKey;
use starling_gossip::documents::key_hash;
use starling_gossip::documents::system::{
    KeyStatement, RetentionEntry, from_hex, is_system, retention_lists,
};
use starling_transport::KeyHash;

use super::sign::{Change, NotAllowed, Sign};
use super::{out, table::Table};
use crate::admin::view;

/// What is to become of what an operator signed.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Choices {
    /// Of an operator's key: keep what this revocation of the operator's revokes; may be repeated
    #[arg(long, value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    keep: Vec<DocumentKey>,
    /// Of an operator's key: put this document of the operator's out of force, its denials included; may be repeated
    #[arg(long, value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    drop: Vec<DocumentKey>,
    /// Of an operator's key: sign this document of the operator's again by your own right, whole; may be repeated
    #[arg(long, value_name = "KIND/NAME", value_parser = str::parse::<DocumentKey>)]
    adopt: Vec<DocumentKey>,
    /// Of an operator's key: drop all revocations of the operator's that --keep and --adopt do not name, however many a thief signs
    /// meanwhile
    #[arg(long, conflicts_with = "keep_others")]
    drop_others: bool,
    /// Of an operator's key: keep all revocations of the operator's that --drop and --adopt do not name
    #[arg(long)]
    keep_others: bool,
}

/// What becomes of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Keep,
    Drop,
    Adopt,
}

/// What a list is to say, and what it means for each document.
pub(super) struct Plan {
    pub(super) entries: Vec<RetentionEntry>,
    rows: Vec<(view::Held, Choice)>,
    adopted: Vec<DocumentKey>,
}

impl Choices {
    pub(super) fn is_empty(&self) -> bool {
        let names = [&self.keep, &self.drop, &self.adopt];
        names.iter().all(|names| names.is_empty()) && !self.drop_others && !self.keep_others
    }

    /// What is to be listed of `target`, besides what `signer` listed before.
    pub(super) fn plan(&self, target: &view::Operator, signer: &str) -> anyhow::Result<Plan> {
        self.check_names(target)?;
        let mut entries: BTreeMap<[u8; 32], RetentionEntry> = BTreeMap::new();
        for listed in target.lists.iter().filter(|listed| listed.signer == signer) {
            let entry = entry(&listed.document, listed.revision, &listed.hash, listed.keep)?;
            entries.insert(entry.hash, entry);
        }
        let (mut rows, mut undecided, mut adopted) = (Vec::new(), Vec::new(), Vec::new());
        for held in &target.held {
            let document: DocumentKey = held.document.parse()?;
            let choice = self.choice(&document);
            let choice = choice.or_else(|| listed(target, held));
            let Some(choice) = choice.or_else(|| usual(held, &document)) else {
                undecided.push(held.document.clone());
                continue;
            };
            if choice == Choice::Adopt {
                adopted.push(document);
            } else {
                let keep = choice == Choice::Keep;
                let entry = entry(&held.document, held.revision, &held.hash, keep)?;
                entries.insert(entry.hash, entry);
            }
            rows.push((held.clone(), choice));
        }
        if !undecided.is_empty() {
            return Err(NotAllowed::with_hint(
                format!(
                    "{} revoked whom `{}` names: does that stay?",
                    target.operator,
                    undecided.join("`, `")
                ),
                "say `--keep KIND/NAME` or `--drop KIND/NAME` for each: a stolen key may have revoked honest hosts; `--drop-others` or \
                 `--keep-others` says it for all that are left, also while the key goes on signing",
            )
            .into());
        }
        Ok(Plan {
            entries: entries.into_values().collect(),
            rows,
            adopted,
        })
    }

    /// What this command says of a document.
    fn choice(&self, document: &DocumentKey) -> Option<Choice> {
        if self.adopt.contains(document) {
            Some(Choice::Adopt)
        } else if self.drop.contains(document) {
            Some(Choice::Drop)
        } else if self.keep.contains(document) {
            Some(Choice::Keep)
        } else {
            match (is_revocation(document), self.drop_others, self.keep_others) {
                (true, true, _) => Some(Choice::Drop),
                (true, false, true) => Some(Choice::Keep),
                _ => None,
            }
        }
    }

    fn check_names(&self, target: &view::Operator) -> anyhow::Result<()> {
        let held: BTreeSet<&str> = target
            .held
            .iter()
            .map(|held| held.document.as_str())
            .collect();
        for named in self.keep.iter().chain(&self.drop).chain(&self.adopt) {
            anyhow::ensure!(
                held.contains(named.to_string().as_str()),
                "{} signed no {named} that is held here",
                target.operator
            );
        }
        for adopted in &self.adopt {
            anyhow::ensure!(
                !is_system(&adopted.kind),
                "{adopted} cannot be signed again by another operator; --keep keeps it"
            );
        }
        Ok(())
    }
}

/// What lists say of it already, so that it is not asked again. Of several a drop wins.
fn listed(target: &view::Operator, held: &view::Held) -> Option<Choice> {
    let listed = target
        .lists
        .iter()
        .filter(|listed| listed.hash == held.hash);
    let keep = listed
        .map(|listed| listed.keep)
        .reduce(|one, other| one && other)?;
    Some(if keep { Choice::Keep } else { Choice::Drop })
}

/// A revocation may be a thief's, or the reason why a thief is out; that is for a person to say, unless it was taken back: then it
/// revokes nobody, whatever is said of it. A list of what stays of others is kept like a denial. Routes deny nothing.
fn usual(held: &view::Held, document: &DocumentKey) -> Option<Choice> {
    match document.kind.as_str() {
        _ if is_revocation(document) => held.deleted.then_some(Choice::Drop),
        "route" => Some(Choice::Drop),
        _ => Some(Choice::Keep),
    }
}

fn is_revocation(document: &DocumentKey) -> bool {
    matches!(document.kind.as_str(), "revocation" | "operator-revocation")
}

impl Plan {
    /// Whether something is to be signed again.
    pub(super) fn adopts(&self) -> bool {
        !self.adopted.is_empty()
    }

    /// What becomes of each document, for people.
    pub(super) fn show(&self, target: &view::Operator) -> String {
        if self.rows.is_empty() {
            return format!("{} signed nothing that is held here.", target.operator);
        }
        let mut table = Table::new(["DOCUMENT", "REVISION", "WHAT BECOMES OF IT"]);
        for (held, choice) in &self.rows {
            let kind = held.document.split('/').next().unwrap_or_default();
            let becomes = match (choice, kind) {
                (Choice::Adopt, _) => "signed again by you, in force as a whole",
                (Choice::Drop, "route") => "out of force; the revision before counts",
                (Choice::Drop, _) => "out of force, its denials included",
                (Choice::Keep, "policy") if held.deleted => "what it took away stays away",
                (Choice::Keep, "policy") => "its denials stay, its grants go",
                (Choice::Keep, _) => "stays in force",
            };
            table.row([
                held.document.clone(),
                held.revision.to_string(),
                becomes.to_owned(),
            ]);
        }
        table.render()
    }
}

/// Revokes an operator's key in the name of the operator of `sign`.
pub(super) fn revoke(
    key: &KeyHash,
    target: &view::Operator,
    all: &[view::Operator],
    choices: &Choices,
    reason: &str,
    sign: &Sign,
) -> anyhow::Result<()> {
    let operator = sign.operator()?;
    let own = key_hash(&operator.grant().public_key);
    let about = key.bytes();
    let own_name = KeyHash::from_bytes(own).to_string();
    let is_revoked = target.revoked.is_some();
    if !is_revoked {
        may_revoke(operator.grant().rank, own == about, target, all)?;
    }
    let plan = choices.plan(target, &own_name)?;
    out::say(&plan.show(target))?;
    let mut changes = Vec::new();
    for document in &plan.adopted {
        let history = sign.history(document)?;
        let theirs = history
            .revisions
            .iter()
            .find(|held| held.public_key == target.key);
        let theirs =
            theirs.ok_or_else(|| anyhow::anyhow!("{document} is not held here any more"))?;
        changes.push(Change {
            key: document.clone(),
            body: (!theirs.deleted).then(|| theirs.body.clone()),
            signer: Some(own_name.clone()),
        });
    }
    for (document, text) in retention_lists(&about, Some(&own), &plan.entries) {
        changes.push(Change {
            key: document,
            body: Some(text),
            signer: None,
        });
    }
    if !is_revoked || own == about {
        let statement = KeyStatement {
            key: about,
            reason: reason.to_owned(),
        };
        changes.push(Change {
            key: statement.document(Some(&own)),
            body: Some(statement.to_text()),
            signer: None,
        });
    }
    // The lists come first: a host that hears of the revocation has heard what stays.
    sign.make(changes)
}

/// Revokes a key that nobody here knows as an operator's: it may be one that has signed nothing yet but passes.
pub(super) fn revoke_unknown(key: &KeyHash, reason: &str, sign: &Sign) -> anyhow::Result<()> {
    let grant = sign.operator()?;
    let grant = grant.grant();
    let statement = KeyStatement {
        key: key.bytes(),
        reason: reason.to_owned(),
    };
    out::complain(&format!(
        "note: no operator with this key has signed anything that is held here; if it is an operator's, this counts if its rank is larger \
         than yours ({})",
        grant.rank
    ));
    sign.make(vec![Change {
        key: statement.document(Some(&key_hash(&grant.public_key))),
        body: Some(statement.to_text()),
        signer: None,
    }])
}

/// Juniors and equals cannot revoke; the mesh would refuse it.
fn may_revoke(
    rank: u32,
    is_own: bool,
    target: &view::Operator,
    all: &[view::Operator],
) -> Result<(), NotAllowed> {
    if is_own || rank < target.rank {
        return Ok(());
    }
    let seniors = all.iter().filter(|other| {
        let may = other.kinds.iter().any(|kind| kind == "revocation");
        other.rank < target.rank && other.revoked.is_none() && may && other.grant_left_s > 0
    });
    let seniors: Vec<_> = seniors
        .map(|other| format!("{} (rank {})", other.operator, other.rank))
        .collect();
    let who = match seniors.is_empty() {
        true => "the root alone can".to_owned(),
        false => format!("{} can, and so can the root", seniors.join(", ")),
    };
    Err(NotAllowed::with_hint(
        format!(
            "your rank is {rank} and that of {} is {}: only a smaller rank revokes; {who}",
            target.operator, target.rank
        ),
        "`starling operator revoke` does it where the root's key is",
    ))
}

fn entry(document: &str, revision: u64, hash: &str, keep: bool) -> anyhow::Result<RetentionEntry> {
    Ok(RetentionEntry {
        document: document.parse()?,
        revision,
        hash: from_hex(hash).ok_or_else(|| anyhow::anyhow!("`{hash}` is no hash"))?,
        keep,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(document: &str) -> view::Held {
        view::Held {
            document: document.to_owned(),
            revision: 3,
            hash: "ab".repeat(32),
            ..view::Held::default()
        }
    }

    fn bob(documents: &[&str]) -> view::Operator {
        view::Operator {
            operator: "bob".into(),
            rank: 2,
            held: documents.iter().map(|document| held(document)).collect(),
            ..view::Operator::default()
        }
    }

    fn choices(keep: &[&str], drop: &[&str]) -> Choices {
        let keys = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        Choices {
            keep: keys(keep),
            drop: keys(drop),
            ..Choices::default()
        }
    }

    #[test]
    fn denials_stay_routes_go_and_a_revocation_is_for_a_person_to_judge() {
        let check = |documents: &[&str], keep: &[&str], drop: &[&str]| {
            let plan = choices(keep, drop).plan(&bob(documents), "sha256:00")?;
            Ok::<_, anyhow::Error>(
                plan.entries
                    .iter()
                    .map(|entry| entry.keep)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(check(&["policy/a"], &[], &[]).unwrap(), [true]);
        assert_eq!(check(&["policy/a"], &[], &["policy/a"]).unwrap(), [false]);
        assert_eq!(check(&["route/a"], &[], &[]).unwrap(), [false]);
        let undecided = check(&["revocation/node-n9"], &[], &[]).unwrap_err();
        assert!(
            undecided.to_string().contains("revocation/node-n9"),
            "{undecided}"
        );
        assert_eq!(
            check(&["revocation/a"], &["revocation/a"], &[]).unwrap(),
            [true]
        );
        assert_eq!(
            check(&["revocation/a"], &[], &["revocation/a"]).unwrap(),
            [false]
        );
        check(&[], &["policy/a"], &[]).unwrap_err();
    }

    #[test]
    fn what_a_list_answered_and_what_was_taken_back_was_asked_again() {
        let mut bob = bob(&["revocation/a", "revocation/b", "policy/c", "revocation/d"]);
        for (n, held) in bob.held.iter_mut().enumerate() {
            held.hash = format!("{n:064x}");
        }
        bob.held[3].deleted = true;
        let listed = |nth: usize, signer: &str, keep| view::ListEntry {
            signer: signer.into(),
            document: bob.held[nth].document.clone(),
            revision: 3,
            hash: bob.held[nth].hash.clone(),
            keep,
        };
        bob.lists = vec![
            listed(0, "sha256:00", true),
            listed(1, "sha256:00", true),
            listed(1, "sha256:01", false),
            listed(2, "sha256:00", false),
        ];
        let plan = choices(&[], &[]).plan(&bob, "sha256:00").unwrap();
        let kept = plan
            .entries
            .iter()
            .map(|entry| (entry.document.to_string(), entry.keep));
        let mut kept: Vec<_> = kept.collect();
        kept.sort();
        let expected = [
            ("policy/c", false),
            ("revocation/a", true),
            ("revocation/b", false),
            ("revocation/d", false),
        ];
        assert_eq!(kept, expected.map(|(name, keep)| (name.to_owned(), keep)));
    }

    /// A thief who signs another revocation each second kept the key's own from succeeding.
    #[test]
    fn all_that_a_thief_goes_on_revoking_can_be_decided_at_once() {
        let held = [
            "revocation/a",
            "revocation/b",
            "operator-revocation/c",
            "policy/d",
        ];
        let decided = |choices: Choices| {
            let mut bob = bob(&held);
            for (n, held) in bob.held.iter_mut().enumerate() {
                held.hash = format!("{n:064x}");
            }
            let plan = choices.plan(&bob, "sha256:00").unwrap();
            let kept = plan.entries.iter().filter(|entry| entry.keep);
            let mut kept: Vec<_> = kept.map(|entry| entry.document.to_string()).collect();
            kept.sort();
            kept
        };
        let drop = Choices {
            drop_others: true,
            ..choices(&["revocation/b"], &[])
        };
        assert_eq!(decided(drop), ["policy/d", "revocation/b"]);
        let keep = Choices {
            keep_others: true,
            ..choices(&[], &["revocation/b"])
        };
        assert_eq!(
            decided(keep),
            ["operator-revocation/c", "policy/d", "revocation/a"]
        );
    }

    #[test]
    fn a_junior_hears_who_can_revoke() {
        let senior = view::Operator {
            operator: "alice".into(),
            rank: 1,
            kinds: vec!["revocation".into()],
            grant_left_s: 60,
            ..view::Operator::default()
        };
        for rank in [2, 3] {
            let refused = may_revoke(rank, false, &bob(&[]), std::slice::from_ref(&senior));
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("alice (rank 1) can"), "{refused}");
        }
        let refused = may_revoke(2, false, &bob(&[]), &[])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("the root alone can"), "{refused}");
        may_revoke(1, false, &bob(&[]), &[]).unwrap();
        may_revoke(2, true, &bob(&[]), &[]).unwrap();
    }
}
