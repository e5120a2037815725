//! Our implementation of h3's `quic` traits over quinn: what h3 takes for a connection.
//!
//! h3 sees request streams and the peer's control stream, all behind guards. The QPACK streams stay here, since without a
//! dynamic table there is nothing on them for h3; streams of kinds we do not know are stopped here too.

mod churn;
mod opener;
mod shared;
mod uni;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h3::error::Code;
use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;

pub(super) use opener::{OPENING, Opener, Opening};
pub(super) use shared::{Flight, Shared};

use super::codes;
use super::guard::{Guard, MessageGuard};
use super::stream::{Bidi, Link, RecvHalf, SendHalf, Stopped, code, connection_error};
use uni::UniStreams;

/// A QUIC connection as h3 drives it.
pub(super) struct Backend {
    shared: Arc<Shared>,
    opener: Opener,
    accept_bi: Accept<(quinn::SendStream, quinn::RecvStream)>,
    accept_uni: Accept<quinn::RecvStream>,
    uni: UniStreams,
    arrived: Option<Arrived>,
}

/// What the server keeps of a stream it hands to h3.
pub(super) struct Arrived {
    pub(super) link: Arc<Link>,
    pub(super) stopped: Stopped,
    pub(super) flight: Flight,
}

type Accept<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send>>;

impl Backend {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let accept_bi = stream::unfold(shared.connection().clone(), |connection| async {
            Some((connection.accept_bi().await, connection))
        });
        let accept_uni = stream::unfold(shared.connection().clone(), |connection| async {
            Some((connection.accept_uni().await, connection))
        });
        Self {
            opener: Opener::new(shared.clone()),
            accept_bi: Box::pin(accept_bi),
            accept_uni: Box::pin(accept_uni),
            uni: UniStreams::default(),
            arrived: None,
            shared,
        }
    }

    /// What belongs to the stream that h3 accepted last.
    pub(super) fn take_arrived(&mut self) -> Option<Arrived> {
        self.arrived.take()
    }

    fn arrive(&mut self, send: quinn::SendStream, recv: quinn::RecvStream) -> Bidi {
        let link = Arc::<Link>::default();
        let guard = Guard::Message(MessageGuard::request(self.shared.header_bytes_max()));
        let send = SendHalf::new(send, codes::INTERNAL_ERROR, link.clone());
        let recv = RecvHalf::message(
            recv,
            guard,
            codes::NO_ERROR,
            link.clone(),
            self.shared.clone(),
        );
        let flight = Flight::start(&self.shared);
        self.arrived = Some(Arrived {
            link: link.clone(),
            stopped: send.stopped(),
            flight,
        });
        Bidi::new(send, recv, link)
    }
}

impl quic::Connection<Bytes> for Backend {
    type RecvStream = RecvHalf;
    type OpenStreams = Opener;

    /// Only the control stream ever gets to h3.
    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvHalf, ConnectionErrorIncoming>> {
        while let Poll::Ready(Some(accepted)) = self.accept_uni.as_mut().poll_next(cx) {
            self.uni.push(accepted.map_err(connection_error)?);
        }
        self.uni
            .poll_control(cx, &self.shared)
            .map_err(ConnectionErrorIncoming::from)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bidi, ConnectionErrorIncoming>> {
        loop {
            let Some(accepted) = ready!(self.accept_bi.as_mut().poll_next(cx)) else {
                return Poll::Pending;
            };
            let (mut send, mut recv) = accepted.map_err(connection_error)?;
            if self
                .shared
                .admits(quinn::VarInt::from(send.id()).into_inner())
            {
                return Poll::Ready(Ok(self.arrive(send, recv)));
            }
            // Past our GOAWAY: the client may try it elsewhere.
            let _already_over = send.reset(code(codes::REQUEST_REJECTED));
            let _already_over = recv.stop(code(codes::REQUEST_REJECTED));
        }
    }

    fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl quic::OpenStreams<Bytes> for Backend {
    type BidiStream = Bidi;
    type SendStream = SendHalf;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidi, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendHalf, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
