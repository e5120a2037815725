//! Whether the nodes agree: on the time, the version, on who is here, on documents.

use super::agent::Own;
use super::peers::{Offset, Peer, Pong};
use super::{Check, Finding, Severity, list};
use crate::said;
use crate::span::{span, span_ms};

/// What the answers of `peers` show, asked by a node that is `own`.
pub fn judge(own: &Own, peers: &[Peer]) -> Vec<Finding> {
    let mut found = clock(peers);
    found.extend(version(own, peers));
    found.extend(mute(peers));
    found.extend(gossip(own, peers));
    found.extend(documents(own, peers));
    found
}

fn clock(peers: &[Peer]) -> Vec<Finding> {
    let told: Vec<_> = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.clock?)))
        .collect();
    let wrong: Vec<_> = told.iter().filter(|(_, offset)| is_off(offset)).collect();
    let Some((_, worst)) = wrong.iter().max_by_key(|(_, offset)| offset.ahead_ms.abs()) else {
        return Vec::new();
    };
    let right = told.len() - wrong.len();
    let evidence = |(peer, offset): &(&Peer, Offset)| {
        format!(
            "the clock of {} is {}, give or take {}",
            peer.node,
            ahead(offset),
            span_ms(offset.error_ms)
        )
    };
    let fix =
        "`timedatectl` shows whether a time service keeps it; chrony or systemd-timesyncd does";
    // Most others agree with each other and not with us, or there is nobody to ask who is right.
    if wrong.len() > right {
        let what = match (told.len(), right) {
            (1, _) => format!(
                "the clocks of this node and {} differ by {}",
                wrong[0].0.node,
                span_ms(worst.ahead_ms.unsigned_abs())
            ),
            (all, _) => format!(
                "the clock of this node differs from those of {} of {all} others, by up to {}",
                wrong.len(),
                span_ms(worst.ahead_ms.unsigned_abs())
            ),
        };
        let mut evidence: Vec<_> = wrong.iter().map(|one| evidence(one)).collect();
        evidence.truncate(EVIDENCE_MAX);
        let severity = how_bad(worst);
        return vec![Finding::new(severity, Check::Clock, what, evidence, fix)];
    }
    let one = |(peer, offset): &&(&Peer, Offset)| {
        let what = format!("the clock of {} is {}", peer.node, ahead(offset));
        let others = format!("those of {right} others agree with this node's");
        let evidence = vec![evidence(&(*peer, *offset)), others];
        Finding::new(how_bad(offset), Check::Clock, what, evidence, fix)
    };
    wrong.iter().map(one).collect()
}

fn is_off(offset: &Offset) -> bool {
    offset.ahead_ms.unsigned_abs() > CLOCK_WARN_MS + offset.error_ms
}

fn how_bad(offset: &Offset) -> Severity {
    match offset.ahead_ms.unsigned_abs() > CLOCK_ERROR_MS {
        true => Severity::Error,
        false => Severity::Warn,
    }
}

fn ahead(offset: &Offset) -> String {
    let by = span_ms(offset.ahead_ms.unsigned_abs());
    match offset.ahead_ms < 0 {
        true => format!("{by} behind"),
        false => format!("{by} ahead"),
    }
}

fn version(own: &Own, peers: &[Peer]) -> Option<Finding> {
    let other: Vec<_> = peers
        .iter()
        .filter_map(|peer| Some((peer, other_version(own, peer)?)))
        .collect();
    if other.is_empty() {
        return None;
    }
    let names: Vec<_> = other.iter().map(|(peer, _)| peer.node.as_str()).collect();
    let what = format!("{} run another version than this node", list(&names));
    let mut evidence = vec![format!("this node runs {}", own.version)];
    let versions = other.iter().take(EVIDENCE_MAX);
    evidence.extend(versions.map(|(peer, version)| format!("{} {version}", peer.node)));
    Some(Finding::new(
        Severity::Warn,
        Check::Version,
        what,
        evidence,
        "bring all hosts to one version; while 0.1 is under construction, two builds need not understand each other",
    ))
}

fn other_version(own: &Own, peer: &Peer) -> Option<String> {
    match peer.pong.as_ref()? {
        Ok(pong) => {
            (pong.version != own.version).then(|| format!("runs {}", said::word(&pong.version)))
        }
        Err(unsaid) => (unsaid.reason.as_deref() == Some("unknown_question"))
            .then(|| "does not know the question for its version".to_owned()),
    }
}

