//! The admin server: small HTTP/1 with limits on everything, read-only but for the unix socket.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::post::post;
use super::socket::Socket;
use super::view::Source;
use crate::policy::explain::Question;

/// Connections answered at a time; more wait to be accepted. A monitoring system needs one or two.
const CONNECTIONS_MAX: usize = 32;

/// Bytes of a request's head. Browsers and scrapers send under one kilobyte.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of a request.
const FIELDS_MAX: usize = 64;

/// Time for the head of a request, and for the next one on a kept connection.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// Longest life of a connection, so that a reader that stops reading frees its place.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);

/// Time for answers under way when the agent stops.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Answer = Response<Full<Bytes>>;

/// Where questions come in.
#[derive(Debug)]
pub enum Door {
    /// For commands: `/v1/…`. Whoever may open the file may ask.
    Socket(Socket),
    /// For monitoring: `/metrics`, `/healthz`, `/readyz`. Whoever reaches the address may ask, but no web page.
    Http(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who asks, as far as it matters.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Local,
    Tcp { reached: IpAddr },
}

/// Answers at `door` until `drain`, then finishes the answers under way. Dropping it ends them at once.
pub async fn serve(door: Door, source: Arc<dyn Source>, drain: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let is_full = connections.len() >= CONNECTIONS_MAX;
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            _ = connections.join_next(), if is_full => continue,
            accepted = door.accept(), if !is_full => accepted,
        };
        match accepted {
            Ok((stream, asker)) => {
                connections.spawn(converse(stream, asker, source.clone(), drain.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                drain.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_WAIT, finished).await.is_err() {
        tracing::debug!("admin connections cut off");
    }
}

impl Door {
    /// Cancel-safe, as both kinds of accept are.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Asker)> {
        match self {
            Self::Socket(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok((Box::new(stream), Asker::Local))
            }
            Self::Http(listener) => {
                let (stream, _) = listener.accept().await?;
                let reached = stream.local_addr()?.ip().to_canonical();
                Ok((Box::new(stream), Asker::Tcp { reached }))
            }
        }
    }
}

async fn converse(
    stream: Box<dyn Stream>,
    asker: Asker,
    source: Arc<dyn Source>,
    drain: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(take(request, asker, &*source).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let conversation = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match timeout(CONNECTION_LIFE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
        Err(_elapsed) => tracing::debug!("admin connection outlived its time"),
    }
}

async fn take(request: Request<Incoming>, asker: Asker, source: &dyn Source) -> Answer {
    match (request.method(), asker) {
        (&Method::POST, Asker::Local) => {
            let path = request.uri().path().to_owned();
            post(&path, request.into_body(), source).await
        }
        (method, asker) if is_question(method, request.uri(), asker) => {
            explain(request.uri(), source).await
        }
        (method, asker) => answer(method, request.uri(), request.headers(), asker, source),
    }
}

fn answer(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    asker: Asker,
    source: &dyn Source,
) -> Answer {
    if ![Method::GET, Method::HEAD].contains(method) {
        return only_reading();
    }
    if let Asker::Tcp { reached } = asker
        && !is_meant_for(uri, headers, reached)
    {
        return text(
            StatusCode::FORBIDDEN,
            "ask by address or as localhost, and not from a web page\n",
        );
    }
    match (uri.path(), asker) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) => match source.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        ("/metrics", _) => {
            let mut page = text(StatusCode::OK, source.metrics());
            page.headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
            page
        }
        ("/v1/status", Asker::Local) => json(&source.status()),
        ("/v1/nodes", Asker::Local) => json(&source.nodes()),
        ("/v1/services", Asker::Local) => json(&source.services()),
        ("/v1/routes", Asker::Local) => json(&source.routes()),
        ("/v1/documents", Asker::Local) => json(&source.documents()),
        (path, Asker::Local) => match path.strip_prefix("/v1/documents/").map(str::parse) {
            Some(Ok(key)) => json(&source.document(&key)),
            _ => nothing(),
        },
        _ => nothing(),
    }
}

/// Whether it is asked what would become of a call, which other nodes may have to answer.
fn is_question(method: &Method, uri: &Uri, asker: Asker) -> bool {
    *method == Method::GET && uri.path() == "/v1/explain" && matches!(asker, Asker::Local)
}

async fn explain(uri: &Uri, source: &dyn Source) -> Answer {
    match Question::from_query(uri.query().unwrap_or_default()) {
        Some((question, from)) => match source.explain(question, from).await {
            Ok(explained) => json(&explained),
            Err(why) => text(StatusCode::BAD_GATEWAY, format!("{why}\n")),
        },
        None => text(
            StatusCode::BAD_REQUEST,
            "ask with caller=NAME&callee=NAME and, for requests, method and path\n",
        ),
    }
}

pub(super) fn only_reading() -> Answer {
    let mut refusal = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "only reading is possible here\n",
    );
    refusal
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

fn nothing() -> Answer {
    text(StatusCode::NOT_FOUND, "there is nothing of this name\n")
}

/// Keeps web pages out: their requests carry an `Origin`, or, after DNS rebinding, a name that is not ours as `Host`.
/// Names of this host's own choosing cannot be told from those, so only addresses and `localhost` count.
fn is_meant_for(uri: &Uri, headers: &HeaderMap, reached: IpAddr) -> bool {
    let Some(host) = the_one(headers, HOST) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    if uri.authority().is_some_and(|named| *named != authority) {
        return false;
    }
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    let is_ours = name.eq_ignore_ascii_case("localhost")
        || bare
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical() == reached);
    let is_same_origin = !headers.contains_key(ORIGIN)
        || the_one(headers, ORIGIN).and_then(|origin| origin.strip_prefix("http://")) == Some(host);
    is_ours && is_same_origin
}

fn the_one(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    value.to_str().ok()
}

fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => response(status, "application/json", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests;
