//! The side that serves.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h3::error::StreamError;
use ::h3::frame::FrameStream;
use ::h3::quic::StreamId;
use ::h3::server::{Connection, RequestStream};
use ::h3::stream::BufRecvStream;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::Limits;
use super::backend::{Arrived, Backend, Flight, Shared};
use super::body::{self, Held, Receiver, RecvBody, Sender};
use super::error::{RespondError, StartError};
use super::guard::Reason;
use super::metrics;
use super::stream::{Bidi, Link, SendHalf, Stopped};
use super::tunnel::Tunnel;

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
pub enum Exchange {
    /// A request, and what answers it.
    Request(Request<RecvBody>, Responder),
    /// A tunnel.
    Connect(ConnectRequest),
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
        let shared = self.shared.clone();
        self.last = Some(Box::pin(async move {
            shared.idle().await;
            // Responses finished just before may still be on their way; later ones are awaited by `respond`.
            tokio::time::sleep(shared.connection().rtt() * LINGER_ROUND_TRIPS + LINGER_LEAST).await;
        }));
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
        match &mut self.last {
            Some(last) => last.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
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
                    count_refusal(&error);
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
fn count_refusal(error: &StreamError) {
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
    let Arrived {
        link,
        stopped,
        flight,
    } = arrived;
    let (parts, ()) = request.into_parts();
    let is_tunnel =
        parts.method == Method::CONNECT && parts.extensions.get::<::h3::ext::Protocol>().is_none();
    if is_tunnel {
        let authority = parts
            .uri
            .authority()
            .map_or_else(String::new, |authority| authority.as_str().to_owned());
        let headers = parts.headers;
        return Exchange::Connect(ConnectRequest {
            authority,
            headers,
            stream,
            link,
            stopped,
            flight,
        });
    }
    let (send, recv) = stream.split();
    let flight = Arc::new(flight);
    let responder = Responder {
        stream: send,
        stopped,
        bodiless: parts.method == Method::HEAD,
        flight: flight.clone(),
    };
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

/// Answers one request. Dropped without answering it resets the stream with H3_INTERNAL_ERROR: never a clean end.
pub struct Responder {
    stream: RequestStream<SendHalf, Bytes>,
    stopped: Stopped,
    /// Whether the request was HEAD, to which no body is sent.
    bodiless: bool,
    flight: Arc<Flight>,
}

impl Responder {
    /// Sends the response, its body and its trailers to the end.
    ///
    /// Gives up as soon as the client does. After an error, or dropped meanwhile, the stream is reset. Hop-by-hop fields are
    /// left out, and so is the body of an answer that may have none. While the connection drains it also waits until the
    /// client has received everything.
    pub async fn respond<B>(mut self, response: Response<B>) -> Result<(), RespondError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut parts, body) = response.into_parts();
        body::strip_connection_fields(&mut parts.headers);
        let bodiless = self.bodiless
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        self.stream
            .send_response(Response::from_parts(parts, ()))
            .await?;
        let mut sender = Sender::Server(self.stream);
        if bodiless {
            sender.finish().await?;
        } else {
            body::send(body, &mut sender, &mut self.stopped).await?;
        }
        if self.flight.shared().is_draining() {
            poll_fn(|cx| self.stopped.poll(cx)).await?;
        }
        Ok(())
    }

    /// Resolves when the client no longer wants the response or is gone, and never otherwise. Cancel-safe.
    pub async fn cancelled(&mut self) {
        cancelled(&mut self.stopped).await;
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// A tunnel that a client asks for. Dropped without an answer it resets the stream.
pub struct ConnectRequest {
    /// Where to, as the client wrote it.
    pub authority: String,
    /// The request's fields.
    pub headers: HeaderMap,
    stream: RequestStream<Bidi, Bytes>,
    link: Arc<Link>,
    stopped: Stopped,
    flight: Flight,
}

impl ConnectRequest {
    /// Answers 200 with `headers`; from then on the stream is the tunnel.
    pub async fn accept(mut self, mut headers: HeaderMap) -> Result<Tunnel, RespondError> {
        body::strip_connection_fields(&mut headers);
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        self.stream.send_response(response).await?;
        let (send, recv) = self
            .link
            .reclaim(self.stream)
            .expect("the stream was whole until here");
        Ok(Tunnel::new(send, recv, Arc::new(self.flight)))
    }

    /// Answers with something other than success.
    pub async fn refuse(mut self, response: Response<Bytes>) -> Result<(), RespondError> {
        let (mut parts, body) = response.into_parts();
        body::strip_connection_fields(&mut parts.headers);
        self.stream
            .send_response(Response::from_parts(parts, ()))
            .await?;
        if !body.is_empty() {
            self.stream.send_data(body).await?;
        }
        Ok(self.stream.finish().await?)
    }

    /// Resolves when the client no longer wants the tunnel or is gone, and never otherwise. Cancel-safe.
    pub async fn cancelled(&mut self) {
        cancelled(&mut self.stopped).await;
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

async fn cancelled(stopped: &mut Stopped) {
    poll_fn(|cx| match stopped.poll(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    })
    .await;
}

/// How long a drained connection stays after its last exchange: time for a loss to be noticed and repaired.
const LINGER_ROUND_TRIPS: u32 = 3;
const LINGER_LEAST: Duration = Duration::from_millis(50);
