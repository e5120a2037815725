//! Bodies: receiving one as an `http_body::Body`, and sending whatever is one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h3::error::StreamError;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{self, HeaderName};
use http_body::{Body, Frame, SizeHint};

use super::backend::Flight;
use super::client::{Requester, Upload};
use super::error::{RecvError, RespondError};
use super::stream::{RecvHalf, SendHalf, Stopped};

/// The body of a request or response as it arrives, and its trailers.
///
/// Ends cleanly only if the message did: a reset, a lost connection and a content-length that does not fit are errors.
/// Dropped before the end it tells the peer to stop sending; a response's body then also takes back the request's upload.
#[derive(Debug)]
pub struct RecvBody {
    stream: Receiver,
    state: State,
    /// What content-length leaves to come.
    left: Option<u64>,
    /// Looked at ahead of time, to know early whether there is a body at all.
    ahead: Option<Result<Frame<Bytes>, RecvError>>,
    held: Option<Held>,
}

/// What lives as long as a body is being received.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) _flight: Arc<Flight>,
    /// Of a response: the request's body, while it is still being sent.
    pub(super) upload: Option<Upload>,
    /// Of a response: the connection closes when the last requester is gone.
    pub(super) _requester: Option<Requester>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
    Failed,
}

/// h3's receiving end, which is a type of its own on each side.
pub(super) enum Receiver {
    Client(::h3::client::RequestStream<RecvHalf, Bytes>),
    Server(::h3::server::RequestStream<RecvHalf, Bytes>),
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

impl Receiver {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        match self {
            Self::Client(stream) => stream.poll_recv_data(cx).map_ok(|data| data.map(whole)),
            Self::Server(stream) => stream.poll_recv_data(cx).map_ok(|data| data.map(whole)),
        }
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        match self {
            Self::Client(stream) => stream.poll_recv_trailers(cx),
            Self::Server(stream) => stream.poll_recv_trailers(cx),
        }
    }
}

/// The buffer is a `Bytes` behind the trait, so this takes a reference and makes no copy.
fn whole(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

impl RecvBody {
    pub(super) fn new(stream: Receiver, content_length: Option<u64>, held: Held) -> Self {
        Self {
            stream,
            state: State::Data,
            left: content_length,
            ahead: None,
            held: Some(held),
        }
    }

    /// Looks whether anything follows the head, without waiting, so that an empty body is known to be empty.
    pub(super) async fn peek(mut self) -> Self {
        poll_fn(|cx| {
            if let Poll::Ready(frame) = self.poll_next(cx) {
                self.ahead = frame;
            }
            Poll::Ready(())
        })
        .await;
        self
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        loop {
            match self.state {
                State::Data => match ready!(self.stream.poll_data(cx)) {
                    Ok(Some(data)) => {
                        let data = self.gather(data, cx);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(None) => self.state = State::Trailers,
                    Err(error) => return self.fail(error),
                },
                State::Trailers => match ready!(self.stream.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.state = State::Ended;
                        self.land();
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Err(error) => return self.fail(error),
                },
                State::Ended | State::Failed => return Poll::Ready(None),
            }
        }
    }

    /// Adds what else is here. Data comes a packet's worth at a time, and each frame of a body has its price all the way
    /// to the socket of the app; a copy is cheap beside that. An error is told again when asked again ([`RecvHalf`] keeps it).
    fn gather(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut gathered = BytesMut::new();
        let mut last = first;
        while gathered.len() + last.len() < GATHER_BYTES {
            match self.stream.poll_data(cx) {
                Poll::Ready(Ok(Some(next))) => {
                    gathered.extend_from_slice(&last);
                    last = next;
                }
                Poll::Ready(Ok(None)) => {
                    self.state = State::Trailers;
                    break;
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        if gathered.is_empty() {
            return last;
        }
        gathered.extend_from_slice(&last);
        gathered.freeze()
    }

    fn fail(&mut self, error: StreamError) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        self.state = State::Failed;
        Poll::Ready(Some(Err(error.into())))
    }

    /// The message came whole: the upload, if any is left, may go on without us.
    fn land(&mut self) {
        if let Some(upload) = self.held.take().and_then(|held| held.upload) {
            upload.detach();
        }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = RecvError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        let frame = match self.ahead.take() {
            Some(frame) => Some(frame),
            None => ready!(self.poll_next(cx)),
        };
        if let (Some(Ok(frame)), Some(left)) = (&frame, self.left) {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.left = Some(left.saturating_sub(length as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended && self.ahead.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// h3's sending end, which is a type of its own on each side.
pub(super) enum Sender {
    Client(::h3::client::RequestStream<SendHalf, Bytes>),
    Server(::h3::server::RequestStream<SendHalf, Bytes>),
}

impl Sender {
    async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        match self {
            Self::Client(stream) => stream.send_data(data).await,
            Self::Server(stream) => stream.send_data(data).await,
        }
    }

    async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), StreamError> {
        match self {
            Self::Client(stream) => stream.send_trailers(trailers).await,
            Self::Server(stream) => stream.send_trailers(trailers).await,
        }
    }

    pub(super) async fn finish(&mut self) -> Result<(), StreamError> {
        match self {
            Self::Client(stream) => stream.finish().await,
            Self::Server(stream) => stream.finish().await,
        }
    }
}

/// Sends `body` with its trailers to the end, and gives up as soon as the peer wants no more, even while there is nothing
/// to send. After an error the caller drops `to`, which resets the stream.
pub(super) async fn send<B>(
    body: B,
    to: &mut Sender,
    stopped: &mut Stopped,
) -> Result<(), RespondError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| next_frame(body.as_mut(), stopped, cx)).await? {
        match frame.into_data() {
            Ok(mut data) => {
                while !data.is_empty() {
                    let length = data.len().min(DATA_FRAME_BYTES_MAX);
                    to.data(data.split_to(length)).await?;
                }
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    strip_connection_fields(&mut trailers);
                    to.trailers(trailers).await?;
                    break;
                }
            }
        }
    }
    Ok(to.finish().await?)
}

/// The body's next frame, or an error if the peer loses interest first.
fn next_frame<B>(
    body: Pin<&mut B>,
    stopped: &mut Stopped,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Frame<Bytes>>, RespondError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match body.poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(
            frame
                .transpose()
                .map_err(|error| RespondError::Body(error.into())),
        ),
        Poll::Pending => match stopped.poll(cx) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        },
    }
}

/// Takes out what the peer would refuse (RFC 9114 §4.2): fields that speak of a connection which is not this one.
pub(super) fn strip_connection_fields(fields: &mut HeaderMap) {
    for name in CONNECTION_FIELDS {
        fields.remove(name);
    }
    let only_trailers =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if !fields.get_all(header::TE).iter().all(only_trailers) {
        fields.remove(header::TE);
    }
}

const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A frame of a received body holds about as much, if it is there: one write to a socket.
const GATHER_BYTES: usize = 64 * 1024;

/// Largest DATA frame made of a body: h3 copies a frame's payload, and one copy of this size is held per stream.
const DATA_FRAME_BYTES_MAX: usize = 256 * 1024;
