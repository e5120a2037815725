//! Request bodies on their way out.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use tokio::task::AbortHandle;

use super::Requester;
use crate::h3::backend::Flight;
use crate::h3::body::{self, Sender};
use crate::h3::stream::{SendHalf, Stopped};

/// The task that sends a request's body. Dropped, it takes the body back unless it was detached.
#[derive(Debug)]
pub(in crate::h3) struct Upload(Option<AbortHandle>);

impl Upload {
    pub(super) fn start<B>(
        body: B,
        send: ::h3::client::RequestStream<SendHalf, Bytes>,
        mut stopped: Stopped,
        flight: Arc<Flight>,
        requester: Requester,
    ) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let task = tokio::spawn(async move {
            let _counted = (flight, requester);
            if let Err(error) = body::send(body, &mut Sender::Client(send), &mut stopped).await {
                tracing::debug!(%error, "request body not sent to its end");
            }
        });
        Self(Some(task.abort_handle()))
    }

    /// Lets the upload go on by itself, until it ends or the peer stops it.
    pub(in crate::h3) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
