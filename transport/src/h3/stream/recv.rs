//! Receiving.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};
use bytes::Bytes;
use http::Response;
use quinn::{ReadError, RecvStream};

use super::{Link, code, connection_error, stream_id, stream_lost};
use crate::h3::backend::Shared;
use crate::h3::guard::{Guard, Piece, Refusal, Scope};
use crate::h3::metrics;

/// A quinn stream and the chunks fetched from it that nobody has looked at yet.
#[derive(Debug)]
pub(in crate::h3) struct Incoming {
    pub(in crate::h3) stream: RecvStream,
    pub(in crate::h3) queue: VecDeque<Bytes>,
    /// Whether the last fetch brought so much that more is likely to wait.
    busy: bool,
}

impl Incoming {
    pub(in crate::h3) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            busy: false,
        }
    }

    /// Fetches what is there, at most 64 chunks. `false` is the end of the stream.
    pub(in crate::h3) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ReadError>> {
        let fetched = if self.busy {
            self.poll_fetch::<CHUNKS_MAX>(cx)
        } else {
            self.poll_fetch::<CHUNKS_FEW>(cx)
        };
        let count = ready!(fetched)?;
        self.busy = count.is_some_and(|count| count >= CHUNKS_FEW);
        Poll::Ready(Ok(count.is_some()))
    }

    fn poll_fetch<const N: usize>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, ReadError>> {
        let mut chunks = [const { Bytes::new() }; N];
        // The future holds nothing between polls, so making a new one each time loses nothing.
        let count = ready!(pin!(self.stream.read_chunks(&mut chunks)).poll(cx))?;
        let fetched = chunks.into_iter().take(count.unwrap_or(0));
        self.queue.extend(fetched.filter(|chunk| !chunk.is_empty()));
        Poll::Ready(Ok(count))
    }
}

/// The receiving half of a request or control stream, behind its guard.
#[derive(Debug)]
pub(in crate::h3) struct RecvHalf {
    incoming: Incoming,
    guard: Guard,
    /// Given out before anything else: the stream type h3 expects to read itself.
    prefix: Option<Bytes>,
    end: Option<End>,
    /// What STOP_SENDING says when the half is dropped before its end. `None` for a control stream, which is never stopped.
    stop_code: Option<u64>,
    link: Arc<Link>,
    shared: Arc<Shared>,
}

/// How a stream came to its end. Asked again, it is told again.
#[derive(Debug, Clone)]
enum End {
    Finished,
    Failed(RecvFailure),
}

/// Why nothing more can be received.
#[derive(Debug, Clone)]
pub(in crate::h3) enum RecvFailure {
    /// What came breaks the protocol.
    Refused(Refusal),
    /// The peer gave up, with this code.
    Reset(u64),
    /// The connection is gone.
    Lost(quinn::ConnectionError),
    /// We said ourselves that we want no more.
    Stopped,
}

impl RecvHalf {
    /// For a request stream.
    pub(in crate::h3) fn message(
        stream: RecvStream,
        guard: Guard,
        stop_code: u64,
        link: Arc<Link>,
        shared: Arc<Shared>,
    ) -> Self {
        let incoming = Incoming::new(stream);
        Self {
            incoming,
            guard,
            prefix: None,
            end: None,
            stop_code: Some(stop_code),
            link,
            shared,
        }
    }

    /// For a control stream whose stream type was read already.
    pub(in crate::h3) fn control(incoming: Incoming, guard: Guard, shared: Arc<Shared>) -> Self {
        let prefix = Some(Bytes::from_static(&[0]));
        Self {
            incoming,
            guard,
            prefix,
            end: None,
            stop_code: None,
            link: Arc::default(),
            shared,
        }
    }