/// Who shook hands but did not answer, for another reason than its version.
fn mute(peers: &[Peer]) -> Vec<Finding> {
    let is_old = |reason: &Option<String>| reason.as_deref() == Some("unknown_question");
    peers
        .iter()
        // A path that loses packets is told as that.
        .filter(|peer| {
            peer.there
                .way()
                .is_some_and(|way| way.mtu >= starling_transport::path::MTU_NEEDED)
        })
        .filter_map(|peer| {
            let unsaid = peer.pong.as_ref()?.as_ref().err()?;
            (!is_old(&unsaid.reason)).then(|| {
                Finding::new(
                    Severity::Warn,
                    Check::Gossip,
                    format!("{} is there, but does not answer questions", peer.node),
                    vec![unsaid.why.clone()],
                    "is it overloaded or just starting? Its log tells more",
                )
            })
        })
        .collect()
}

fn gossip(own: &Own, peers: &[Peer]) -> Vec<Finding> {
    let reached = peers.iter().filter(|peer| peer.there.way().is_some());
    // Who cannot reach us doubts us, and that is told already.
    let reached = reached.filter(|peer| {
        let back = peer.back.as_ref();
        back.is_none_or(|back| back.mesh_port.way().is_some())
    });
    reached.filter_map(|peer| disagreement(own, peer)).collect()
}

fn disagreement(own: &Own, peer: &Peer) -> Option<Finding> {
    let node = &peer.node;
    let mut evidence = Vec::new();
    if peer.liveness != "alive" {
        evidence.push(format!(
            "this node takes it for {}, though it answers",
            peer.liveness
        ));
    }
    if let Some(pong) = peer.said() {
        evidence.extend(blindness(own, pong));
    }
    if !peer.unproven.is_empty() {
        evidence.push(format!(
            "it announces {} without a certificate of it, so nobody calls it there",
            list(&peer.unproven)
        ));
    }
    (!evidence.is_empty()).then(|| {
        Finding::new(
            Severity::Warn,
            Check::Gossip,
            format!("{node} and this node do not see each other as they should"),
            evidence,
            "look again in a minute; if it stays, starling_gossip_refused_total and the logs of both say what is refused",
        )
    })
}

/// What a node that was asked about us does not know.
fn blindness(own: &Own, pong: &Pong) -> Option<String> {
    let Some(sees) = &pong.sees else {
        return (own.announced_s > HEARD_WITHIN_S).then(|| "it does not know this node".to_owned());
    };
    if sees.liveness != "alive" {
        return Some(format!(
            "it takes this node for {}",
            said::word(&sees.liveness)
        ));
    }
    let is_behind = (sees.generation, sees.sequence) < (own.generation, own.sequence);
    (is_behind && own.announced_s > HEARD_WITHIN_S).then(|| {
        format!(
            "it has not heard what this node announced {} ago",
            span(own.announced_s)
        )
    })
}

fn documents(own: &Own, peers: &[Peer]) -> Option<Finding> {
    let differ = |pong: &Pong| {
        let newest = [own.newest_document_s, pong.newest_document_s];
        let newest = newest.into_iter().flatten().min();
        // What was just applied is still on its way.
        pong.documents != own.documents && newest.is_none_or(|age| age > SPREAD_WITHIN_S)
    };
    let other: Vec<_> = peers
        .iter()
        .filter(|peer| peer.said().is_some_and(differ))
        .map(|peer| peer.node.as_str())
        .collect();
    (!other.is_empty()).then(|| {
        Finding::new(
            Severity::Warn,
            Check::Documents,
            format!("{} and this node hold different documents", list(&other)),
            vec![match own.newest_document_s {
                Some(age) => format!("the newest here was issued {} ago", span(age)),
                None => "there is none here".to_owned(),
            }],
            "compare `starling get` on both hosts; a document that one of them refuses is counted in starling_gossip_refused_total",
        )
    })
}

/// A time service keeps clocks within milliseconds; at this, logs of two hosts can no longer be read side by side.
const CLOCK_WARN_MS: u64 = 2_000;

/// Records and certificates bear five minutes. Half of it is close.
const CLOCK_ERROR_MS: u64 = 150_000;

