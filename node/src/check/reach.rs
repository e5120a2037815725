//! Whether packets get through: there, back, from a stranger, and how large ones.

use starling_transport::path::{MTU_MAX, MTU_NEEDED};

use super::peers::{Failure, Opinion, Peer, Tried, Way};
use super::{Check, Finding, Severity, list};
use crate::said;
use crate::span::span_ms;

/// What the paths to `peers` show.
pub fn judge(peers: &[Peer]) -> Vec<Finding> {
    let mut found = unreached(peers);
    found.extend(back(peers));
    found.extend(firewall(peers));
    found.extend(mtu(peers, Severity::Error, |mtu| mtu < MTU_NEEDED));
    found.extend(mtu(peers, Severity::Note, |mtu| {
        (MTU_NEEDED..MTU_MAX).contains(&mtu)
    }));
    found
}

fn unreached(peers: &[Peer]) -> Vec<Finding> {
    let failed: Vec<_> = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.there.failure()?)))
        // A certificate of ours that has ended is a finding of its own.
        .filter(|(_, failure)| !matches!(failure.reason.as_str(), "expired" | "not_ours"))
        .collect();
    if failed.len() > 1 && failed.len() == peers.len() {
        let what = format!("none of the {} other nodes can be reached", peers.len());
        let mut evidence: Vec<_> = failed
            .iter()
            .flat_map(|(peer, failure)| [format!("{}: {}", peer.node, failure.why)])
            .collect();
        evidence.truncate(EVIDENCE_MAX);
        evidence.extend(failed.iter().find_map(|(peer, _)| heard_here(peer)));
        let fix = "does this host have its network, and does its firewall let UDP of the mesh port out and in?";
        return vec![Finding::new(
            Severity::Error,
            Check::Reach,
            what,
            evidence,
            fix,
        )];
    }
    failed
        .into_iter()
        .map(|(peer, failure)| one_unreached(peer, failure))
        .collect()
}

fn one_unreached(peer: &Peer, failure: &Failure) -> Finding {
    let mut evidence = vec![failure.why.clone()];
    evidence.extend(heard_here(peer));
    evidence.extend(peer.opinions.iter().map(|opinion| told(peer, opinion)));
    let mut reached = peer.opinions.iter().filter(|opinion| opinion.pong.is_ok());
    let heard_there = reached.next().map(|opinion| opinion.heard);
    let Peer { node, address, .. } = peer;
    let is_silent = failure.reason == "timed_out";
    if is_silent && heard_there.is_none() && !peer.opinions.is_empty() {
        let what = format!("{node} answers neither this node nor others");
        let fix = format!(
            "is its host up and its agent running? `systemctl status starling` there; if it is gone for good: `starling decommission {node}`"
        );
        return Finding::new(Severity::Warn, Check::Reach, what, evidence, fix);
    }
    let what = format!("{node} cannot be reached at {address}");
    let fix = match (is_silent, heard_there, peer.heard_ms) {
        (false, ..) => format!(
            "something is there, but not {node} as this node knows it: `handshake refused` in the logs of both hosts says why"
        ),
        (true, Some(true), _) => format!(
            "packets of this node arrive there and the answers do not come back: let UDP from {address} in here, and out there"
        ),
        (true, Some(false), _) | (true, None, Some(_)) => {
            format!(
                "packets of this node do not arrive there: let UDP to {address} out here, and in there"
            )
        }
        (true, None, None) => format!(
            "is its agent running? If so, let UDP to and from {address} through on both hosts and between"
        ),
    };
    Finding::new(Severity::Error, Check::Reach, what, evidence, fix)
}

fn heard_here(peer: &Peer) -> Option<String> {
    let ago = span_ms(peer.heard_ms?);
    Some(format!(
        "it does send: a handshake from {} began here {ago} ago",
        peer.address
    ))
}

fn told(peer: &Peer, opinion: &Opinion) -> String {
    let by = &opinion.node;
    let name = &peer.node;
    match (&opinion.pong, opinion.heard) {
        (Err(why), _) => format!(
            "{by} does not reach it either, and says {}",
            said::quoted(why)
        ),
        (Ok(_), true) => {
            format!("{by} reaches it, and {name} says that this node's handshake began there")
        }
        (Ok(_), false) => {
            format!("{by} reaches it, and {name} says that no handshake of this node came to it")
        }
    }
}

