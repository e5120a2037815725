//! Bodies on their way through the agent: counted, with clean trailers, ending the call's access line with their end.

mod capped;
pub mod copy;
mod offered;
mod timers;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::balance::Pick;
use crate::guard::Held;
use crate::headers;
use crate::policy::Live;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Traffic;

pub use capped::{Capped, Over};
pub use offered::Offered;
use timers::Expired;
pub use timers::Timers;

/// Whatever failed under a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Gives any body the one type.
pub fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A short body that is all there.
pub fn full(bytes: Bytes) -> Body {
    boxed(Full::new(bytes))
}

/// A request's body: counts what passes and cleans its trailers.
#[derive(Debug)]
pub struct Counted<B> {
    inner: B,
    traffic: Arc<Traffic>,
    is_broken: Arc<AtomicBool>,
}

/// Tells afterwards whether it was the caller whose body broke off or was no HTTP.
#[derive(Debug)]
pub struct Broken(Arc<AtomicBool>);

impl Broken {
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B> Counted<B> {
    /// Counts into `traffic` as sent by the caller.
    pub fn new(inner: B, traffic: &Arc<Traffic>) -> Self {
        Self {
            inner,
            traffic: traffic.clone(),
            is_broken: Arc::default(),
        }
    }

    pub fn broken(&self) -> Broken {
        Broken(self.is_broken.clone())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &mut polled {
            Some(Ok(frame)) => self.traffic.add_in(clean(frame)),
            Some(Err(_)) => self.is_broken.store(true, Ordering::Relaxed),
            None => {}
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

/// A response's body. Holds what the call holds until the last byte has passed or the caller has left.
#[derive(Debug)]
pub struct Closing<B> {
    inner: B,
    call: Option<Call>,
}

/// A call whose response is on its way.
#[derive(Debug)]
pub struct Call {
    /// Written when the call ends.
    pub line: AccessLine,
    /// At the caller: the instance, which counts the call as in flight.
    pub pick: Option<Pick>,
    /// What a body cut short means here.
    pub broken: Reason,
    /// What others wait for until it ends.
    pub held: Held,
    /// When the answer takes too long, if it can.
    pub timers: Option<Box<Timers>>,
}

impl<B: HttpBody<Data = Bytes>> Closing<B> {
    /// Ends `call` with `inner`; at once if there is nothing to come.
    pub fn new(inner: B, call: Call) -> Self {
        let mut closing = Self {
            inner,
            call: Some(call),
        };
        closing.end_if_done();
        closing
    }

    /// A body that is at its end, or has given the last of its announced length, is not always polled again.
    fn end_if_done(&mut self) {
        let is_done = self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0);
        if is_done && let Some(call) = self.call.take() {
            call.line.finish();
        }
    }

    /// Ready when the answer takes too long; the call is over then.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Call { line, timers, .. }) = &mut self.call else {
            return Poll::Pending;
        };
        let Some(timers) = timers else {
            return Poll::Pending;
        };
        ready!(timers.poll(line.traffic(), cx));
        if let Some(mut call) = self.call.take() {
            call.line.fail(Reason::Timeout);
            call.line.finish();
        }
        Poll::Ready(())
    }

    fn end(&mut self, failed: bool) {
        let Some(mut call) = self.call.take() else {
            return;
        };
        if failed {
            call.line.fail(call.broken);
            if let Some(pick) = &mut call.pick {
                pick.failed(
                    call.broken,
                    tokio::time::Instant::now(),
                    &mut fastrand::Rng::new(),
                );
            }
        }
        call.line.finish();
    }
}

impl<B> HttpBody for Closing<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(mut polled) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.poll_timers(cx));
            return Poll::Ready(Some(Err(Expired.into())));
        };
        match &mut polled {
            Some(Ok(frame)) => {
                let bytes = clean(frame);
                if let Some(call) = &mut self.call {
                    call.line.traffic().add_out(bytes);
                    if let Some(trailers) = frame.trailers_ref() {
                        call.line.note(trailers);
                    }
                }
                self.end_if_done();
            }
            Some(Err(_)) => self.end(true),
            None => self.end(false),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response to a caller on this node, which ends when the call may not go on. For a peer the task that carries
/// the call sees to that; here no task does.
pub struct Judged {
    inner: Body,
    traffic: Arc<Traffic>,
    live: Option<Live>,
    /// Made when there is something to wait for: most bodies are over before.
    cut: Option<Pin<Box<dyn Future<Output = Reason> + Send>>>,
}

impl Judged {
    pub fn new(inner: Body, live: Live, traffic: Arc<Traffic>) -> Self {
        Self {
            inner,
            traffic,
            live: Some(live),
            cut: None,
        }
    }

    /// Ready with the reason once the call may not go on, and from then on.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let reason = match (&mut self.live, &mut self.cut) {
            (Some(live), _) => live.is_cut().map_or(Poll::Pending, Poll::Ready),
            (None, Some(cut)) => cut.as_mut().poll(cx),
            (None, None) => Poll::Ready(self.traffic.cut_for().unwrap_or(Reason::Denied)),
        };
        if let Poll::Ready(reason) = reason {
            self.traffic.cut(reason);
            (self.live, self.cut) = (None, None);
        }
        reason
    }

    /// Has the reader woken by the end of the call too.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Some(mut live) = self.live.take() {
            self.cut = Some(Box::pin(async move { live.cut().await }));
        }
        self.poll_cut(cx)
    }
}

impl HttpBody for Judged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut cut = self.poll_cut(cx);
        if cut.is_pending() {
            let polled = Pin::new(&mut self.inner).poll_frame(cx);
            if polled.is_ready() {
                return polled;
            }
            cut = self.wait(cx);
        }
        cut.map(|reason| Some(Err(reason.as_str().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl std::fmt::Debug for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judged").finish_non_exhaustive()
    }
}

/// Cleans trailers; returns the data bytes of the frame.
fn clean(frame: &mut Frame<Bytes>) -> usize {
    if let Some(trailers) = frame.trailers_mut() {
        headers::trailers(trailers);
    }
    frame.data_ref().map_or(0, Bytes::len)
}
