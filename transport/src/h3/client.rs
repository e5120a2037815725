//! The side that asks.

mod answer;
mod upload;

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};

use ::h3::client::SendRequest;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body::Body;

use super::Limits;
use super::backend::{Backend, Flight, OPENING, Opener, Opening, Shared};
use super::body::{self, Held, Receiver, RecvBody, Sender};
use super::codes;
use super::error::{RequestError, RequestErrorKind, StartError};
use super::guard::{Asked, Guard, MessageGuard, put_varint};
use super::qpack;
use super::stream::{Link, RecvHalf, SendHalf, code};
use super::tunnel::Tunnel;
pub use answer::AnswerBody;
pub(super) use upload::Upload;

/// Sends requests and opens tunnels on one connection. Cheap to clone.
///
/// When the last clone is dropped and nothing is in flight any more, the connection closes with H3_NO_ERROR.
#[derive(Clone)]
pub struct Requester(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Locked only to be cloned. h3 closes the connection when the last sender is gone, so this one keeps it.
    sender: Mutex<SendRequest<Opener, Bytes>>,
}

/// What came of asking for an upgrade.
#[derive(Debug)]
pub enum Upgraded {
    /// The stream is the new protocol's; the response's fields are of its handshake.
    Switched(Response<()>, Tunnel),
    /// The peer's answer is another.
    Refused(Response<AnswerBody>),
}

impl Requester {
    /// Begins HTTP/3 on a connection that we dialled.
    ///
    /// Returns the requester and the future that drives the connection: spawn it, it ends with the connection. It waits
    /// for the peer only if the peer allows no streams, so callers that must not wait put a time limit on it.
    pub async fn start(
        connection: quinn::Connection,
        limits: Limits,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), StartError> {
        let header_bytes = limits.header_bytes as u64;
        let shared = Shared::new(connection, limits);
        let (mut driven, sender) = ::h3::client::builder()
            .max_field_section_size(header_bytes)
            .send_grease(false)
            .build(Backend::new(shared.clone()))
            .await
            .map_err(StartError)?;
        let closing = shared.clone();
        let driver = async move {
            let ended = poll_fn(|cx| driven.poll_close(cx)).await;
            tracing::debug!(error = %ended, "http/3 connection ended");
            // h3 has closed it, or it was lost. Without a driver it must not be used in any case.
            closing.connection().close(code(codes::NO_ERROR), b"");
        };
        Ok((
            Self(Arc::new(Inner {
                shared,
                sender: Mutex::new(sender),
            })),
            driver,
        ))
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// An empty body goes out together with the head; any other is sent by one task while this waits and after. Dropping
    /// the future, or later the response's body before its end, takes the request back: both directions are cancelled.
    /// Interim responses are skipped. Hop-by-hop fields are left out, as is `host`, which `:authority` replaces.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<RecvBody>, RequestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let head = sayable(parts)?;
        let flight = self.take_off()?;
        let asked = if head.method() == Method::HEAD {
            Asked::Head
        } else {
            Asked::Other
        };
        let opening = Opening::new(asked, !body.is_end_stream());
        let exchange = self.exchange(head, body, opening.clone(), flight);
        exchange
            .await
            .map_err(|error| self.judge(error, opening.id()))
    }

