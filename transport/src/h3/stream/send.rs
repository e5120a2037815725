//! Sending.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h3::quic::{self, StreamErrorIncoming, StreamId};
use ::h3::stream::WriteBuf;
use bytes::{Buf, Bytes};
use quinn::{SendStream, StoppedError, WriteError};

use super::{Link, code, stream_id, stream_lost};

/// The sending half of a stream. Dropped without [`finish`](Self::finish) it resets the stream.
#[derive(Debug)]
pub(in crate::h3) struct SendHalf {
    stream: SendStream,
    /// A frame header and payload not yet written; empty ones are done.
    pending: [Bytes; 2],
    finished: bool,
    reset_code: u64,
    link: Arc<Link>,
}

/// Why nothing more can be sent.
#[derive(Debug, Clone)]
pub(in crate::h3) enum SendFailure {
    /// The peer wants no more, with this code.
    Stopped(u64),
    /// The connection is gone.
    Lost(quinn::ConnectionError),
    /// The stream was finished or reset on this side.
    Closed,
}

impl SendHalf {
    pub(in crate::h3) fn new(stream: SendStream, reset_code: u64, link: Arc<Link>) -> Self {
        Self {
            stream,
            pending: Default::default(),
            finished: false,
            reset_code,
            link,
        }
    }

    /// Hands over the next frame. [`poll_flush`](Self::poll_flush) must have been ready since the last one.
    pub(in crate::h3) fn queue(&mut self, header: Bytes, payload: Bytes) {
        debug_assert!(self.is_flushed(), "one frame at a time");
        self.pending = [header, payload];
    }

    pub(in crate::h3) fn is_flushed(&self) -> bool {
        self.pending.iter().all(Bytes::is_empty)
    }

    /// Writes what was handed over. Header and payload go in one call.
    pub(in crate::h3) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFailure>> {
        while !self.is_flushed() {
            let at = self
                .pending
                .iter()
                .position(|part| !part.is_empty())
                .unwrap_or(0);
            // Like reading, this holds nothing between polls: it writes something or nothing.
            ready!(pin!(self.stream.write_chunks(&mut self.pending[at..])).poll(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing follows. Everything handed over must have been flushed.
    pub(in crate::h3) fn finish(&mut self) -> Result<(), SendFailure> {
        self.finished = true;
        self.stream.finish().map_err(|_closed| SendFailure::Closed)
    }

    /// Gives the stream up at once; bytes still on their way may be lost.
    pub(in crate::h3) fn reset(&mut self, error_code: u64) {
        self.finished = true;
        self.pending = Default::default();
        let _already_over = self.stream.reset(code(error_code));
    }

    pub(in crate::h3) fn id(&self) -> u64 {
        self.stream.id().into()
    }

    pub(in crate::h3) fn set_reset_code(&mut self, error_code: u64) {
        self.reset_code = error_code;
    }

    /// Resolves when the peer wants no more or has everything.
    pub(in crate::h3) fn stopped(&self) -> Stopped {
        Stopped(State::Waiting(Box::pin(self.stream.stopped())))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished || !self.is_flushed() {
            self.reset(self.link.fate().unwrap_or(self.reset_code));
        }
    }
}

/// Whether the peer still wants what we send. It can be asked again after it was answered.
pub(in crate::h3) struct Stopped(State);

enum State {
    Waiting(
        Pin<Box<dyn Future<Output = Result<Option<quinn::VarInt>, StoppedError>> + Send + Sync>>,
    ),
    Delivered,
    Failed(SendFailure),
}

impl Stopped {
    /// `Ok` once the peer has everything, an error once it wants no more.
    pub(in crate::h3) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFailure>> {
        if let State::Waiting(future) = &mut self.0 {
            self.0 = match ready!(future.as_mut().poll(cx)) {
                Ok(None) => State::Delivered,
                Ok(Some(code)) => State::Failed(SendFailure::Stopped(code.into_inner())),
                Err(StoppedError::ConnectionLost(error)) => State::Failed(SendFailure::Lost(error)),
                Err(StoppedError::ZeroRttRejected) => State::Failed(SendFailure::Closed),
            };
        }
        Poll::Ready(match &self.0 {
            State::Failed(failure) => Err(failure.clone()),
            State::Delivered | State::Waiting(_) => Ok(()),
        })
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Waiting(_) => "Stopped(waiting)",
            State::Delivered => "Stopped(delivered)",
            State::Failed(_) => "Stopped(failed)",
        })
    }
}

impl quic::SendStream<Bytes> for SendHalf {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(Ok(ready!(self.poll_flush(cx))?))
    }

    /// h3 keeps header and payload apart and offers only a copy of them, which costs less than a second write.
    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let mut data = data.into();
        self.queue(Bytes::new(), data.copy_to_bytes(data.remaining()));
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(self.finish()?))
    }

    fn reset(&mut self, reset_code: u64) {
        Self::reset(self, reset_code);
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl From<WriteError> for SendFailure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<SendFailure> for StreamErrorIncoming {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Stopped(error_code) => Self::StreamTerminated { error_code },
            SendFailure::Lost(error) => stream_lost(error),
            SendFailure::Closed => Self::Unknown(Box::new(ClosedHere)),
        }
    }
}

/// Somebody sends on after having finished or reset the stream.
#[derive(Debug, thiserror::Error)]
#[error("the stream was ended on this side")]
struct ClosedHere;