    /// The next checked piece; `None` at a clean end.
    pub(in crate::h3) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, RecvFailure>> {
        loop {
            if let Some(result) = self.ready_piece().transpose() {
                return Poll::Ready(result.map(Some));
            }
            match &self.end {
                Some(End::Finished) => return Poll::Ready(Ok(None)),
                Some(End::Failed(failure)) => return Poll::Ready(Err(failure.clone())),
                None => {}
            }
            match ready!(self.incoming.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) => match self.guard.finish() {
                    Ok(()) => self.end = Some(End::Finished),
                    Err(refusal) => return Poll::Ready(Err(self.refuse(refusal))),
                },
                Err(error) => self.end = Some(End::Failed(error.into())),
            }
        }
    }

    /// The next piece out of what was fetched already.
    pub(in crate::h3) fn ready_piece(&mut self) -> Result<Option<Piece>, RecvFailure> {
        while let Some(chunk) = self.incoming.queue.front_mut() {
            let piece = match self.guard.next(chunk) {
                Ok(piece) => piece,
                Err(refusal) => return Err(self.refuse(refusal)),
            };
            if chunk.is_empty() {
                self.incoming.queue.pop_front();
            }
            match &piece {
                Some(Piece::GoAway { id, .. }) => self.shared.peer_goes_away(*id),
                Some(Piece::Settings { upgrades, .. }) => self.shared.peer_set(*upgrades),
                _ => {}
            }
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// The answer to a CONNECT, once its HEADERS have passed.
    pub(in crate::h3) fn take_answer(&mut self) -> Option<Response<()>> {
        match &mut self.guard {
            Guard::Message(guard) => guard.take_answer(),
            Guard::Control(_) => None,
        }
    }

    /// Tells the peer that we want no more. What was fetched is dropped.
    pub(in crate::h3) fn stop(&mut self, error_code: u64) {
        if self.end.is_none() {
            let _already_over = self.incoming.stream.stop(code(error_code));
            self.end = Some(End::Failed(RecvFailure::Stopped));
        }
        self.incoming.queue.clear();
    }

    pub(in crate::h3) fn set_stop_code(&mut self, error_code: u64) {
        self.stop_code = Some(error_code);
    }

    fn refuse(&mut self, refusal: Refusal) -> RecvFailure {
        metrics::refused(refusal.reason);
        self.link.refuse(&refusal);
        self.stop(refusal.code);
        if refusal.scope == Scope::Connection {
            self.shared.close(refusal);
        }
        let failure = RecvFailure::Refused(refusal);
        self.end = Some(End::Failed(failure.clone()));
        failure
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if let Some(stop_code) = self.stop_code {
            self.stop(stop_code);
        }
    }
}

impl quic::RecvStream for RecvHalf {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Ok(Some(prefix)));
        }
        let piece = ready!(self.poll_piece(cx))?;
        Poll::Ready(Ok(piece.map(Piece::into_bytes)))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.stop(error_code);
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.incoming.stream.id())
    }
}

impl From<ReadError> for RecvFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code.into_inner()),
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Stopped,
        }
    }
}

impl From<RecvFailure> for StreamErrorIncoming {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::Refused(refusal) if refusal.scope == Scope::Connection => {
                Self::ConnectionErrorIncoming {
                    connection_error: ConnectionErrorIncoming::Undefined(Arc::new(refusal)),
                }
            }
            RecvFailure::Refused(refusal) => Self::Unknown(Box::new(refusal)),
            RecvFailure::Reset(error_code) => Self::StreamTerminated { error_code },
            RecvFailure::Lost(error) => stream_lost(error),
            RecvFailure::Stopped => Self::Unknown(Box::new(StoppedHere)),
        }
    }
}

impl From<RecvFailure> for ConnectionErrorIncoming {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::Lost(error) => connection_error(error),
            RecvFailure::Refused(refusal) => Self::Undefined(Arc::new(refusal)),
            RecvFailure::Reset(_) | RecvFailure::Stopped => Self::Undefined(Arc::new(StoppedHere)),
        }
    }
}

/// Somebody reads on after having said that they want no more.
#[derive(Debug, thiserror::Error)]
#[error("the stream was stopped on this side")]
struct StoppedHere;

/// Chunks fetched at once; quinn hands out one packet's worth per chunk, so this is about 90 KB.
pub(in crate::h3) const CHUNKS_MAX: usize = 64;
/// Chunks fetched from a stream that is not known to be busy. Most messages fit, and an array of 64 has its price.
const CHUNKS_FEW: usize = 4;
