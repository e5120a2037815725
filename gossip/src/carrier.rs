//! How gossip reaches other nodes. The caller brings it: over QUIC in the agent, in memory in tests.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

/// Carries frames and questions between nodes that have proved who they are.
///
/// Every implementation must authenticate the peer (mTLS, node SVIDs of this trust domain) before anything passes: the `peer`
/// of what it hands over is the SPIFFE ID the peer's certificate proved. It need not order frames nor deliver all of them.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Sends one frame to the node at `to`, over a connection that is open or by dialling. Ends when the frame is handed to the
    /// network; that says nothing of its arrival. Frames have at most [`FRAME_BYTES_MAX`] bytes. May be dropped at any time.
    async fn send(&self, to: SocketAddr, frame: Bytes) -> Result<(), CarrierError>;

    /// Puts a question to the node at `to` and waits for its answer of at most `answer_bytes_max` bytes; a longer one is an
    /// error. Questions have at most [`QUESTION_BYTES_MAX`] bytes. The caller sets the time limit by dropping the future.
    async fn ask(
        &self,
        to: SocketAddr,
        question: Bytes,
        answer_bytes_max: usize,
    ) -> Result<Answer, CarrierError>;

    /// The next thing a peer sent. `None` once the carrier is closed for good. Cancel-safe; called by one task at a time.
    async fn receive(&self) -> Option<Inbound>;
}

/// Something a peer sent us.
#[derive(Debug)]
pub enum Inbound {
    /// One frame.
    Frame {
        /// The SPIFFE ID the peer's certificate proved.
        peer: Arc<str>,
        /// An address at which [`Carrier::send`] and [`Carrier::ask`] reach this peer while the connection is open.
        from: SocketAddr,
        /// The bytes as sent.
        frame: Bytes,
    },
    /// A question; dropping `answer` refuses it.
    Question {
        /// The SPIFFE ID the peer's certificate proved.
        peer: Arc<str>,
        /// As in [`Inbound::Frame`].
        from: SocketAddr,
        /// The bytes as sent.
        question: Bytes,
        /// Where the answer goes.
        answer: oneshot::Sender<Bytes>,
    },
}

/// What a node answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The SPIFFE ID that the answering node's certificate proved.
    pub peer: Arc<str>,
    /// The bytes as sent.
    pub bytes: Bytes,
}

/// Why something could not be carried. Gossip treats all of them as loss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// No connection to the address could be made or it broke.
    #[error("{to} cannot be reached")]
    Unreachable {
        /// Where the frame was meant to go.
        to: SocketAddr,
        /// What the transport says, where it says anything.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The peer closed the exchange without an answer.
    #[error("{0} refused the question")]
    Refused(SocketAddr),
    /// The answer is longer than was asked for.
    #[error("the answer of {0} is too long")]
    AnswerTooLong(SocketAddr),
    /// The carrier is closed.
    #[error("the carrier is closed")]
    Closed,
}

/// The longest frame. A digest of 400 nodes is 16 KiB and 256 manifests of usual size (600 bytes) are 150 KiB; what does not
/// fit goes with the next exchange.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// The longest question: 600 node ids and a header.
pub const QUESTION_BYTES_MAX: usize = 16 * 1024;

/// The longest answer we ask for; longer listings come in pages.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
