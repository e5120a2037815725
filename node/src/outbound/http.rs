//! HTTP requests of local apps.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Route;
use super::send::send;
use crate::body::{Body, Call, Closing, boxed, full};
use crate::config::Protocol;
use crate::headers;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Series;
use crate::upgrade::{self, Switched};

/// Serves one connection of an app, HTTP/1.1 or HTTP/2 by prior knowledge.
pub(super) async fn serve(route: Arc<Route>, socket: TcpStream) {
    let series = route.series(Protocol::Http);
    let _open = series.open();
    let limits = route.host.config.load().limits.clone();
    let drain = route.host.drain.clone();
    let next = Arc::<upgrade::Next>::default();
    let is_http2 = tokio::select! {
        seen = tokio::time::timeout(limits.idle, speaks_http2(&socket)) => seen,
        // It never asked for anything.
        () = drain.cancelled() => return,
    };
    let Ok(Ok(is_http2)) = is_http2 else {
        return;
    };
    let leave = next.clone();
    let service = service_fn(move |request| {
        let (route, series, next) = (route.clone(), series.clone(), leave.clone());
        // Boxed, so that an idle connection holds no room for a call: hyper keeps as much as one call needs.
        Box::pin(async move { Ok::<_, Infallible>(call(&route, &series, &next, request).await) })
    });
    let socket = TokioIo::new(socket);
    let ended = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_peer)
            .max_header_list_size(limits.header_bytes);
        let mut connection = Box::pin(builder.serve_connection(socket, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size((limits.header_bytes as usize).max(HTTP1_BUFFER_BYTES_MIN));
        let mut connection = pin!(builder.serve_connection(socket, service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an app's connection ended");
    }
    next.run(limits.idle).await;
}

/// Whether the app begins as HTTP/2 does. Looked at in the kernel's buffer: a reader in between, as hyper-util's is,
/// hands hyper its first bytes apart from the rest, and hyper then keeps twice the buffer for as long as the
/// connection lives.
async fn speaks_http2(socket: &TcpStream) -> io::Result<bool> {
    let mut head = [0; PREFACE.len()];
    loop {
        let bytes = socket.peek(&mut head).await?;
        if bytes == 0 || !PREFACE.starts_with(&head[..bytes]) {
            return Ok(false);
        }
        if bytes == PREFACE.len() {
            return Ok(true);
        }
        // A first packet of one to three bytes is as good as never seen, and what was peeked at stays readable.
        tokio::time::sleep(PEEK_PAUSE).await;
    }
}

/// One request, from the app's words to the app's answer. The mesh's own errors are answers too.
async fn call(
    route: &Route,
    series: &Arc<Series>,
    next: &upgrade::Next,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut line = AccessLine::request(series, request.method(), request.uri().path());
    let connection = hyper::upgrade::on(&mut request);
    match send(route, request, &mut line).await {
        Ok((pick, response)) => {
            line.set_status(response.status());
            let (mut head, body) = response.into_parts();
            // How it came over the mesh is no business of the app's connection.
            head.version = Version::HTTP_11;
            if let Some(reason) = headers::response_from_peer(&mut head.headers) {
                line.fail(reason);
            }
            if let Some(side) = Switched::take(&mut head.extensions) {
                next.switch(&mut head.headers, connection, side, line, pick);
                return Response::from_parts(head, body);
            }
            let call = Call {
                line,
                pick: Some(pick),
                broken: Reason::UpstreamReset,
            };
            Response::from_parts(head, boxed(Closing::new(body, call)))
        }
        Err(reason) => {
            line.fail(reason);
            line.set_status(reason.status());
            line.finish();
            reason.response(route.service.as_str()).map(full)
        }
    }
}

/// How the preface of HTTP/2 begins (RFC 9113 §3.4). No method of HTTP/1 is called PRI.
const PREFACE: &[u8] = b"PRI ";

/// How long to wait for the rest of a preface that came in pieces.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// hyper's smallest.
const HTTP1_BUFFER_BYTES_MIN: usize = 8192;
