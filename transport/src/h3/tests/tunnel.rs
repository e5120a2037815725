//! Tunnels.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::h3::testing::*;
use crate::h3::{
    ConnectRequest, Exchange, RequestErrorKind, Requester, Tunnel, TunnelError, TunnelRecv, codes,
};

fn connect_request(exchange: Option<Exchange>) -> ConnectRequest {
    match exchange {
        Some(Exchange::Connect(request)) => request,
        other => panic!("not a tunnel: {other:?}"),
    }
}

async fn tunnel_pair() -> (Tunnel, Tunnel, Requester, Pair) {
    let (requester, mut acceptor, pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("x-deadline", "9".parse().unwrap());
            requester.connect("orders:80", headers).await.unwrap()
        }
    });
    let request = connect_request(soon(acceptor.next()).await);
    assert_eq!(request.authority, "orders:80");
    assert_eq!(request.headers["x-deadline"], "9");
    let mut headers = HeaderMap::new();
    headers.insert("x-node", "n1".parse().unwrap());
    let server = soon(request.accept(headers)).await.unwrap();
    tokio::spawn(async move { while acceptor.next().await.is_some() {} });
    let (response, client) = soon(call).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-node"], "n1");
    (client, server, requester, pair)
}

async fn read_all(recv: &mut TunnelRecv) -> Result<Vec<u8>, TunnelError> {
    let (mut chunks, mut all) = (Vec::new(), Vec::new());
    while soon(recv.read_chunks(&mut chunks)).await? {
        assert!(!chunks.is_empty());
        all.extend(chunks.drain(..).flatten());
    }
    Ok(all)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (client, server, requester, _pair) = tunnel_pair().await;
    let (mut client_send, mut client_recv) = client.split();
    let (mut server_send, mut server_recv) = server.split();
    client_send.send(Bytes::from_static(b"ping")).await.unwrap();
    client_send.finish().await.unwrap();
    assert_eq!(read_all(&mut server_recv).await.unwrap(), b"ping");
    server_send.send(Bytes::from_static(b"pong")).await.unwrap();
    server_send.finish().await.unwrap();
    assert_eq!(read_all(&mut client_recv).await.unwrap(), b"pong");
    soon(server_send.closed()).await.unwrap();
    drop((client_send, client_recv));
    until(|| requester.in_flight() == 0).await;
}

#[tokio::test]
async fn a_reset_is_seen_as_one_both_ways() {
    for drops in [false, true] {
        let (client, server, _requester, _pair) = tunnel_pair().await;
        let (mut client_send, client_recv) = client.split();
        let (mut server_send, mut server_recv) = server.split();
        client_send.send(Bytes::from_static(b"half")).await.unwrap();
        if drops {
            drop((client_send, client_recv));
        } else {
            client_send.reset();
            drop(client_recv);
        }
        let error = read_all(&mut server_recv).await.unwrap_err();
        assert!(
            matches!(error, TunnelError::Reset(codes::CONNECT_ERROR)),
            "{error:?}"
        );
        let error = soon(server_send.closed()).await.unwrap_err();
        assert!(
            matches!(error, TunnelError::Reset(codes::CONNECT_ERROR)),
            "{error:?}"
        );
    }
    let (client, server, _requester, _pair) = tunnel_pair().await;
    let (_client_send, mut client_recv) = client.split();
    let (mut server_send, _server_recv) = server.split();
    server_send.reset();
    let error = read_all(&mut client_recv).await.unwrap_err();
    assert!(
        matches!(error, TunnelError::Reset(codes::CONNECT_ERROR)),
        "{error:?}"
    );
}

#[tokio::test]
async fn megabytes_pass_whole_and_wait_for_the_reader() {
    let (client, server, _requester, _pair) = tunnel_pair().await;
    let (mut client_send, _client_recv) = client.split();
    let (_server_send, mut server_recv) = server.split();
    let sent: Vec<u8> = (0..32u32 << 20).map(|n| (n / 7) as u8).collect();
    let upload = tokio::spawn({
        let sent = Bytes::from(sent.clone());
        async move {
            for from in (0..sent.len()).step_by(100_000) {
                client_send
                    .send(sent.slice(from..sent.len().min(from + 100_000)))
                    .await
                    .unwrap();
            }
            client_send.finish().await.unwrap();
            client_send
        }
    });
    assert!(read_all(&mut server_recv).await.unwrap() == sent);
    soon(upload).await.unwrap();
}

#[tokio::test]
async fn a_send_given_up_half_way_is_finished_by_the_next() {
    let (client, server, _requester, _pair) = tunnel_pair().await;
    let (mut client_send, _client_recv) = client.split();
    let (_server_send, mut server_recv) = server.split();
    let first = Bytes::from(vec![1; 32 << 20]);
    let given_up = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        client_send.send(first),
    )
    .await;
    assert!(given_up.is_err(), "nobody reads yet");
    let reader = tokio::spawn(async move { read_all(&mut server_recv).await.unwrap() });
    soon(client_send.send(Bytes::from_static(&[2])))
        .await
        .unwrap();
    client_send.finish().await.unwrap();
    let all = soon(reader).await.unwrap();
    assert_eq!((all.len(), all.last()), ((32 << 20) + 1, Some(&2)));
}

#[tokio::test]
async fn a_refused_tunnel_tells_why() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.connect("orders", HeaderMap::new()).await }
    });
    let request = connect_request(soon(acceptor.next()).await);
    let response = Response::builder()
        .status(403)
        .header("starling-error", "denied")
        .body(Bytes::from_static(b"no grant\n"));
    soon(request.refuse(response.unwrap())).await.unwrap();
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Refused);
    let response = error.response().unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["starling-error"], "denied");
}

#[tokio::test]
async fn a_tunnel_given_up_before_its_answer() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.connect("orders", HeaderMap::new()).await }
    });
    let mut request = connect_request(soon(acceptor.next()).await);
    call.abort();
    soon(request.cancelled()).await;
    drop(request);
    until(|| requester.in_flight() == 0 && acceptor.in_flight() == 0).await;
}

#[tokio::test]
async fn a_connect_request_dropped_unanswered_resets() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { requester.connect("orders", HeaderMap::new()).await });
    drop(connect_request(soon(acceptor.next()).await));
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Reset(codes::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_reading_side_that_stops_is_noticed_without_sending() {
    let (client, server, _requester, _pair) = tunnel_pair().await;
    let (mut client_send, _client_recv) = client.split();
    let (_server_send, mut server_recv) = server.split();
    server_recv.stop();
    let error = soon(client_send.closed()).await.unwrap_err();
    assert!(
        matches!(error, TunnelError::Reset(codes::CONNECT_ERROR)),
        "{error:?}"
    );
}
