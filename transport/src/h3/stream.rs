//! The two halves of a QUIC stream as h3 and our tunnels use them.
//!
//! [`RecvHalf`] fetches up to 64 chunks from quinn at a time and passes each through its guard. [`SendHalf`] writes a frame
//! header and its payload in one call, and turns being dropped into a reset: quinn would finish the stream, and a body
//! cut short would look whole.

mod recv;
mod send;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};
use ::h3::stream::WriteBuf;
use bytes::Bytes;
use quinn::VarInt;

pub(super) use recv::{CHUNKS_MAX, Incoming, RecvFailure, RecvHalf};
pub(super) use send::{SendFailure, SendHalf, Stopped};

use super::guard::Refusal;
use crate::ended::Ended;

/// What the two halves of a stream share with each other and with whoever asked for the stream.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The code to reset with instead of the usual one, once a message was refused. Zero: none.
    fate: AtomicU64,
    /// Whether h3 letting go of the stream hands the halves on instead of ending them.
    parks: AtomicBool,
    parked: Mutex<Option<(SendHalf, RecvHalf)>>,
}

impl Link {
    fn refuse(&self, refusal: &Refusal) {
        self.fate.store(refusal.code, Ordering::Relaxed);
    }

    fn fate(&self) -> Option<u64> {
        Some(self.fate.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// Whether what came on the stream was refused.
    pub(super) fn was_refused(&self) -> bool {
        self.fate().is_some()
    }

    /// Takes the stream back from h3, which holds it in `held`. h3 reads no further than the frame it asked for, and the
    /// guard hands it one at a time, so nothing is lost in between.
    pub(super) fn reclaim<T>(&self, held: T) -> Option<(SendHalf, RecvHalf)> {
        self.parks.store(true, Ordering::Relaxed);
        drop(held);
        self.parked().take()
    }

    fn parked(&self) -> MutexGuard<'_, Option<(SendHalf, RecvHalf)>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request stream, before it is split.
#[derive(Debug)]
pub(super) struct Bidi {
    halves: Option<(SendHalf, RecvHalf)>,
    link: Arc<Link>,
}

impl Bidi {
    pub(super) fn new(send: SendHalf, recv: RecvHalf, link: Arc<Link>) -> Self {
        Self {
            halves: Some((send, recv)),
            link,
        }
    }

    fn send(&mut self) -> &mut SendHalf {
        &mut self.halves.as_mut().expect(WHOLE).0
    }

    fn recv(&mut self) -> &mut RecvHalf {
        &mut self.halves.as_mut().expect(WHOLE).1
    }
}

impl Drop for Bidi {
    fn drop(&mut self) {
        if self.link.parks.load(Ordering::Relaxed) {
            *self.link.parked() = self.halves.take();
        }
    }
}

impl quic::BidiStream<Bytes> for Bidi {
    type SendStream = SendHalf;
    type RecvStream = RecvHalf;

    fn split(mut self) -> (SendHalf, RecvHalf) {
        self.halves.take().expect(WHOLE)
    }
}

impl quic::RecvStream for Bidi {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv().poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv().stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.halves.as_ref().expect(WHOLE).1.recv_id()
    }
}

impl quic::SendStream<Bytes> for Bidi {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send().poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send().send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send().poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        quic::SendStream::<Bytes>::reset(self.send(), reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.halves.as_ref().expect(WHOLE).0.send_id()
    }
}

/// h3's view of why a connection ended.
pub(super) fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose {
                error_code: close.error_code.into_inner(),
            }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(Ended(other))),
    }
}

fn stream_lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: connection_error(error),
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner())
        .expect("quinn's stream identifiers are below 2^62")
}

/// An error code for the wire. Ours are all small; a peer's that is echoed came as a variable-length integer.
pub(super) fn code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

const WHOLE: &str = "a stream has both halves until it is split, which consumes it, or dropped";
