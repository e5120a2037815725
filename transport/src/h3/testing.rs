//! Two ends of one QUIC connection on loopback, and bytes to send over it by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::h3::guard::put_varint;

/// Both ends, with the endpoints that carry them.
pub(crate) struct Pair {
    pub(crate) client: quinn::Connection,
    pub(crate) server: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

pub(crate) async fn pair() -> Pair {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let cert = signed.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());

    let mut server_tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key.into())
        .unwrap();
    server_tls.alpn_protocols = vec![b"h3".to_vec()];
    let server_config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls).unwrap()));

    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    let mut client_tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client_tls.alpn_protocols = vec![b"h3".to_vec()];
    let client_config =
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls).unwrap()));

    let loopback = ([127, 0, 0, 1], 0).into();
    let server = quinn::Endpoint::server(server_config, loopback).unwrap();
    let client = quinn::Endpoint::client(loopback).unwrap();
    let dialled = client
        .connect_with(client_config, server.local_addr().unwrap(), "localhost")
        .unwrap();
    let accepted = async { server.accept().await.unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dialled, accepted);
    Pair {
        client: dialled.unwrap(),
        server: accepted,
        _endpoints: [client, server],
    }
}

/// HTTP/3 on both ends.
pub(crate) async fn h3_pair() -> (Requester, Acceptor, Pair) {
    let pair = pair().await;
    let requester = requester(&pair).await;
    let acceptor = acceptor(&pair).await;
    (requester, acceptor, pair)
}

pub(crate) async fn requester(pair: &Pair) -> Requester {
    let (requester, driver) = Requester::start(pair.client.clone(), Limits::default())
        .await
        .unwrap();
    tokio::spawn(driver);
    requester
}

pub(crate) async fn acceptor(pair: &Pair) -> Acceptor {
    Acceptor::start(pair.server.clone(), Limits::default())
        .await
        .unwrap()
}

/// Serves every exchange with `handle`, each in a task of its own, until the connection ends.
pub(crate) fn serve<F>(
    mut acceptor: Acceptor,
    handle: impl Fn(Exchange) -> F + Send + 'static,
) -> tokio::task::JoinHandle<Acceptor>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(exchange) = acceptor.next().await {
            tokio::spawn(handle(exchange));
        }
        acceptor
    })
}

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("this should not take so long")
}

/// Polls `is_so` until it holds.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) async fn collect(body: RecvBody) -> Bytes {
    soon(body.collect()).await.unwrap().to_bytes()
}

/// Bytes of one frame.
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, kind);
    put_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// A field section of literals.
pub(crate) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        qpack::put_integer(&mut out, 0b0010_0000, 3, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        qpack::put_integer(&mut out, 0, 7, value.len() as u64);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// A HEADERS frame of literals.
pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, &section(fields))
}

/// What every good request begins with.
pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a"),
    (":path", "/"),
];

/// [`GET`] with more fields.
pub(crate) fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    headers(&[&GET[..], more].concat())
}

/// How the peer took bytes sent by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The stream was reset with this code.
    Stream(u64),
    /// The connection was closed with this code.
    Connection(u64),
    /// There was an answer.
    Answered,
}

/// Waits for what becomes of a stream that was written by hand.
pub(crate) async fn taken(connection: &quinn::Connection, recv: &mut quinn::RecvStream) -> Taken {
    match soon(recv.read_chunk(usize::MAX, true)).await {
        Ok(_) => Taken::Answered,
        Err(quinn::ReadError::Reset(code)) => Taken::Stream(code.into_inner()),
        Err(_) => closed(connection).await,
    }
}

pub(crate) async fn closed(connection: &quinn::Connection) -> Taken {
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            Taken::Connection(close.error_code.into_inner())
        }
        other => panic!("closed otherwise: {other}"),
    }
}