    async fn exchange<B>(
        &self,
        head: Request<()>,
        body: B,
        opening: Arc<Opening>,
        flight: Arc<Flight>,
    ) -> Result<Response<RecvBody>, RequestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let asked = opening.asked;
        let mut sender = self.sender();
        let stream = OPENING
            .scope(opening.clone(), sender.send_request(head))
            .await?;
        let (send, mut recv) = stream.split();
        let upload = match opening.take_stopped() {
            Some(stopped) => Some(Upload::start(
                body,
                send,
                stopped,
                flight.clone(),
                self.clone(),
            )),
            None => {
                // A peer that answers early may have stopped the stream; what counts is the answer.
                let _stopped = Sender::Client(send).finish().await;
                None
            }
        };
        let response = recv.recv_response().await?;
        let length = content_length(&response, asked);
        let held = Held {
            _flight: flight,
            upload,
            _requester: Some(self.clone()),
        };
        let body = RecvBody::new(Receiver::Client(recv), length, held)
            .peek()
            .await;
        Ok(response.map(|()| body))
    }

    /// Opens a tunnel to `authority` with a plain CONNECT.
    ///
    /// Any answer but a 2xx is an error of kind [`RequestErrorKind::Refused`] that carries the answer's head.
    pub async fn connect(
        &self,
        authority: &str,
        mut fields: HeaderMap,
    ) -> Result<(Response<()>, Tunnel), RequestError> {
        body::strip_connection_fields(&mut fields);
        fields.remove(header::HOST);
        if authority.parse::<http::uri::Authority>().is_err() {
            return Err(RequestError::before(RequestErrorKind::Invalid));
        }
        let flight = self.take_off()?;
        let section = qpack::encode_connect(authority, &fields);
        let (response, send, recv) = self.ask(section).await?;
        if !response.status().is_success() {
            return Err(RequestError::refused(response));
        }
        Ok((response, self.tunnel(send, recv, flight)))
    }

    /// Asks for the connection to become another protocol's, as HTTP/1.1 does with `Upgrade`: a GET whose field `upgrade`
    /// names the protocol. On the wire it is an extended CONNECT (RFC 9220).
    ///
    /// Fails as [`RequestErrorKind::Unsupported`], with nothing sent, if the peer does not take those.
    pub async fn upgrade(&self, request: Request<()>) -> Result<Upgraded, RequestError> {
        let invalid = || RequestError::before(RequestErrorKind::Invalid);
        let (mut head, ()) = request.into_parts();
        let protocol = head.headers.remove(header::UPGRADE).ok_or_else(invalid)?;
        let authority = head.uri.authority().ok_or_else(invalid)?.clone();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        body::strip_connection_fields(&mut head.headers);
        head.headers.remove(header::HOST);
        head.headers.remove(header::CONTENT_LENGTH);
        if head.method != Method::GET {
            return Err(invalid());
        }
        let flight = self.take_off()?;
        if !self.0.shared.peer_upgrades().await {
            return Err(RequestError::before(RequestErrorKind::Unsupported));
        }
        let section =
            qpack::encode_upgrade(authority.as_str(), path, protocol.as_bytes(), &head.headers);
        let (response, mut send, recv) = self.ask(section).await?;
        if response.status().is_success() {
            return Ok(Upgraded::Switched(
                response,
                self.tunnel(send, recv, flight),
            ));
        }
        // We have nothing to add; a reset would say that we do not want the answer.
        let _stopped = send.finish();
        let body = AnswerBody::new(recv, flight, self.clone());
        Ok(Upgraded::Refused(response.map(|()| body)))
    }

    fn tunnel(&self, send: SendHalf, recv: RecvHalf, flight: Arc<Flight>) -> Tunnel {
        Tunnel::new(send, recv, Arc::new((flight, self.clone())))
    }

    /// Sends the head of a CONNECT on a stream of its own and waits for the head of the answer.
    async fn ask(
        &self,
        section: Vec<u8>,
    ) -> Result<(Response<()>, SendHalf, RecvHalf), RequestError> {
        let opened = self.0.shared.connection().open_bi().await;
        let (send, recv) = opened.map_err(|error| RequestError::lost(error).or_unsent(true))?;
        let id = quinn::VarInt::from(send.id()).into_inner();
        let link = Arc::<Link>::default();
        let guard = Guard::Message(MessageGuard::response(
            self.0.shared.header_bytes_max(),
            Asked::Connect,
        ));
        let send = SendHalf::new(send, codes::REQUEST_CANCELLED, link.clone());
        let recv = RecvHalf::message(
            recv,
            guard,
            codes::REQUEST_CANCELLED,
            link,
            self.0.shared.clone(),
        );
        let asked = ask_for_tunnel(section.into(), send, recv);
        asked.await.map_err(|error| self.judge(error, Some(id)))
    }

    /// Whether new requests may be started: the connection is up and the peer has not sent GOAWAY.
    pub fn is_open(&self) -> bool {
        !self.0.shared.peer_is_going() && self.0.shared.connection().close_reason().is_none()
    }

    /// Requests and tunnels that have not come to their end.
    pub fn in_flight(&self) -> usize {
        self.0.shared.in_flight()
    }

    /// The connection underneath.
    pub fn connection(&self) -> &quinn::Connection {
        self.0.shared.connection()
    }

    fn take_off(&self) -> Result<Arc<Flight>, RequestError> {
        if let Some(reason) = self.0.shared.connection().close_reason() {
            return Err(RequestError::lost(reason).or_unsent(true));
        }
        if self.0.shared.peer_is_going() {
            return Err(RequestError::before(RequestErrorKind::GoingAway));
        }
        Ok(Arc::new(Flight::start(&self.0.shared)))
    }

    /// A request without a stream never left; one past the peer's GOAWAY was never looked at.
    fn judge(&self, error: RequestError, id: Option<u64>) -> RequestError {
        let unsent = id.is_none_or(|id| self.0.shared.peer_ignores(id));
        error.or_unsent(unsent)
    }

    fn sender(&self) -> SendRequest<Opener, Bytes> {
        self.0
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester")
            .field("shared", &self.0.shared)
            .finish_non_exhaustive()
    }
}