/// Those who dialled this node in vain.
fn back(peers: &[Peer]) -> Option<Finding> {
    let failed: Vec<_> = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.back.as_ref()?)))
        .filter_map(|(peer, back)| Some((peer, back, back.mesh_port.failure()?)))
        .collect();
    let (_, first, _) = failed.first()?;
    let names: Vec<_> = failed.iter().map(|(peer, ..)| peer.node.as_str()).collect();
    let what = format!(
        "{} cannot reach this node at {}, which it announces",
        list(&names),
        first.address
    );
    let evidence = failed.iter().take(EVIDENCE_MAX).map(|(peer, _, failure)| {
        format!(
            "{} was asked to, and says {}",
            peer.node,
            said::quoted(&failure.why)
        )
    });
    let fix = format!(
        "is {} an address of this host that others know? If not, set `advertise`; if so, let UDP to it in",
        first.address
    );
    Some(Finding::new(
        Severity::Error,
        Check::ReachBack,
        what,
        evidence.collect(),
        fix,
    ))
}

/// Those who reached this node from the port that it talks to anyway, but not from another one. Only if nobody did: else it is
/// a matter of one peer.
fn firewall(peers: &[Peer]) -> Option<Finding> {
    let backs = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.back.as_ref()?)));
    let tried: Vec<(&Peer, &Tried)> = backs
        .filter_map(|(peer, back)| Some((peer, back.another_port.as_ref()?)))
        .collect();
    if tried.is_empty() || tried.iter().any(|(_, tried)| tried.way().is_some()) {
        return None;
    }
    let evidence = tried.iter().filter_map(|(peer, tried)| {
        let why = said::quoted(&tried.failure()?.why);
        Some(format!(
            "{} dialled from another port, and says {why}; from its mesh port it went well",
            peer.node
        ))
    });
    Some(Finding::new(
        Severity::Warn,
        Check::Firewall,
        "only nodes that this one talked to before can reach it",
        evidence.collect(),
        "a firewall or NAT here lets answers in, and nothing else: let UDP to the mesh port in from all nodes",
    ))
}

fn mtu(peers: &[Peer], severity: Severity, is_wanted: impl Fn(u16) -> bool) -> Option<Finding> {
    let small: Vec<_> = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.there.way()?, way_back(peer))))
        .filter(|(_, there, back)| is_wanted(smaller(there, *back)))
        .collect();
    if small.is_empty() {
        return None;
    }
    let names: Vec<_> = small.iter().map(|(peer, ..)| peer.node.as_str()).collect();
    let evidence = small.iter().take(EVIDENCE_MAX).map(|(peer, there, back)| {
        let back = back.map_or_else(String::new, |way| format!(", back up to {}", way.mtu));
        format!(
            "{}: UDP payloads up to {} bytes arrive there{back}; the handshake took {}",
            peer.node,
            there.mtu,
            span_ms(there.handshake_ms)
        )
    });
    let names = list(&names);
    let (what, fix) = match severity {
        Severity::Note => (
            format!("the path to {names} carries packets smaller than Ethernet's"),
            "nothing needs to be done; a tunnel between the hosts costs that much".to_owned(),
        ),
        _ => (
            format!("usual packets get lost between this node and {names}"),
            format!(
                "each new connection stalls until it has found out: give the interfaces and tunnels on the way an MTU of {} \
                 at least, or let ICMP `fragmentation needed` through",
                u32::from(MTU_NEEDED) + HEADERS
            ),
        ),
    };
    Some(Finding::new(
        severity,
        Check::Mtu,
        what,
        evidence.collect(),
        fix,
    ))
}

fn way_back(peer: &Peer) -> Option<&Way> {
    peer.back.as_ref()?.mesh_port.way()
}

fn smaller(there: &Way, back: Option<&Way>) -> u16 {
    back.map_or(there.mtu, |back| back.mtu.min(there.mtu))
}

