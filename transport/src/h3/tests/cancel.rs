//! Exchanges that one side gives up.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::oneshot;

use crate::h3::testing::*;
use crate::h3::{Exchange, RecvBody, RecvError, RequestErrorKind, RespondError, Responder, codes};

/// A body that never ends, and tells when it is dropped.
struct Endless {
    started: bool,
    _dropped: oneshot::Sender<()>,
}

fn endless() -> (Endless, oneshot::Receiver<()>) {
    let (dropped, watch) = oneshot::channel();
    (
        Endless {
            started: false,
            _dropped: dropped,
        },
        watch,
    )
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.started, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"begun")))))
    }
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("https://orders/").body(Empty::new()).unwrap()
}

fn request(exchange: Option<Exchange>) -> (Request<RecvBody>, Responder) {
    match exchange {
        Some(Exchange::Request(request, responder)) => (request, responder),
        other => panic!("not a request: {other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_drops_the_future_takes_request_and_upload_back() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let (body, mut dropped) = endless();
    let call = tokio::spawn({
        let requester = requester.clone();
        let request = Request::post("https://orders/").body(body).unwrap();
        async move { requester.request(request).await }
    });
    let (request, mut responder) = request(soon(acceptor.next()).await);
    call.abort();
    soon(responder.cancelled()).await;
    let mut body = request.into_body();
    let error = loop {
        match soon(body.frame())
            .await
            .expect("a cancelled body never ends cleanly")
        {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, RecvError::Reset(codes::REQUEST_CANCELLED)),
        "{error:?}"
    );
    soon(&mut dropped).await.unwrap_err();
    drop((body, responder));
    until(|| requester.in_flight() == 0 && acceptor.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_drops_the_body_stops_the_response() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.request(get()).await.unwrap() }
    });
    let (_request, responder) = request(soon(acceptor.next()).await);
    let (body, _dropped) = endless();
    let answer = tokio::spawn(responder.respond(Response::new(body)));
    let response = soon(call).await.unwrap();
    drop(response);
    let error = soon(answer).await.unwrap().unwrap_err();
    assert!(
        matches!(error, RespondError::Cancelled(codes::REQUEST_CANCELLED)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_that_drops_the_body_takes_the_upload_back() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let (body, dropped) = endless();
    let call = tokio::spawn({
        let requester = requester.clone();
        let request = Request::post("https://orders/").body(body).unwrap();
        async move { requester.request(request).await.unwrap() }
    });
    let (_request, responder) = request(soon(acceptor.next()).await);
    let (body, _kept) = endless();
    tokio::spawn(responder.respond(Response::new(body)));
    drop(soon(call).await.unwrap());
    soon(dropped).await.unwrap_err();
}

#[tokio::test]
async fn a_responder_dropped_unused_resets() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { requester.request(get()).await });
    drop(request(soon(acceptor.next()).await));
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Reset(codes::INTERNAL_ERROR));
    assert!(!error.is_unsent());
}

#[tokio::test]
async fn an_interim_status_is_no_answer() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { requester.request(get()).await });
    let (_request, responder) = request(soon(acceptor.next()).await);
    let switching = Response::builder().status(101).body(Empty::<Bytes>::new());
    let error = soon(responder.respond(switching.unwrap()))
        .await
        .unwrap_err();
    assert!(matches!(error, RespondError::Unfit), "{error:?}");
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Reset(codes::INTERNAL_ERROR));
}

#[tokio::test]
async fn an_answer_cut_short_is_no_clean_end() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let call = tokio::spawn(async move { requester.request(get()).await.unwrap() });
    let (_request, responder) = request(soon(acceptor.next()).await);
    let (body, _dropped) = endless();
    let answer = tokio::spawn(responder.respond(Response::new(body)));
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(
        soon(body.frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "begun"
    );
    answer.abort();
    let error = soon(body.frame()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, RecvError::Reset(codes::INTERNAL_ERROR)),
        "{error:?}"
    );
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_without_an_error() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let (body, dropped) = endless();
    let call = tokio::spawn({
        let requester = requester.clone();
        let request = Request::post("https://orders/").body(body).unwrap();
        async move { requester.request(request).await.unwrap() }
    });
    let (request, responder) = request(soon(acceptor.next()).await);
    drop(request);
    let answer = Full::new(Bytes::from_static(b"enough"));
    soon(responder.respond(Response::new(answer)))
        .await
        .unwrap();
    let response = soon(call).await.unwrap();
    assert_eq!(collect(response.into_body()).await, "enough");
    soon(dropped).await.unwrap_err();
    until(|| requester.in_flight() == 0).await;
}

#[tokio::test]
async fn reads_given_up_half_way_harm_nothing() {
    let (requester, mut acceptor, _pair) = h3_pair().await;
    let (body, _dropped) = endless();
    let call = tokio::spawn({
        let requester = requester.clone();
        let request = Request::post("https://orders/").body(body).unwrap();
        async move { requester.request(request).await }
    });
    let (request, responder) = request(soon(acceptor.next()).await);
    let mut body = request.into_body();
    assert_eq!(
        soon(body.frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "begun"
    );
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), body.frame()).await;
    assert!(given_up.is_err());
    drop(body);
    soon(responder.respond(Response::new(Empty::<Bytes>::new())))
        .await
        .unwrap();
    soon(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_connection_reaches_everyone() {
    let (requester, mut acceptor, pair) = h3_pair().await;
    let call = tokio::spawn({
        let requester = requester.clone();
        async move { requester.request(get()).await }
    });
    let (_request, mut responder) = request(soon(acceptor.next()).await);
    pair.server.close(quinn::VarInt::from_u32(0x100), b"");
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::ConnectionLost);
    assert!(!error.is_unsent());
    soon(responder.cancelled()).await;
    assert!(soon(acceptor.next()).await.is_none());
    assert!(!requester.is_open());
    let error = soon(requester.request(get())).await.unwrap_err();
    assert!(error.is_unsent());
}
