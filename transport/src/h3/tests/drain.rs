//! Going away.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{Empty, Full};

use crate::h3::testing::*;
use crate::h3::{Exchange, RequestErrorKind, codes};

fn get() -> Request<Empty<Bytes>> {
    Request::get("https://orders/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_nothing_new_begins() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.request(get()).await.unwrap() }
    });
    let Some(Exchange::Request(_request, responder)) = soon(acceptor.next()).await else {
        panic!("not a request")
    };
    acceptor.goaway().await;
    until(|| !requester.is_open()).await;
    let error = soon(requester.request(get())).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::GoingAway);
    assert!(error.is_unsent());
    let error = soon(requester.connect("orders", HeaderMap::new()))
        .await
        .unwrap_err();
    assert!(error.is_unsent());

    assert_eq!(
        acceptor.in_flight(),
        1,
        "body and responder are one exchange"
    );
    let last =
        tokio::spawn(
            async move { acceptor.next().await.is_none() && acceptor.next().await.is_none() },
        );
    let answer = Full::new(Bytes::from_static(b"done"));
    soon(responder.respond(Response::new(answer)))
        .await
        .unwrap();
    assert_eq!(collect(soon(call).await.unwrap().into_body()).await, "done");
    assert!(
        soon(last).await.unwrap(),
        "a drained connection has no next exchange"
    );
}

#[tokio::test]
async fn a_request_that_races_with_the_goaway_is_safe_to_try_elsewhere() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    // Sent, but not looked at before the server says goodbye.
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.request(get()).await }
    });
    until(|| requester.in_flight() == 1).await;
    acceptor.goaway().await;
    let last = tokio::spawn(async move { acceptor.next().await.is_none() });
    let error = soon(call).await.unwrap().unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
    assert!(soon(last).await.unwrap());
}

#[tokio::test]
async fn the_goaway_names_the_first_stream_not_served() {
    let pair = pair().await;
    let mut acceptor = acceptor(&pair).await;
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    send.write_all(&get_with(&[])).await.unwrap();
    let _exchange = soon(acceptor.next()).await.unwrap();
    acceptor.goaway().await;
    let mut control = loop {
        let mut stream = soon(pair.client.accept_uni()).await.unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).await.unwrap();
        if kind == [0] {
            break stream;
        }
    };
    let mut bytes = Vec::new();
    while !bytes.ends_with(&frame(7, &[4])) {
        let chunk = soon(control.read_chunk(64, true)).await.unwrap().unwrap();
        bytes.extend_from_slice(&chunk.bytes);
    }
    // A stream past it is rejected unread.
    let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
    send.write_all(&get_with(&[])).await.unwrap();
    tokio::spawn(async move { acceptor.next().await });
    assert_eq!(
        taken(&pair.client, &mut recv).await,
        Taken::Stream(codes::REQUEST_REJECTED)
    );
}

#[tokio::test]
async fn the_last_requester_closes_the_connection() {
    let (requester, mut acceptor, pair) = h3_pair().await;
    let call = requester.request(get());
    let answer = async {
        let Some(Exchange::Request(_, responder)) = acceptor.next().await else {
            panic!("not a request")
        };
        tokio::spawn(responder.respond(Response::new(Full::new(Bytes::from_static(b"bye")))));
    };
    let (response, ()) = soon(async { tokio::join!(call, answer) }).await;
    drop(requester);
    let body = response.unwrap().into_body();
    assert_eq!(
        collect(body).await,
        "bye",
        "a response in flight keeps the connection"
    );
    assert!(soon(acceptor.next()).await.is_none());
    assert_eq!(
        closed(&pair.server).await,
        Taken::Connection(codes::NO_ERROR)
    );
}
