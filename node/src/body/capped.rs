//! Bodies that may not be larger than a rule allows.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BoxError};

/// A body that breaks off where it exceeds its limit.
#[derive(Debug)]
pub struct Capped {
    inner: Body,
    left: u64,
    is_over: Arc<AtomicBool>,
}

/// Tells afterwards whether the body was too large.
#[derive(Debug, Clone)]
pub struct Over(Arc<AtomicBool>);

#[derive(Debug, thiserror::Error)]
#[error("the body is larger than its route allows")]
struct TooLarge;

impl Capped {
    pub fn new(inner: Body, most: u64) -> Self {
        Self {
            inner,
            left: most,
            is_over: Arc::default(),
        }
    }

    pub fn over(&self) -> Over {
        Over(self.is_over.clone())
    }
}

impl Over {
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl HttpBody for Capped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => {
                    self.is_over.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(TooLarge.into())));
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
