//! The side that serves.

mod pledge;
mod respond;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h3::error::StreamError;
use ::h3::frame::FrameStream;
use ::h3::quic::StreamId;
use ::h3::server::{Connection, RequestStream};
use ::h3::stream::BufRecvStream;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request, header};

use super::Limits;
use super::backend::{Arrived, Backend, Shared};
use super::body::{Held, Receiver, RecvBody};
use super::error::StartError;
use super::guard::Reason;
use super::metrics;
use super::stream::Bidi;
use pledge::Pledge;
pub use respond::{ConnectRequest, Responder, TunnelResponder};

/// Takes the requests and tunnels of one connection.
///
/// Dropped, it closes the connection with H3_NO_ERROR and cuts off what is in flight; keep calling [`next`](Self::next)
/// until it ends.
pub struct Acceptor {
    connection: Connection<Backend, Bytes>,
    shared: Arc<Shared>,
    /// Streams whose head has not arrived yet. QUIC's limit on streams bounds how many there are.
    heads: FuturesUnordered<Head>,
    goaway: Option<StreamId>,
    /// Set once nothing new can come: resolves when what is in flight is done.
    last: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

type Head = Pin<Box<dyn Future<Output = Option<Exchange>> + Send>>;

/// One thing a client asks for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per exchange, taken apart at once; a box costs more"
)]
pub enum Exchange {
    /// A request, and what answers it.
    Request(Request<RecvBody>, Responder),
    /// A tunnel.
    Connect(ConnectRequest),
    /// A request for the stream to become another protocol's (extended CONNECT, RFC 9220), said as HTTP/1.1 does: a GET
    /// whose field `upgrade` names the protocol. No other request has that field.
    Upgrade(Request<()>, TunnelResponder),
}

impl Acceptor {
    /// Begins HTTP/3 on a connection that a peer dialled. It waits for the peer only if the peer allows no streams, so
    /// callers that must not wait put a time limit on it.
    pub async fn start(connection: quinn::Connection, limits: Limits) -> Result<Self, StartError> {
        let header_bytes = limits.header_bytes as u64;
        let shared = Shared::new(connection, limits);
        let connection = ::h3::server::builder()
            .max_field_section_size(header_bytes)
            .send_grease(false)
            .enable_extended_connect(true)
            .build(Backend::new(shared.clone()))
            .await
            .map_err(StartError)?;
        Ok(Self {
            connection,
            shared,
            heads: FuturesUnordered::new(),
            goaway: None,
            last: None,
        })
    }

    /// The next well-formed request or tunnel. Malformed ones are refused and counted, and never get here.
    ///
    /// `None` once the connection is closed, or nothing can come any more and nothing is in flight: after
    /// [`goaway`](Self::goaway), or because the client said goodbye. This also drives the connection, so keep calling it.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Exchange> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Serves nothing new from here on: what the client sent before finishes, what races with this is rejected as safe to
    /// try elsewhere. Said twice it changes nothing.
    pub async fn goaway(&mut self) {
        if self.shared.is_draining() {
            return;
        }
        let below = self.shared.drain();
        let shared = self.shared.clone();
        self.last = Some(Box::pin(async move {
            shared.idle().await;
            // Responses finished just before may still be on their way; later ones are awaited by `respond`.
            tokio::time::sleep(shared.connection().rtt() * LINGER_ROUND_TRIPS + LINGER_LEAST).await;
        }));
        let Ok(below) = StreamId::try_from(below) else {
            return;
        };
        if let Err(error) = self
            .connection
            .inner
            .shutdown(&mut self.goaway, below)
            .await
        {
            tracing::debug!(%error, "goaway not sent");
        }
    }

    /// Requests and tunnels that have not come to their end, including those whose head is still arriving.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }

    /// The connection underneath.
    pub fn connection(&self) -> &quinn::Connection {
        self.shared.connection()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Exchange>> {
        loop {
            match self.connection.poll_accept_request_stream(cx) {
                Poll::Ready(Ok(Some(stream))) => {
                    if let Some(exchange) = self.begin(stream, cx) {
                        return Poll::Ready(Some(exchange));
                    }
                }
                Poll::Ready(Ok(None)) => {
                    self.wind_up();
                    break;
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "http/3 connection ended");
                    return Poll::Ready(None);
                }
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some(resolved)) = Pin::new(&mut self.heads).poll_next(cx) {
            if let Some(exchange) = resolved {
                return Poll::Ready(Some(exchange));
            }
        }
        let Some(last) = &mut self.last else {
            return Poll::Pending;
        };
        ready!(last.as_mut().poll(cx));
        // Asked again, the answer stays the same.
        self.last = Some(Box::pin(poll_fn(|_| Poll::Ready(()))));
        Poll::Ready(None)
    }

    /// Reads the stream's head, mostly at once: it came in the packet that opened the stream.
    fn begin(&mut self, stream: Bidi, cx: &mut Context<'_>) -> Option<Exchange> {
        let arrived = self.connection.inner.conn.take_arrived()?;
        let resolver = self
            .connection
            .create_resolver(FrameStream::new(BufRecvStream::new(stream)));
        let mut head: Head = Box::pin(async move {
            match resolver.resolve_request().await {
                Ok((request, stream)) => Some(exchange(request, stream, arrived).await),
                Err(error) => {
                    note_failure(&error, arrived.flight.shared());
                    None
                }
            }
        });
        match head.as_mut().poll(cx) {
            Poll::Ready(exchange) => exchange,
            Poll::Pending => {
                self.heads.push(head);
                None
            }
        }
    }

    /// The client sends nothing new; what is in flight may finish.
    fn wind_up(&mut self) {
        let shared = self.shared.clone();
        self.last
            .get_or_insert_with(|| Box::pin(async move { shared.idle().await }));
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// What the guard refuses it counts itself; the rest is what h3's own parsing adds.
fn note_failure(error: &StreamError, shared: &Shared) {
    if !matches!(error, StreamError::ConnectionError(_)) {
        shared.gave_up();
    }
    if matches!(
        error,
        StreamError::StreamError { .. } | StreamError::HeaderTooBig { .. }
    ) {
        metrics::refused(Reason::PseudoHeader);
    }
}

async fn exchange(
    request: Request<()>,
    stream: RequestStream<Bidi, Bytes>,
    arrived: Arrived,
) -> Exchange {
    let (mut parts, ()) = request.into_parts();
    let pledge = Pledge::new(arrived);
    if parts.method == Method::CONNECT {
        let responder = TunnelResponder::new(stream, pledge);
        // The guard put it there, see `guard::fields`.
        if parts.headers.contains_key(header::UPGRADE) {
            parts.method = Method::GET;
            parts.headers.remove(header::CONTENT_LENGTH);
            return Exchange::Upgrade(Request::from_parts(parts, ()), responder);
        }
        let authority = parts
            .uri
            .authority()
            .map_or_else(String::new, |authority| authority.as_str().to_owned());
        return Exchange::Connect(ConnectRequest::new(authority, parts.headers, responder));
    }
    let (send, recv) = stream.split();
    let flight = pledge.flight().clone();
    let responder = Responder::new(send, pledge, parts.method == Method::HEAD);
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let body = RecvBody::new(
        Receiver::Server(recv),
        length,
        Held {
            _flight: flight,
            upload: None,
            _requester: None,
        },
    );
    Exchange::Request(Request::from_parts(parts, body.peek().await), responder)
}

/// How long a drained connection stays after its last exchange: time for a loss to be noticed and repaired.
const LINGER_ROUND_TRIPS: u32 = 3;
const LINGER_LEAST: Duration = Duration::from_millis(50);
