//! Tunnels: the byte streams that CONNECT makes, plain (RFC 9114 §4.4) or extended (RFC 9220), the same on both sides.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::codes;
use super::error::TunnelError;
use super::guard::{Piece, put_varint};
use super::stream::{CHUNKS_MAX, RecvHalf, SendHalf, Stopped};

/// Both directions of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    send: TunnelSend,
    recv: TunnelRecv,
}

impl Tunnel {
    pub(super) fn new(
        mut send: SendHalf,
        mut recv: RecvHalf,
        flight: Arc<dyn Send + Sync>,
    ) -> Self {
        send.set_reset_code(codes::CONNECT_ERROR);
        recv.set_stop_code(codes::CONNECT_ERROR);
        let stopped = send.stopped();
        Self {
            send: TunnelSend {
                half: send,
                stopped,
                _flight: Held(flight.clone()),
            },
            recv: TunnelRecv {
                half: recv,
                _flight: Held(flight),
            },
        }
    }

    /// The two directions, to be pumped independently. The tunnel counts as in flight until both are dropped.
    pub fn split(self) -> (TunnelSend, TunnelRecv) {
        (self.send, self.recv)
    }
}

/// The direction towards the peer. Dropped without [`finish`](Self::finish) it resets the stream, so that bytes cut short
/// never look complete.
#[derive(Debug)]
pub struct TunnelSend {
    half: SendHalf,
    stopped: Stopped,
    _flight: Held,
}

impl TunnelSend {
    /// Sends `bytes`, waiting while the peer has no room. Large buffers are cheap, small ones are not: each call is one
    /// DATA frame.
    ///
    /// Cancelled, it loses nothing: once polled, the bytes are handed over, and the next call sends what is left first.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), TunnelError> {
        self.flush().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut header = BytesMut::with_capacity(FRAME_HEADER_BYTES_MAX);
        put_varint(&mut header, 0);
        put_varint(&mut header, bytes.len() as u64);
        self.half.queue(header.freeze(), bytes);
        self.flush().await
    }

    /// Ends this direction cleanly; the other one goes on.
    pub async fn finish(&mut self) -> Result<(), TunnelError> {
        self.flush().await?;
        Ok(self.half.finish()?)
    }

    /// Ends this direction with an error that the peer sees as such.
    pub fn reset(&mut self) {
        self.half.reset(codes::CONNECT_ERROR);
    }

    /// Resolves when the peer has stopped reading or is gone, which a sender with nothing to send would not notice, or
    /// when it has received the end. Cancel-safe.
    pub async fn closed(&mut self) -> Result<(), TunnelError> {
        Ok(poll_fn(|cx| self.stopped.poll(cx)).await?)
    }

    async fn flush(&mut self) -> Result<(), TunnelError> {
        Ok(poll_fn(|cx| self.half.poll_flush(cx)).await?)
    }
}

/// The direction from the peer. Dropped before its end it tells the peer to stop.
#[derive(Debug)]
pub struct TunnelRecv {
    half: RecvHalf,
    _flight: Held,
}

impl TunnelRecv {
    /// Appends what has arrived to `out`: at least one chunk, and usually no more than 64. `false` is a clean end, with
    /// nothing appended. Cancel-safe.
    pub async fn read_chunks(&mut self, out: &mut Vec<Bytes>) -> Result<bool, TunnelError> {
        let begun = out.len();
        poll_fn(|cx| {
            while out.len() == begun {
                match std::task::ready!(self.half.poll_piece(cx))? {
                    Some(piece) => out.extend(payload(piece)),
                    None => return Poll::Ready(Ok(false)),
                }
            }
            Poll::Ready(Ok(true))
        })
        .await
        .inspect(|_| self.gather(out, begun + CHUNKS_MAX))
    }

    /// Tells the peer that nothing more is wanted.
    pub fn stop(&mut self) {
        self.half.stop(codes::CONNECT_ERROR);
    }

    /// Adds what else was fetched along. An error here is told again by the next call.
    fn gather(&mut self, out: &mut Vec<Bytes>, count_max: usize) {
        while out.len() < count_max {
            match self.half.ready_piece() {
                Ok(Some(piece)) => out.extend(payload(piece)),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// The tunnel's bytes in a piece of the stream.
pub(super) fn payload(piece: Piece) -> Option<Bytes> {
    match piece {
        Piece::Data {
            mut bytes,
            payload_at,
        } => {
            let payload = bytes.split_off(payload_at);
            (!payload.is_empty()).then_some(payload)
        }
        Piece::Headers(_) | Piece::Settings { .. } | Piece::GoAway { .. } => None,
    }
}

/// What the tunnel keeps alive and counted.
struct Held(#[expect(dead_code, reason = "held for what dropping it does")] Arc<dyn Send + Sync>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Type and length of a DATA frame.
const FRAME_HEADER_BYTES_MAX: usize = 9;
