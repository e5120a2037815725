//! Healthy facts, to change one of, and what all of them together give.

use super::agent::{Agent, Own};
use super::certificates::{Certificate, Kind};
use super::peers::{Failure, Offset, Peer, Pong, Sees, Tried, Way};
use super::*;

pub(super) fn reached(mtu: u16) -> Tried {
    Tried::Reached(Way {
        handshake_ms: 2,
        mtu,
    })
}

pub(super) fn failed(reason: &str) -> Tried {
    Tried::Failed(Failure {
        reason: reason.into(),
        why: "no answer within 3s".into(),
    })
}

pub(super) fn pong() -> Pong {
    Pong {
        version: "0.1.0".into(),
        now_ms: 0,
        sees: Some(Sees {
            liveness: "alive".into(),
            generation: 4,
            sequence: 7,
        }),
        heard_ms: None,
        documents: Some("d1".into()),
        newest_document_s: Some(500),
    }
}

pub(super) fn peer(node: &str) -> Peer {
    Peer {
        node: node.into(),
        address: "10.0.0.9:7400".into(),
        liveness: "alive".into(),
        there: reached(1452),
        heard_ms: None,
        certificate: None,
        pong: Some(Ok(pong())),
        clock: Some(Offset {
            ahead_ms: 0,
            error_ms: 1,
        }),
        back: None,
        opinions: Vec::new(),
        unproven: Vec::new(),
    }
}

pub(super) fn own() -> Own {
    Own {
        node: "n1".into(),
        version: "0.1.0".into(),
        generation: 4,
        sequence: 7,
        announced_s: 60,
        documents: Some("d1".into()),
        newest_document_s: Some(500),
    }
}

pub(crate) fn agent() -> Agent {
    Agent {
        own: own(),
        state: "/var/lib/starling".into(),
        directory: "/etc/starling".into(),
        config_error: None,
        absent: Vec::new(),
        certificates: vec![Certificate {
            name: "node/n1".into(),
            life_s: 86_400,
            left_s: 80_000,
            kind: Kind::Leaf,
        }],
        renewal: None,
        refused: None,
        open_files: None,
        documents: documents::Documents::default(),
        lines: lines::Lines::default(),
        seeds: Vec::new(),
        peers: vec![peer("n2"), peer("n3")],
        left_out: 0,
    }
}

fn facts() -> Facts {
    Facts {
        system: system::System::default(),
        files: files::Files::default(),
        version: "0.1.0".into(),
        agent: Ok(agent()),
    }
}

#[test]
fn a_healthy_host_has_no_findings() {
    assert_eq!(findings(&facts()), []);
}

#[test]
fn the_worst_comes_first() {
    let mut facts = facts();
    let agent = facts.agent.as_mut().unwrap();
    agent.peers[0].there = reached(1400);
    agent.peers[1].there = failed("timed_out");
    agent.peers[0].clock = Some(Offset {
        ahead_ms: 9_000,
        error_ms: 1,
    });
    let found = findings(&facts);
    let told: Vec<_> = found.iter().map(|one| one.check).collect();
    assert_eq!(told, [Check::Reach, Check::Clock, Check::Mtu]);
}

#[test]
fn without_an_agent_the_files_speak() {
    let mut facts = facts();
    facts.agent = Err("no agent answers at /run/starling/admin.sock".into());
    facts.files.certificates = vec![Certificate {
        name: "node/n1".into(),
        life_s: 86_400,
        left_s: -5,
        kind: Kind::Leaf,
    }];
    let found = findings(&facts);
    let told: Vec<_> = found.iter().map(|one| one.check).collect();
    assert_eq!(told, [Check::Certificate, Check::Agent]);
}

#[test]
fn an_agent_from_before_the_upgrade_is_told() {
    let mut facts = facts();
    facts.version = "0.2.0".into();
    let found = findings(&facts);
    assert_eq!(
        found[0].what,
        "the agent runs 0.1.0, and this program is 0.2.0"
    );
}

#[test]
fn names_are_listed_up_to_a_bound() {
    assert_eq!(list(&["a"]), "a");
    assert_eq!(list(&["a", "b"]), "a and b");
    assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    let many: Vec<_> = (0..9).map(|n| n.to_string()).collect();
    assert_eq!(list(&many), "0, 1, 2, 3, 4 and 4 more");
}

#[test]
fn every_check_is_explained() {
    let page = include_str!("../../../docs/check.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let written: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let known: Vec<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
    assert_eq!(
        written, known,
        "docs/check.md (left) and the code (right) differ"
    );
    for check in Check::ALL {
        let json = serde_json::to_value(check).unwrap();
        assert_eq!(json, check.as_str());
    }
}
