//! A second reader of a body, who gets what the first takes, or nothing more if it falls behind.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{Body, BoxError, boxed};

/// The body as before, for the one who sets the pace; and its copy, which ends early with an error if its reader falls
/// more than a few frames behind, or if the original is not taken to its end.
pub fn copied(body: Body) -> (Body, Copy) {
    let (sender, frames) = mpsc::channel(FRAMES_BEHIND_MAX);
    let is_whole = Arc::new(AtomicBool::new(body.is_end_stream()));
    let original = Original {
        // Nothing to come: the copy ends at once too.
        copy: (!body.is_end_stream()).then_some(sender),
        is_whole: is_whole.clone(),
        inner: body,
    };
    (boxed(original), Copy { frames, is_whole })
}

struct Original {
    inner: Body,
    copy: Option<Sender<Bytes>>,
    is_whole: Arc<AtomicBool>,
}

/// The second reader's body. Trailers are not copied.
#[derive(Debug)]
pub struct Copy {
    frames: Receiver<Bytes>,
    is_whole: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("the copy of the body is not whole")]
struct NotWhole;

impl Original {
    fn pass(&mut self, frame: &Frame<Bytes>) {
        let (Some(copy), Some(bytes)) = (&self.copy, frame.data_ref()) else {
            return;
        };
        // Full or left: the copy is given up, never waited for.
        if copy.try_send(bytes.clone()).is_err() {
            self.copy = None;
        }
    }

    /// The original came to its end, and all of it was copied.
    fn end(&mut self) {
        if self.copy.is_some() {
            self.is_whole.store(true, Ordering::Release);
            self.copy = None;
        }
    }
}

impl HttpBody for Original {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => self.pass(frame),
            Some(Err(_)) => self.copy = None,
            None => self.end(),
        }
        // A body that is at its end is not always polled again.
        if self.inner.is_end_stream() {
            self.end();
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

impl HttpBody for Copy {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(self.frames.poll_recv(cx)) {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.is_whole.load(Ordering::Acquire) => None,
            None => Some(Err(NotWhole.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole.load(Ordering::Acquire) && self.frames.is_empty()
    }
}

/// A frame is at most some tens of KiB: a copy holds at most a few hundred KiB that its reader has not taken.
const FRAMES_BEHIND_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::body::full;

    fn frames(count: usize) -> Body {
        let frames = (0..count).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"ab"))));
        boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn both_get_all_of_it() {
        let (body, copy) = copied(full(Bytes::from_static(b"hello")));
        let (body, copy) = tokio::join!(body.collect(), copy.collect());
        assert_eq!(body.unwrap().to_bytes(), "hello");
        assert_eq!(copy.unwrap().to_bytes(), "hello");
    }

    #[tokio::test]
    async fn an_empty_body_is_copied_without_being_read() {
        let (body, copy) = copied(full(Bytes::new()));
        assert!(copy.is_end_stream());
        drop(body);
        assert!(copy.collect().await.unwrap().to_bytes().is_empty());
    }

    /// The slow reader of a copy is cut off, and the original never waits.
    #[tokio::test]
    async fn a_copy_that_falls_behind_is_given_up() {
        let (body, copy) = copied(frames(FRAMES_BEHIND_MAX + 1));
        let whole = body
            .collect()
            .now_or_never()
            .expect("nothing to wait for")
            .unwrap();
        assert_eq!(whole.to_bytes().len(), 2 * (FRAMES_BEHIND_MAX + 1));
        copy.collect().await.expect_err("it is not whole");
    }

    #[tokio::test]
    async fn an_original_that_is_dropped_never_looks_like_one_that_ended() {
        let (mut body, copy) = copied(frames(3));
        body.frame().await.unwrap().unwrap();
        drop(body);
        copy.collect().await.expect_err("it is not whole");
    }
}