/// The request's head in a form h3 will not choke on: it closes the whole connection over one it cannot encode.
fn sayable(mut parts: request::Parts) -> Result<Request<()>, RequestError> {
    let invalid = || RequestError::before(RequestErrorKind::Invalid);
    if parts.method == Method::CONNECT && parts.extensions.get::<::h3::ext::Protocol>().is_none() {
        return Err(invalid());
    }
    if parts.uri.authority().is_none() {
        let host = parts.headers.get(header::HOST).ok_or_else(invalid)?;
        let mut uri = parts.uri.into_parts();
        uri.authority = Some(host.as_bytes().try_into().map_err(|_unfit| invalid())?);
        uri.scheme = uri.scheme.or(Some(http::uri::Scheme::HTTPS));
        uri.path_and_query = uri
            .path_and_query
            .or(Some(http::uri::PathAndQuery::from_static("/")));
        parts.uri = uri.try_into().map_err(|_unfit| invalid())?;
    }
    parts.headers.remove(header::HOST);
    body::strip_connection_fields(&mut parts.headers);
    Ok(Request::from_parts(parts, ()))
}

/// How many bytes of content the response will have, if it says. The guard has checked the field.
fn content_length(response: &Response<()>, asked: Asked) -> Option<u64> {
    let bodiless = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if bodiless || asked == Asked::Head {
        return Some(0);
    }
    response
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Sends the HEADERS frame of a CONNECT and waits for the answer. Dropped meanwhile, both halves cancel the stream.
async fn ask_for_tunnel(
    section: Bytes,
    mut send: SendHalf,
    mut recv: RecvHalf,
) -> Result<(Response<()>, SendHalf, RecvHalf), RequestError> {
    let mut frame = BytesMut::with_capacity(9);
    put_varint(&mut frame, 1);
    put_varint(&mut frame, section.len() as u64);
    send.queue(frame.freeze(), section);
    // If the peer has stopped the stream, its answer says why.
    let _stopped = poll_fn(|cx| send.poll_flush(cx)).await;
    let response = loop {
        let piece = poll_fn(|cx| recv.poll_piece(cx)).await?;
        match (recv.take_answer(), piece) {
            (Some(response), _) => break response,
            (None, Some(_)) => {}
            (None, None) => return Err(RequestError::new(RequestErrorKind::Malformed)),
        }
    };
    Ok((response, send, recv))
}
