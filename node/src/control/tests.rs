use starling_gossip::NodeName;

use super::*;
use crate::testing::{Agent, Ca, all_know_all};

async fn greet(host: Arc<Host>, peer: Leaf, name: String) -> Result<String, Refused> {
    match name.as_str() {
        "nobody" => Err(Refused::new(StatusCode::CONFLICT, "absent", "not\nhere")),
        "all" => Ok("x".repeat(BODY_BYTES_MAX)),
        _ => Ok(format!("{name} from {} at {}", peer.id, host.node)),
    }
}

fn control() -> Control {
    Control::new(vec![
        Handler::new("/v1/node", Who::Node, greet),
        Handler::new("/v1/anyone", Who::Anyone, greet),
    ])
}

async fn two() -> (Agent, Agent) {
    let ca = Ca::new();
    let a = ca.agent("a", "web", &[], control());
    let b = ca.agent("b", "orders", &[a.addr], control());
    all_know_all(&[&a, &b]).await;
    (a, b)
}

#[tokio::test]
async fn a_node_is_asked_as_a_node_and_as_a_service() {
    let (a, _b) = two().await;
    let (control, b) = (a.host.control(), NodeName::parse("b").unwrap());
    let answer: String = control.ask(&b, "/v1/node", &"hello").await.unwrap();
    assert_eq!(answer, "hello from spiffe://test.example/node/a at b");
    let web = SpiffeId::parse("spiffe://test.example/svc/web").unwrap();
    let answer: String = control
        .ask_as(&web, &b, "/v1/anyone", &"hello")
        .await
        .unwrap();
    assert_eq!(answer, "hello from spiffe://test.example/svc/web at b");
    let itself: String = control
        .ask(&a.host.node, "/v1/node", &"hello")
        .await
        .unwrap();
    assert_eq!(itself, "hello from spiffe://test.example/node/a at a");
}

#[tokio::test]
async fn what_is_not_answered_says_why() {
    let (a, _b) = two().await;
    let (control, b) = (a.host.control(), NodeName::parse("b").unwrap());
    let web = SpiffeId::parse("spiffe://test.example/svc/web").unwrap();
    let reason = |asked: Result<String, ControlError>| {
        let error = asked.unwrap_err();
        let refused = error.refused().unwrap_or_else(|| panic!("{error}"));
        (refused.status().as_u16(), refused.reason.clone())
    };
    let asked = control.ask_as(&web, &b, "/v1/node", &"hello").await;
    assert_eq!(reason(asked), (404, "unknown_question".to_owned()));
    let asked = control.ask(&b, "/v1/nothing", &"hello").await;
    assert_eq!(reason(asked), (404, "unknown_question".to_owned()));
    let asked = control.ask(&b, "/v1/node", &7).await;
    assert_eq!(reason(asked), (400, "bad_question".to_owned()));
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    let asked = control.ask(&b, "/v1/node", &long).await;
    assert_eq!(reason(asked), (400, "bad_question".to_owned()));
    let asked = control.ask(&b, "/v1/node", &"all").await;
    assert_eq!(reason(asked), (500, "internal".to_owned()));
    let asked: Result<String, _> = control.ask(&b, "/v1/node", &"nobody").await;
    assert_eq!(
        asked.unwrap_err().to_string(),
        "node `b` refused (absent), saying \"not\\nhere\""
    );
    let nobody = NodeName::parse("c").unwrap();
    let asked: Result<String, _> = control.ask(&nobody, "/v1/node", &"hello").await;
    assert!(matches!(asked, Err(ControlError::UnknownNode(_))));
}

#[tokio::test]
async fn more_questions_than_there_is_room_for_are_turned_away() {
    let (a, b) = two().await;
    let held = b.host.control.under_way.acquire_many(64).await.unwrap();
    let name = NodeName::parse("b").unwrap();
    let asked: Result<String, _> = a.host.control().ask(&name, "/v1/node", &"hello").await;
    assert_eq!(asked.unwrap_err().refused().unwrap().reason, "busy");
    drop(held);
    let asked: Result<String, _> = a.host.control().ask(&name, "/v1/node", &"hello").await;
    asked.unwrap();
}

#[tokio::test]
async fn a_question_that_is_not_post_is_refused() {
    let (a, _b) = two().await;
    let request = Request::get("/v1/node").body(full(Bytes::new())).unwrap();
    let peer = a.host.identities.current().node.leaf().clone();
    assert_eq!(serve(&a.host, &peer, request).await.status(), 405);
}
