//! Plain HTTP on a socket, HTTP/1.1 or HTTP/2 by prior knowledge: with apps of this host, and with callers without the
//! mesh.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::config::Limits;

/// Answers the requests of one connection until it ends; after `drain`, until those under way are answered.
pub(crate) async fn serve<S>(
    socket: TcpStream,
    service: S,
    limits: &Limits,
    drain: &CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let is_http2 = tokio::select! {
        seen = tokio::time::timeout(limits.idle, speaks_http2(&socket)) => seen,
        // It never asked for anything.
        () = drain.cancelled() => return,
    };
    let Ok(Ok(is_http2)) = is_http2 else {
        return;
    };
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
        tracing::debug!(%error, "a plain connection ended");
    }
}

/// Whether a connection begins as HTTP/2 does. Looked at in the kernel's buffer: a reader in between, as hyper-util's
/// is, hands hyper its first bytes apart from the rest, and hyper then keeps twice the buffer for as long as the
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

/// How the preface of HTTP/2 begins (RFC 9113 §3.4). No method of HTTP/1 is called PRI.
const PREFACE: &[u8] = b"PRI ";

/// How long to wait for the rest of a preface that came in pieces.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// hyper's smallest.
const HTTP1_BUFFER_BYTES_MIN: usize = 8192;
