//! Request bodies that can be offered to another instance.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BoxError};

/// A request's body and what was taken of it: another try gets all of it as long as nothing was taken, or what was taken
/// is still kept.
#[derive(Debug)]
pub struct Offered(Arc<Mutex<Offer>>);

/// The body as one try sends it. When the next try begins, it is of no use any more.
#[derive(Debug)]
pub struct Offering {
    offer: Arc<Mutex<Offer>>,
    round: u32,
    /// Pieces that this try has sent.
    at: usize,
}

#[derive(Debug)]
struct Offer {
    body: Body,
    round: u32,
    taken: Vec<Piece>,
    /// Bytes that may still be kept.
    room: usize,
    is_touched: bool,
    is_ended: bool,
    is_lost: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The try that this body belonged to was given up.
#[derive(Debug, thiserror::Error)]
#[error("the request is being sent to another instance")]
struct GivenUp;

impl Offered {
    /// Keeps up to `keep` bytes of what was taken; with 0, only an untouched body can be offered again.
    pub fn new(body: Body, keep: usize) -> Self {
        Self(Arc::new(Mutex::new(Offer {
            body,
            round: 0,
            taken: Vec::new(),
            room: keep,
            is_touched: false,
            is_ended: false,
            is_lost: keep == 0,
        })))
    }

    /// Whether another instance would get all of it.
    pub fn is_whole(&self) -> bool {
        let offer = lock(&self.0);
        !offer.is_touched || !offer.is_lost
    }

    /// The body for the next try.
    pub fn offer(&self) -> Offering {
        let mut offer = lock(&self.0);
        offer.round += 1;
        Offering {
            offer: self.0.clone(),
            round: offer.round,
            at: 0,
        }
    }
}

impl Offer {
    /// Keeps what is passed on, or nothing of the whole body once that is too much.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.is_touched = true;
        if self.is_lost {
            return;
        }
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return,
        };
        let bytes = match &piece {
            Piece::Data(data) => data.len(),
            Piece::Trailers(_) => 0,
        };
        if bytes > self.room || self.taken.len() == PIECES_MAX {
            self.is_lost = true;
            self.taken = Vec::new();
        } else {
            self.room -= bytes;
            self.taken.push(piece);
        }
    }
}

impl HttpBody for Offering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut offer = lock(&this.offer);
        if offer.round != this.round {
            return Poll::Ready(Some(Err(GivenUp.into())));
        }
        if let Some(piece) = offer.taken.get(this.at) {
            this.at += 1;
            return Poll::Ready(Some(Ok(match piece {
                Piece::Data(data) => Frame::data(data.clone()),
                Piece::Trailers(trailers) => Frame::trailers(trailers.clone()),
            })));
        }
        if offer.is_ended {
            return Poll::Ready(None);
        }
        let polled = ready!(Pin::new(&mut offer.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                offer.keep(frame);
                this.at = offer.taken.len();
            }
            Some(Err(_)) => {
                offer.is_touched = true;
                offer.is_lost = true;
            }
            None => offer.is_ended = true,
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let offer = lock(&self.offer);
        self.at >= offer.taken.len() && (offer.is_ended || offer.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let offer = lock(&self.offer);
        let again = offer.taken.get(self.at..).unwrap_or_default().iter();
        let again: u64 = again
            .map(|piece| match piece {
                Piece::Data(data) => data.len() as u64,
                Piece::Trailers(_) => 0,
            })
            .sum();
        let rest = offer.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}

fn lock(offer: &Mutex<Offer>) -> MutexGuard<'_, Offer> {
    offer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body of many tiny pieces is not worth its list.
const PIECES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::body::boxed;

    fn body(pieces: &[&'static str]) -> Body {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        boxed(StreamBody::new(stream::iter(frames)))
    }

    async fn read(offering: Offering) -> String {
        let bytes = offering.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_sent_again_as_often_as_needed() {
        let offered = Offered::new(body(&["ab", "cd", "ef"]), 6);
        let mut first = offered.offer();
        first.frame().await.unwrap().unwrap();
        assert!(offered.is_whole());
        assert_eq!(read(offered.offer()).await, "abcdef");
        assert_eq!(read(offered.offer()).await, "abcdef");
        assert!(
            first.frame().await.unwrap().is_err(),
            "the first was given up"
        );
    }

    #[tokio::test]
    async fn too_much_is_not_kept_at_all() {
        let offered = Offered::new(body(&["ab", "cd"]), 3);
        let mut first = offered.offer();
        assert_eq!(
            first.frame().await.unwrap().unwrap().into_data().unwrap(),
            "ab"
        );
        assert!(offered.is_whole());
        assert_eq!(
            first.frame().await.unwrap().unwrap().into_data().unwrap(),
            "cd"
        );
        assert!(!offered.is_whole());
        assert!(first.frame().await.is_none());
    }

    #[tokio::test]
    async fn without_room_only_an_untouched_body_is_whole() {
        let offered = Offered::new(body(&["ab"]), 0);
        drop(offered.offer());
        assert!(offered.is_whole());
        assert_eq!(read(offered.offer()).await, "ab");
        assert!(!offered.is_whole());
    }

    #[tokio::test]
    async fn lengths_hold_for_every_try() {
        let offered = Offered::new(crate::body::full(Bytes::from_static(b"abc")), 10);
        let mut first = offered.offer();
        assert_eq!(first.size_hint().exact(), Some(3));
        first.frame().await.unwrap().unwrap();
        assert_eq!(first.size_hint().exact(), Some(0));
        let second = offered.offer();
        assert!(!second.is_end_stream());
        assert_eq!(second.size_hint().exact(), Some(3));
    }
}