/// Rumours take less than a second, and what they miss is repaired within a few.
const HEARD_WITHIN_S: u64 = 20;

/// A document goes round a cell in seconds. This bears clocks that are off by half a minute.
const SPREAD_WITHIN_S: u64 = 60;

/// Nodes told one by one.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::peers::{Sees, Unsaid};
    use super::super::tests::{own, peer, pong};
    use super::*;

    fn check(peers: &[Peer], expected: &[(Severity, Check, &str)]) {
        let found = judge(&own(), peers);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.severity, one.check, one.what.as_str()))
            .collect();
        assert_eq!(told, expected);
    }

    fn at(node: &str, ahead_ms: i64) -> Peer {
        Peer {
            clock: Some(Offset {
                ahead_ms,
                error_ms: 5,
            }),
            ..peer(node)
        }
    }

    fn saying(pong: Pong) -> Peer {
        Peer {
            pong: Some(Ok(pong)),
            ..peer("n2")
        }
    }

    #[test]
    fn who_is_alone_with_its_time_is_wrong() {
        check(&[at("n2", 3), at("n3", -1_900)], &[]);
        check(
            &[at("n2", 0), at("n3", 90_000)],
            &[(
                Severity::Warn,
                Check::Clock,
                "the clock of n3 is 1m 30s ahead",
            )],
        );
        check(
            &[at("n2", -200_000), at("n3", -200_010)],
            &[(
                Severity::Error,
                Check::Clock,
                "the clock of this node differs from those of 2 of 2 others, by up to 3m 20s",
            )],
        );
        check(
            &[at("n2", 90_000)],
            &[(
                Severity::Warn,
                Check::Clock,
                "the clocks of this node and n2 differ by 1m 30s",
            )],
        );
    }

    #[test]
    fn an_offset_within_what_the_measurement_may_be_wrong_is_none() {
        let mut slow = at("n2", 9_000);
        slow.clock = Some(Offset {
            ahead_ms: 9_000,
            error_ms: 8_000,
        });
        check(&[slow], &[]);
    }

    #[test]
    fn versions_are_told_by_the_answer_or_by_not_knowing_the_question() {
        let newer = saying(Pong {
            version: "0.2.0".into(),
            ..pong()
        });
        let mut older = peer("n3");
        older.pong = Some(Err(Unsaid {
            reason: Some("unknown_question".into()),
            why: "nothing of this name".into(),
        }));
        let what = "n2 and n3 run another version than this node";
        check(&[newer, older], &[(Severity::Warn, Check::Version, what)]);
    }

    #[test]
    fn who_shakes_hands_and_says_nothing_is_told() {
        let mut mute = peer("n2");
        mute.pong = Some(Err(Unsaid {
            reason: None,
            why: "did not answer".into(),
        }));
        let what = "n2 is there, but does not answer questions";
        check(&[mute], &[(Severity::Warn, Check::Gossip, what)]);
    }

    #[test]
    fn nodes_that_see_each_other_otherwise_are_told_with_how() {
        let with = |sees: Option<Sees>| saying(Pong { sees, ..pong() });
        let sees = pong().sees.unwrap();
        let suspected = with(Some(Sees {
            liveness: "suspect".into(),
            ..sees.clone()
        }));
        let behind = with(Some(Sees {
            sequence: sees.sequence - 1,
            ..sees
        }));
        for (peer, evidence) in [
            (suspected, "it takes this node for suspect"),
            (
                behind,
                "it has not heard what this node announced 1m 0s ago",
            ),
            (with(None), "it does not know this node"),
        ] {
            let found = judge(&own(), &[peer]);
            assert_eq!((found.len(), found[0].check), (1, Check::Gossip));
            assert_eq!(found[0].evidence, [evidence]);
        }
    }

    #[test]
    fn documents_on_their_way_are_no_finding() {
        let with = |documents: Option<&str>, age| {
            saying(Pong {
                documents: documents.map(str::to_owned),
                newest_document_s: age,
                ..pong()
            })
        };
        check(&[with(Some("d1"), Some(500))], &[]);
        check(&[with(Some("d2"), Some(5))], &[]);
        let what = "n2 and this node hold different documents";
        let expected = [(Severity::Warn, Check::Documents, what)];
        check(&[with(Some("d2"), Some(500))], &expected);
        check(&[with(None, None)], &expected);
    }
}
