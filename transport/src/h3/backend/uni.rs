//! The streams a peer opens in one direction.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use quinn::{RecvStream, Side};

use super::Shared;
use crate::h3::codes;
use crate::h3::guard::{ControlGuard, Guard, HeaderBytes, QpackGuard, Reason, Refusal};
use crate::h3::metrics;
use crate::h3::stream::{Incoming, RecvFailure, RecvHalf, code};

/// Finds out what each stream is for, hands on the control stream and keeps the QPACK streams.
#[derive(Debug, Default)]
pub(super) struct UniStreams {
    unnamed: Vec<Unnamed>,
    qpack: Vec<(Incoming, QpackGuard)>,
    control_seen: bool,
}

/// A stream whose type has not arrived. QUIC's limit on streams bounds how many there are.
#[derive(Debug)]
struct Unnamed {
    incoming: Incoming,
    header: HeaderBytes,
}

impl UniStreams {
    pub(super) fn push(&mut self, stream: RecvStream) {
        self.unnamed.push(Unnamed {
            incoming: Incoming::new(stream),
            header: HeaderBytes::default(),
        });
    }

    /// Ready when the peer's control stream is there, or when one of its streams breaks the protocol.
    pub(super) fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
    ) -> Poll<Result<RecvHalf, RecvFailure>> {
        let mut at = 0;
        let mut control = None;
        while at < self.unnamed.len() {
            match self.unnamed[at].poll_kind(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(named) => {
                    let Unnamed { incoming, .. } = self.unnamed.swap_remove(at);
                    // One that ends or is reset before it said what it is for means nothing (RFC 9114 §6.2).
                    let Some(kind) = named else { continue };
                    match self.sort(kind, incoming, shared) {
                        Ok(Some(stream)) => control = Some(stream),
                        Ok(None) => {}
                        Err(refusal) => return Poll::Ready(Err(refuse(refusal, shared))),
                    }
                }
            }
        }
        for (incoming, guard) in &mut self.qpack {
            if let Poll::Ready(refusal) = poll_qpack(incoming, guard, cx) {
                return Poll::Ready(Err(refuse(refusal, shared)));
            }
        }
        control.map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream)))
    }

    fn sort(
        &mut self,
        kind: u64,
        incoming: Incoming,
        shared: &Arc<Shared>,
    ) -> Result<Option<RecvHalf>, Refusal> {
        let by_client = shared.connection().side() == Side::Server;
        match kind {
            CONTROL if self.control_seen => return Err(bad_stream()),
            CONTROL => {
                self.control_seen = true;
                let guard = if by_client {
                    ControlGuard::of_client()
                } else {
                    ControlGuard::of_server()
                };
                return Ok(Some(RecvHalf::control(
                    incoming,
                    Guard::Control(guard),
                    shared.clone(),
                )));
            }
            PUSH if by_client => return Err(bad_stream()),
            PUSH => return Err(Refusal::connection(codes::ID_ERROR, Reason::Identifier)),
            QPACK_ENCODER => self.keep(incoming, QpackGuard::encoder())?,
            QPACK_DECODER => self.keep(incoming, QpackGuard::decoder())?,
            _unknown => {
                let mut incoming = incoming;
                let _already_over = incoming.stream.stop(code(codes::STREAM_CREATION_ERROR));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, incoming: Incoming, guard: QpackGuard) -> Result<(), Refusal> {
        if self
            .qpack
            .iter()
            .any(|(_, held)| held.is_encoder() == guard.is_encoder())
        {
            return Err(bad_stream());
        }
        self.qpack.push((incoming, guard));
        Ok(())
    }
}

impl Unnamed {
    /// The stream's type; `None` if it ended without one.
    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        loop {
            while let Some(chunk) = self.incoming.queue.front_mut() {
                let (taken, kind) = self.header.take::<1>(chunk);
                chunk.advance(taken);
                if chunk.is_empty() {
                    self.incoming.queue.pop_front();
                }
                if let Some([kind]) = kind {
                    return Poll::Ready(Some(kind));
                }
            }
            if !matches!(ready!(self.incoming.poll_fill(cx)), Ok(true)) {
                return Poll::Ready(None);
            }
        }
    }
}

/// Reads on until the stream has no more or breaks the protocol.
fn poll_qpack(
    incoming: &mut Incoming,
    guard: &mut QpackGuard,
    cx: &mut Context<'_>,
) -> Poll<Refusal> {
    loop {
        while let Some(chunk) = incoming.queue.pop_front() {
            if let Err(refusal) = guard.check(&chunk) {
                return Poll::Ready(refusal);
            }
        }
        match ready!(incoming.poll_fill(cx)) {
            Ok(true) => {}
            // A lost connection shows itself elsewhere; closing it once more changes nothing.
            Ok(false) | Err(_) => {
                return Poll::Ready(Refusal::connection(
                    codes::CLOSED_CRITICAL_STREAM,
                    Reason::CriticalStream,
                ));
            }
        }
    }
}

fn refuse(refusal: Refusal, shared: &Shared) -> RecvFailure {
    if shared.connection().close_reason().is_none() {
        metrics::refused(refusal.reason);
        shared.close(refusal);
    }
    RecvFailure::Refused(refusal)
}

fn bad_stream() -> Refusal {
    Refusal::connection(codes::STREAM_CREATION_ERROR, Reason::StreamKind)
}

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;
