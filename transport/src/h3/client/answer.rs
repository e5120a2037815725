//! The body of an answer that h3 does not see: that of a refused CONNECT.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::Requester;
use crate::h3::backend::Flight;
use crate::h3::error::TunnelError;
use crate::h3::stream::RecvHalf;
use crate::h3::tunnel;

/// What a peer says when it refuses an upgrade. Its trailers, if any, are left out.
///
/// Ends cleanly only if the message did; the guard counts content-length. Dropped before the end it tells the peer to stop.
#[derive(Debug)]
pub struct AnswerBody {
    half: RecvHalf,
    _held: (Arc<Flight>, Requester),
}

impl AnswerBody {
    pub(super) fn new(half: RecvHalf, flight: Arc<Flight>, requester: Requester) -> Self {
        Self {
            half,
            _held: (flight, requester),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        loop {
            match ready!(self.half.poll_piece(cx)) {
                Ok(Some(piece)) => {
                    if let Some(data) = tunnel::payload(piece) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Ok(None) => return Poll::Ready(None),
                Err(failure) => return Poll::Ready(Some(Err(failure.into()))),
            }
        }
    }
}
