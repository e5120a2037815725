//! What a client has been promised.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::h3::backend::{Arrived, Flight};
use crate::h3::stream::{Link, SendFailure, Stopped};

/// An answer owed to a client. Notes when the client gives up before it came.
#[derive(Debug)]
pub(super) struct Pledge {
    stopped: Stopped,
    link: Arc<Link>,
    flight: Arc<Flight>,
    answered: bool,
}

impl Pledge {
    pub(super) fn new(arrived: Arrived) -> Self {
        let Arrived {
            link,
            stopped,
            flight,
        } = arrived;
        Self {
            stopped,
            link,
            flight: Arc::new(flight),
            answered: false,
        }
    }

    /// The head of the answer is on its way.
    pub(super) fn keep(&mut self) {
        self.answered = true;
        self.flight.shared().answered();
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(super) fn stopped(&mut self) -> &mut Stopped {
        &mut self.stopped
    }

    /// Resolves when the client wants no more or is gone, and never otherwise.
    pub(super) async fn cancelled(&mut self) {
        poll_fn(|cx| match self.stopped.poll(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        })
        .await;
    }

    /// While the connection drains, waits until the client has everything.
    pub(super) async fn delivered(&mut self) -> Result<(), SendFailure> {
        if self.flight.shared().is_draining() {
            poll_fn(|cx| self.stopped.poll(cx)).await?;
        }
        Ok(())
    }
}

impl Drop for Pledge {
    /// Must come before the stream itself is dropped, which hides whose doing it was.
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let now = self.stopped.poll(&mut Context::from_waker(Waker::noop()));
        let given_up = matches!(now, Poll::Ready(Err(SendFailure::Stopped(_))));
        if given_up || self.link.was_refused() {
            self.flight.shared().gave_up();
        }
    }
}
