//! Answering.

use std::fmt;

use ::h3::server::RequestStream;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;

use super::pledge::Pledge;
use crate::h3::body::{self, Sender};
use crate::h3::error::RespondError;
use crate::h3::stream::{Bidi, SendHalf};
use crate::h3::tunnel::Tunnel;

/// Answers one request. Dropped without answering it resets the stream with H3_INTERNAL_ERROR: never a clean end.
pub struct Responder {
    pledge: Pledge,
    stream: RequestStream<SendHalf, Bytes>,
    /// Whether the request was HEAD, to which no body is sent.
    bodiless: bool,
}

impl Responder {
    pub(super) fn new(
        stream: RequestStream<SendHalf, Bytes>,
        pledge: Pledge,
        bodiless: bool,
    ) -> Self {
        Self {
            pledge,
            stream,
            bodiless,
        }
    }

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
        if parts.status.is_informational() {
            return Err(RespondError::Unfit);
        }
        body::strip_connection_fields(&mut parts.headers);
        let bodiless = self.bodiless
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        self.stream
            .send_response(Response::from_parts(parts, ()))
            .await?;
        self.pledge.keep();
        let mut sender = Sender::Server(self.stream);
        if bodiless {
            sender.finish().await?;
        } else {
            body::send(body, &mut sender, self.pledge.stopped()).await?;
        }
        Ok(self.pledge.delivered().await?)
    }

    /// Resolves when the client no longer wants the response or is gone, and never otherwise. Cancel-safe.
    pub async fn cancelled(&mut self) {
        self.pledge.cancelled().await;
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("pledge", &self.pledge)
            .finish_non_exhaustive()
    }
}

/// A tunnel that a client asks for. Dropped without an answer it resets the stream.
#[derive(Debug)]
pub struct ConnectRequest {
    /// Where to, as the client wrote it.
    pub authority: String,
    /// The request's fields.
    pub headers: HeaderMap,
    responder: TunnelResponder,
}

impl ConnectRequest {
    pub(super) fn new(authority: String, headers: HeaderMap, responder: TunnelResponder) -> Self {
        Self {
            authority,
            headers,
            responder,
        }
    }

    /// See [`TunnelResponder::accept`].
    pub async fn accept(self, headers: HeaderMap) -> Result<Tunnel, RespondError> {
        self.responder.accept(headers).await
    }

    /// See [`TunnelResponder::refuse`].
    pub async fn refuse(self, response: Response<Bytes>) -> Result<(), RespondError> {
        self.responder.refuse(response.map(Full::new)).await
    }

    /// See [`TunnelResponder::cancelled`].
    pub async fn cancelled(&mut self) {
        self.responder.cancelled().await;
    }
}

/// Answers a CONNECT, plain or extended. Dropped without an answer it resets the stream.
pub struct TunnelResponder {
    pledge: Pledge,
    stream: RequestStream<Bidi, Bytes>,
}

impl TunnelResponder {
    pub(super) fn new(stream: RequestStream<Bidi, Bytes>, pledge: Pledge) -> Self {
        Self { pledge, stream }
    }

    /// Answers 200 with `headers`; from then on the stream is the tunnel. Nothing the client sent after its request has
    /// been looked at before.
    pub async fn accept(mut self, mut headers: HeaderMap) -> Result<Tunnel, RespondError> {
        body::strip_connection_fields(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        self.stream.send_response(response).await?;
        self.pledge.keep();
        let reclaimed = self.pledge.link().reclaim(self.stream);
        let (send, recv) = reclaimed.expect("the stream was whole until here");
        Ok(Tunnel::new(send, recv, self.pledge.flight().clone()))
    }

    /// Answers with something other than success, as [`Responder::respond`] does. What the client sent after its request
    /// is never looked at.
    pub async fn refuse<B>(self, response: Response<B>) -> Result<(), RespondError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if response.status().is_success() {
            return Err(RespondError::Unfit);
        }
        let (send, _unread) = self.stream.split();
        Responder::new(send, self.pledge, false)
            .respond(response)
            .await
    }

    /// Resolves when the client no longer wants the tunnel or is gone, and never otherwise. Cancel-safe.
    pub async fn cancelled(&mut self) {
        self.pledge.cancelled().await;
    }
}

impl fmt::Debug for TunnelResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelResponder")
            .field("pledge", &self.pledge)
            .finish_non_exhaustive()
    }
}
