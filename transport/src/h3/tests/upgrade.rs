//! Upgrades: extended CONNECT, said at both ends as a GET with the field `upgrade`.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::h3::testing::*;
use crate::h3::{Exchange, RequestErrorKind, Requester, TunnelResponder, Upgraded, codes};

fn websocket() -> Request<()> {
    let request = Request::get("https://chat/room?id=7")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13");
    request.body(()).unwrap()
}

fn asked(exchange: Option<Exchange>) -> (Request<()>, TunnelResponder) {
    match exchange {
        Some(Exchange::Upgrade(request, responder)) => (request, responder),
        other => panic!("not an upgrade: {other:?}"),
    }
}

async fn ask(requester: &Requester, request: Request<()>) -> Upgraded {
    soon(requester.upgrade(request)).await.unwrap()
}

#[tokio::test]
async fn an_upgrade_arrives_as_it_was_asked_and_becomes_a_tunnel() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { ask(&requester, websocket()).await });
    let (request, responder) = asked(soon(acceptor.next()).await);
    assert_eq!(request.method(), "GET");
    assert_eq!(request.uri(), "https://chat/room?id=7");
    assert_eq!(request.headers()["upgrade"], "websocket");
    assert_eq!(request.headers()["sec-websocket-version"], "13");
    assert!(!request.headers().contains_key("connection"));
    let mut fields = HeaderMap::new();
    fields.insert("sec-websocket-protocol", "chat".parse().unwrap());
    let server = soon(responder.accept(fields)).await.unwrap();
    tokio::spawn(async move { while acceptor.next().await.is_some() {} });
    let Upgraded::Switched(response, client) = soon(call).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    let (mut send, _recv) = client.split();
    send.send(Bytes::from_static(b"hello")).await.unwrap();
    send.finish().await.unwrap();
    let (_send, mut recv) = server.split();
    let mut chunks = Vec::new();
    while soon(recv.read_chunks(&mut chunks)).await.unwrap() {}
    assert_eq!(chunks.concat(), b"hello");
}

#[tokio::test]
async fn a_refused_upgrade_brings_the_whole_answer() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let counting = requester.clone();
    let call = tokio::spawn(async move { ask(&requester, websocket()).await });
    let (_request, responder) = asked(soon(acceptor.next()).await);
    let served = tokio::spawn(async move {
        let response = Response::builder().status(401).header("x-why", "no token");
        let response = response.body(Full::new(Bytes::from(vec![b'n'; 300_000])));
        responder.refuse(response.unwrap()).await.unwrap();
        while acceptor.next().await.is_some() {}
    });
    let Upgraded::Refused(response) = soon(call).await.unwrap() else {
        panic!("accepted");
    };
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["x-why"], "no token");
    let body = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), vec![b'n'; 300_000]);
    until(|| counting.in_flight() == 0).await;
    drop(counting);
    soon(served).await.unwrap();
}

#[tokio::test]
async fn a_success_is_no_refusal() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { requester.upgrade(websocket()).await });
    let (_request, responder) = asked(soon(acceptor.next()).await);
    let response = Response::new(Full::new(Bytes::new()));
    soon(responder.refuse(response)).await.unwrap_err();
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Reset(codes::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_peer_without_extended_connect_is_not_asked() {
    let pair = pair().await;
    let requester = requester(&pair).await;
    // A control stream with empty settings.
    let mut control = pair.server.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    let error = soon(requester.upgrade(websocket())).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unsupported);
    assert!(error.is_unsent());
}

#[tokio::test]
async fn only_a_get_that_names_a_protocol_is_an_upgrade() {
    let (requester, _acceptor, _pair) = h3_pair().await;
    let mut post = websocket();
    *post.method_mut() = http::Method::POST;
    let mut plain = websocket();
    plain.headers_mut().remove("upgrade");
    for request in [post, plain] {
        let error = soon(requester.upgrade(request)).await.unwrap_err();
        assert_eq!(error.kind(), RequestErrorKind::Invalid);
    }
}
