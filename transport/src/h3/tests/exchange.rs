//! Requests that go well.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};

use crate::h3::testing::*;
use crate::h3::{Exchange, RequestErrorKind};

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://orders{path}"))
        .body(Empty::new())
        .unwrap()
}

fn frames(
    frames: Vec<Frame<Bytes>>,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok)))
}

/// Answers with what it was asked: path, body and trailers.
async fn echo(exchange: Exchange) {
    let Exchange::Request(request, responder) = exchange else {
        panic!("a tunnel")
    };
    let (parts, body) = request.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let mut answer = vec![Frame::data(collected.to_bytes())];
    answer.extend(trailers.map(Frame::trailers));
    let response = Response::builder()
        .header("x-path", parts.uri.path())
        .header("x-method", parts.method.as_str());
    responder
        .respond(response.body(frames(answer)).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_empty_request_and_answer() {
    let (requester, acceptor, _pair) = h3_pair().await;
    serve(acceptor, echo);
    let response = soon(requester.request(get("/cart"))).await.unwrap();
    assert_eq!(response.headers()["x-path"], "/cart");
    assert!(collect(response.into_body()).await.is_empty());
    until(|| requester.in_flight() == 0).await;
}

#[tokio::test]
async fn bodies_and_trailers_both_ways() {
    let (requester, acceptor, _pair) = h3_pair().await;
    serve(acceptor, echo);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let body = frames(vec![
        Frame::data(Bytes::from_static(b"one ")),
        Frame::data(Bytes::new()),
        Frame::data(Bytes::from_static(b"two")),
        Frame::trailers(trailers),
    ]);
    let request = Request::post("https://orders/").body(body).unwrap();
    let response = soon(requester.request(request)).await.unwrap();
    let collected = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
    assert_eq!(collected.to_bytes(), "one two");
}

#[tokio::test]
async fn a_large_body_waits_for_its_reader() {
    const SIZE: usize = 64 << 20;
    let (requester, acceptor, pair) = h3_pair().await;
    serve(acceptor, echo_size);
    let body = Full::new(Bytes::from(vec![7; SIZE]));
    let request = Request::post("https://orders/").body(body).unwrap();
    let response = soon(requester.request(request)).await.unwrap();
    let mut body = response.into_body();
    // The peer answers with as much as it got. Unread, it cannot have sent more than QUIC lets it.
    until(|| pair.client.stats().frame_rx.stream > 0).await;
    let mut size = 0;
    while let Some(frame) = soon(body.frame()).await {
        size += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(size, SIZE);
}

async fn echo_size(exchange: Exchange) {
    let Exchange::Request(request, responder) = exchange else {
        panic!("a tunnel")
    };
    assert_eq!(
        request.headers().get("content-length"),
        None,
        "nobody makes one up"
    );
    responder
        .respond(Response::new(request.into_body()))
        .await
        .unwrap();
}

#[tokio::test]
async fn empty_bodies_are_known_to_be_empty() {
    let (requester, acceptor, _pair) = h3_pair().await;
    serve(acceptor, |exchange| async {
        let Exchange::Request(request, responder) = exchange else {
            panic!("a tunnel")
        };
        assert!(request.body().is_end_stream());
        let status = match request.uri().path() {
            "/204" => StatusCode::NO_CONTENT,
            "/304" => StatusCode::NOT_MODIFIED,
            _ => StatusCode::OK,
        };
        let response = Response::builder()
            .status(status)
            .header("content-length", "5")
            .body(Full::new(Bytes::from_static(b"hello")));
        responder.respond(response.unwrap()).await.unwrap();
    });
    for (method, path) in [
        (Method::HEAD, "/"),
        (Method::GET, "/204"),
        (Method::GET, "/304"),
    ] {
        let mut request = get(path);
        *request.method_mut() = method;
        let response = soon(requester.request(request)).await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.body().size_hint().exact(), Some(0));
        assert!(collect(response.into_body()).await.is_empty());
    }
    let response = soon(requester.request(get("/"))).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(5));
    assert_eq!(collect(response.into_body()).await, "hello");
}

#[tokio::test]
async fn hop_by_hop_fields_and_host_stay_behind() {
    let (requester, acceptor, _pair) = h3_pair().await;
    serve(acceptor, |exchange| async {
        let Exchange::Request(request, responder) = exchange else {
            panic!("a tunnel")
        };
        assert_eq!(request.uri().authority().unwrap(), "orders.example");
        assert_eq!(request.headers().len(), 1, "{:?}", request.headers());
        let response = Response::builder()
            .header("transfer-encoding", "chunked")
            .header("connection", "close")
            .body(Empty::new());
        responder.respond(response.unwrap()).await.unwrap();
    });
    let request = Request::get("/")
        .header("host", "orders.example")
        .header("connection", "keep-alive")
        .header("keep-alive", "5")
        .header("te", "gzip")
        .header("x-kept", "1")
        .body(Empty::new())
        .unwrap();
    let response = soon(requester.request(request)).await.unwrap();
    assert!(response.headers().is_empty());
}

#[tokio::test]
async fn what_http3_cannot_say_is_refused_before_it_is_sent() {
    let (requester, _acceptor, _pair) = h3_pair().await;
    let nowhere = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
    let connect = Request::connect("orders:80").body(Empty::new()).unwrap();
    for request in [nowhere, connect] {
        let error = soon(requester.request(request)).await.unwrap_err();
        assert_eq!(error.kind(), RequestErrorKind::Invalid);
        assert!(error.is_unsent());
    }
    assert!(requester.is_open());
}

#[tokio::test]
async fn many_at_once() {
    let (requester, acceptor, _pair) = h3_pair().await;
    serve(acceptor, echo);
    let calls = (0..300).map(|n| {
        let requester = requester.clone();
        tokio::spawn(async move {
            let response = requester.request(get(&format!("/{n}"))).await.unwrap();
            assert_eq!(response.headers()["x-path"], format!("/{n}"));
            collect(response.into_body()).await;
        })
    });
    for call in calls.collect::<Vec<_>>() {
        soon(call).await.unwrap();
    }
}
