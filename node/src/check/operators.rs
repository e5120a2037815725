//! What operators should know of their keys: shares that fill up, what a revoked key left behind, grants that end.

use std::collections::BTreeMap;

use super::{Check, Finding, Severity};
use crate::admin::view::Operator;

/// Judges what an agent knows of operators.
pub(super) fn judge(operators: &[Operator]) -> Vec<Finding> {
    let found = [
        full(operators),
        over(operators),
        unlisted(operators),
        ending(operators),
    ];
    found.into_iter().flatten().collect()
}

fn full(operators: &[Operator]) -> Option<Finding> {
    let fills = operators.iter().flat_map(|operator| {
        let full = operator.fills.iter().filter(|fill| fill.percent >= FULL_PERCENT);
        full.map(move |fill| {
            let Operator { operator, key, .. } = operator;
            let (room, percent) = (&fill.room, fill.percent);
            format!("{operator} ({key}) fills {percent} % of the share of {room}: {} documents, {} bytes", fill.names, fill.bytes)
        })
    });
    finding(
        Severity::Warn,
        "an operator's share of documents is nearly full",
        fills.collect(),
        "delete documents that are not needed, or sign with another operator's key; past its share a key signs nothing new",
    )
}

fn over(operators: &[Operator]) -> Option<Finding> {
    let over = operators.iter().flat_map(|operator| {
        let over = operator.fills.iter().filter(|fill| fill.is_over);
        over.map(move |fill| format!("{} ({}): {}", operator.operator, operator.key, fill.room))
    });
    finding(
        Severity::Error,
        "peers offer more documents of a key than there is room for; nodes may hold different ones",
        over.collect(),
        "revoke the key with `starling revoke key/…` unless its operator knows why: it may be in a thief's hands",
    )
}

fn unlisted(operators: &[Operator]) -> Option<Finding> {
    let left = operators.iter().flat_map(|operator| {
        let left = operator
            .held
            .iter()
            .filter(|held| held.standing == "unlisted");
        left.map(move |held| {
            format!(
                "{}@{} of {} ({})",
                held.document, held.revision, operator.operator, operator.key
            )
        })
    });
    finding(
        Severity::Warn,
        "what a revoked operator signed is on no list: it denies here, and hosts that join later do not get it",
        left.collect(),
        "run `starling revoke key/…` of that key on this host as another operator, with --keep or --drop where it asks",
    )
}

/// A name under which nobody can sign soon.
fn ending(operators: &[Operator]) -> Option<Finding> {
    let ending = ending_names(operators)
        .into_iter()
        .map(|(name, left_s)| match left_s {
            0 => format!("no grant of {name} is valid any more"),
            left_s => format!("the last grant of {name} ends in {} days", left_s / DAY_S),
        });
    finding(
        Severity::Warn,
        "an operator can sign nothing soon; what was signed stays in force",
        ending.collect(),
        "make the operator anew with `starling operator new` where the root's key is",
    )
}

/// Operators of whom every key that is not revoked has a grant that ends within 30 days, with what is left of the last.
pub(crate) fn ending_names(operators: &[Operator]) -> BTreeMap<&str, u64> {
    let mut left: BTreeMap<&str, u64> = BTreeMap::new();
    for operator in operators
        .iter()
        .filter(|operator| operator.revoked.is_none())
    {
        let longest = left.entry(operator.operator.as_str()).or_default();
        *longest = (*longest).max(operator.grant_left_s);
    }
    left.retain(|_, left_s| *left_s < 30 * DAY_S);
    left
}

fn finding(
    severity: Severity,
    what: &str,
    mut evidence: Vec<String>,
    fix: &str,
) -> Option<Finding> {
    evidence.truncate(EVIDENCE_MAX);
    (!evidence.is_empty()).then(|| Finding::new(severity, Check::Documents, what, evidence, fix))
}

/// Of its share.
const FULL_PERCENT: usize = 80;
const EVIDENCE_MAX: usize = 8;
const DAY_S: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::{Fill, Held};

    fn alice() -> Operator {
        Operator {
            operator: "alice".into(),
            key: "sha256:00".into(),
            grant_left_s: 31 * DAY_S,
            fills: vec![Fill {
                room: "policy".into(),
                percent: 79,
                ..Fill::default()
            }],
            ..Operator::default()
        }
    }

    fn whats(operator: Operator) -> Vec<String> {
        judge(&[operator])
            .into_iter()
            .map(|found| found.what)
            .collect()
    }

    #[test]
    fn shares_grants_and_what_is_on_no_list_are_found() {
        assert!(whats(alice()).is_empty());
        let check = |operator: Operator, word: &str| {
            let found = whats(operator);
            assert!(
                found.len() == 1 && found[0].contains(word),
                "{word}: {found:?}"
            );
        };
        let fill = |percent, is_over| Operator {
            fills: vec![Fill {
                room: "policy".into(),
                percent,
                is_over,
                ..Fill::default()
            }],
            ..alice()
        };
        check(fill(80, false), "nearly full");
        check(fill(10, true), "more documents of a key");
        check(
            Operator {
                grant_left_s: 29 * DAY_S,
                ..alice()
            },
            "can sign nothing soon",
        );
        let left = Held {
            document: "policy/x".into(),
            standing: "unlisted".into(),
            ..Held::default()
        };
        check(
            Operator {
                held: vec![left],
                revoked: Some("root".into()),
                ..alice()
            },
            "on no list",
        );
        // Another key of the same name will do.
        let old = Operator {
            grant_left_s: 0,
            ..alice()
        };
        assert!(judge(&[old, alice()]).is_empty());
    }
}