/// Nodes told one by one.
const EVIDENCE_MAX: usize = 8;

/// Of IPv6 and UDP.
const HEADERS: u32 = 48;

#[cfg(test)]
mod tests {
    use super::super::peers::Back;
    use super::super::tests::{failed, peer, pong, reached};
    use super::*;

    fn check(peers: &[Peer], expected: &[(Severity, Check, &str)]) {
        let found = judge(peers);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.severity, one.check, one.what.as_str()))
            .collect();
        assert_eq!(told, expected);
    }

    fn silent(opinions: Vec<Opinion>, heard_ms: Option<u64>) -> Peer {
        Peer {
            there: failed("timed_out"),
            opinions,
            heard_ms,
            ..peer("n3")
        }
    }

    fn reaches(heard: bool) -> Opinion {
        Opinion {
            node: "n2".into(),
            pong: Ok(pong()),
            heard,
        }
    }

    #[test]
    fn whole_paths_are_no_finding() {
        check(&[peer("n2"), peer("n3")], &[]);
        check(&[], &[]);
    }

    #[test]
    fn which_way_is_blocked_follows_from_what_others_say() {
        let what = "n3 cannot be reached at 10.0.0.9:7400";
        let expected = [(Severity::Error, Check::Reach, what)];
        for (opinions, heard_here, fix) in [
            (vec![reaches(true)], None, "the answers do not come back"),
            (vec![reaches(false)], None, "do not arrive there"),
            (vec![], Some(3), "do not arrive there"),
            (vec![], None, "is its agent running?"),
        ] {
            let peers = [peer("n2"), silent(opinions, heard_here)];
            check(&peers, &expected);
            let found = judge(&peers);
            assert!(found[0].fix.contains(fix), "{fix}: {found:?}");
        }
    }

    #[test]
    fn who_answers_nobody_is_down_and_that_is_not_the_network() {
        let opinion = Opinion {
            node: "n2".into(),
            pong: Err("no answer".into()),
            heard: false,
        };
        check(
            &[peer("n2"), silent(vec![opinion], None)],
            &[(
                Severity::Warn,
                Check::Reach,
                "n3 answers neither this node nor others",
            )],
        );
    }

    #[test]
    fn a_host_without_network_is_one_finding() {
        let what = "none of the 2 other nodes can be reached";
        check(
            &[silent(vec![], None), silent(vec![], None)],
            &[(Severity::Error, Check::Reach, what)],
        );
    }

    fn dialled_back(mesh_port: Tried, another_port: Option<Tried>) -> Peer {
        Peer {
            back: Some(Back {
                address: "10.0.0.1:7400".into(),
                mesh_port,
                another_port,
            }),
            ..peer("n2")
        }
    }

    #[test]
    fn a_wrong_address_and_a_firewall_are_told_apart() {
        let whole = || reached(1452);
        check(&[dialled_back(whole(), Some(whole()))], &[]);
        let what = "n2 cannot reach this node at 10.0.0.1:7400, which it announces";
        check(
            &[dialled_back(failed("timed_out"), None)],
            &[(Severity::Error, Check::ReachBack, what)],
        );
        let stateful = dialled_back(whole(), Some(failed("timed_out")));
        let what = "only nodes that this one talked to before can reach it";
        check(
            std::slice::from_ref(&stateful),
            &[(Severity::Warn, Check::Firewall, what)],
        );
        check(&[stateful, dialled_back(whole(), Some(whole()))], &[]);
    }

    #[test]
    fn the_smaller_of_the_two_ways_counts() {
        let with = |there, back| Peer {
            there: reached(there),
            ..dialled_back(reached(back), None)
        };
        let what = "usual packets get lost between this node and n2";
        check(&[with(1452, 1200)], &[(Severity::Error, Check::Mtu, what)]);
        check(&[with(1260, 1452)], &[(Severity::Error, Check::Mtu, what)]);
        let what = "the path to n2 carries packets smaller than Ethernet's";
        check(&[with(1372, 1372)], &[(Severity::Note, Check::Mtu, what)]);
        check(&[with(1452, 1452)], &[]);
    }
}
