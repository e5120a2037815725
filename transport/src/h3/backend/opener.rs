//! Opening streams.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use ::h3::error::Code;
use ::h3::quic::{self, StreamErrorIncoming};
use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};

use super::Shared;
use crate::h3::codes;
use crate::h3::guard::{Asked, Guard, MessageGuard};
use crate::h3::stream::{Bidi, Link, RecvHalf, SendHalf, Stopped, code, connection_error};

tokio::task_local! {
    /// What the stream that h3 is about to open is for: h3 has no way to pass it through.
    pub(in crate::h3) static OPENING: Arc<Opening>;
}

/// What is known of a request before it has a stream.
#[derive(Debug)]
pub(in crate::h3) struct Opening {
    pub(in crate::h3) asked: Asked,
    /// Whether a body follows, whose sender must learn when the peer wants no more.
    uploads: bool,
    /// The stream's identifier once there is one.
    id: AtomicU64,
    stopped: Mutex<Option<Stopped>>,
}

impl Opening {
    pub(in crate::h3) fn new(asked: Asked, uploads: bool) -> Arc<Self> {
        Arc::new(Self {
            asked,
            uploads,
            id: AtomicU64::new(u64::MAX),
            stopped: Mutex::new(None),
        })
    }

    /// Tells when the peer wants no more of the upload; there is one once the stream is open, if a body follows.
    pub(in crate::h3) fn take_stopped(&self) -> Option<Stopped> {
        self.stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn opened(&self, send: &SendHalf) {
        self.id.store(send.id(), Ordering::Relaxed);
        if self.uploads {
            *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(send.stopped());
        }
    }

    pub(in crate::h3) fn id(&self) -> Option<u64> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != u64::MAX)
    }
}

/// Opens streams of one connection.
pub(in crate::h3) struct Opener {
    shared: Arc<Shared>,
    waiting_bi: Option<Waiting<(SendStream, RecvStream)>>,
    waiting_uni: Option<Waiting<SendStream>>,
}

type Waiting<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>;

impl Opener {
    pub(in crate::h3) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            waiting_bi: None,
            waiting_uni: None,
        }
    }

    fn request(&self, send: SendStream, recv: RecvStream) -> Bidi {
        let link = Arc::<Link>::default();
        let send = SendHalf::new(send, codes::REQUEST_CANCELLED, link.clone());
        let asked = OPENING.try_with(|opening| {
            opening.opened(&send);
            opening.asked
        });
        let guard = MessageGuard::response(
            self.shared.header_bytes_max(),
            asked.unwrap_or(Asked::Other),
        );
        let shared = self.shared.clone();
        let recv = RecvHalf::message(
            recv,
            Guard::Message(guard),
            codes::REQUEST_CANCELLED,
            link.clone(),
            shared,
        );
        Bidi::new(send, recv, link)
    }
}

/// Polls for a new stream. Mostly there is room for one at once; only waiting for room needs a future that lasts.
fn poll_open<T, F>(
    waiting: &mut Option<Waiting<T>>,
    cx: &mut Context<'_>,
    at_once: impl Future<Output = Result<T, ConnectionError>>,
    later: impl FnOnce() -> F,
) -> Poll<Result<T, StreamErrorIncoming>>
where
    F: Future<Output = Result<T, ConnectionError>> + Send + Sync + 'static,
{
    if waiting.is_none()
        && let Poll::Ready(opened) = pin!(at_once).poll(cx)
    {
        return Poll::Ready(opened.map_err(lost));
    }
    let future = waiting.get_or_insert_with(|| Box::pin(later()));
    let opened = ready!(future.as_mut().poll(cx));
    *waiting = None;
    Poll::Ready(opened.map_err(lost))
}

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: connection_error(error),
    }
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Bidi;
    type SendStream = SendHalf;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidi, StreamErrorIncoming>> {
        let connection = self.shared.connection();
        let later = || {
            let connection = connection.clone();
            async move { connection.open_bi().await }
        };
        let (send, recv) = ready!(poll_open(
            &mut self.waiting_bi,
            cx,
            connection.open_bi(),
            later
        ))?;
        Poll::Ready(Ok(self.request(send, recv)))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendHalf, StreamErrorIncoming>> {
        let connection = self.shared.connection();
        let later = || {
            let connection = connection.clone();
            async move { connection.open_uni().await }
        };
        let send = ready!(poll_open(
            &mut self.waiting_uni,
            cx,
            connection.open_uni(),
            later
        ))?;
        Poll::Ready(Ok(SendHalf::new(
            send,
            codes::CLOSED_CRITICAL_STREAM,
            Arc::default(),
        )))
    }

    /// The code says all that a peer needs; h3 would tell it what its parser found.
    fn close(&mut self, error: Code, _reason: &[u8]) {
        self.shared.connection().close(code(error.value()), b"");
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
