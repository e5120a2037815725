//! What can go wrong, told apart by what the caller should do about it.

use std::error::Error;
use std::fmt;

use ::h3::error::{ConnectionError, StreamError};
use http::Response;

use super::codes;
use super::guard::{Reason, Refusal};
use super::stream::{RecvFailure, SendFailure};
use crate::ended::Ended;

type Cause = Box<dyn Error + Send + Sync>;

/// HTTP/3 could not begin on a connection.
#[derive(Debug, thiserror::Error)]
#[error("http/3 could not begin on the connection")]
pub struct StartError(#[source] pub(super) ConnectionError);

/// Why a request got no response.
#[derive(Debug)]
pub struct RequestError {
    kind: RequestErrorKind,
    unsent: bool,
    response: Option<Box<Response<()>>>,
    source: Option<Cause>,
}

/// What kind of failure a [`RequestError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// The connection is gone: closed by either side, or silent for too long.
    ConnectionLost,
    /// The peer takes no new requests on this connection.
    GoingAway,
    /// The peer turned the stream away without looking at the request.
    Rejected,
    /// The peer reset the stream with this code.
    Reset(u64),
    /// The head is larger than the peer, or we ourselves, accept.
    TooLarge,
    /// The request cannot be said in HTTP/3: it names no authority, or is a CONNECT given to the wrong method.
    Invalid,
    /// The response breaks the protocol.
    Malformed,
    /// The peer does not take what was to be sent: it has no extended CONNECT.
    Unsupported,
    /// The peer answered CONNECT with something other than success: see [`RequestError::response`].
    Refused,
}

impl RequestError {
    pub(super) fn new(kind: RequestErrorKind) -> Self {
        Self {
            kind,
            unsent: false,
            response: None,
            source: None,
        }
    }

    /// Before anything was sent.
    pub(super) fn before(kind: RequestErrorKind) -> Self {
        Self {
            unsent: true,
            ..Self::new(kind)
        }
    }

    pub(super) fn refused(response: Response<()>) -> Self {
        Self {
            response: Some(Box::new(response)),
            ..Self::new(RequestErrorKind::Refused)
        }
    }

    /// Marks an error as one of a request that the peer said it would not look at.
    pub(super) fn or_unsent(mut self, unsent: bool) -> Self {
        self.unsent |= unsent;
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> RequestErrorKind {
        self.kind
    }

    /// Whether the peer's application cannot have seen any of the request, so that it is safe to try elsewhere whatever
    /// its method. The body may be used up all the same.
    pub fn is_unsent(&self) -> bool {
        self.unsent
    }

    /// The head of the answer that refused a CONNECT.
    pub fn response(&self) -> Option<&Response<()>> {
        self.response.as_deref()
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RequestErrorKind::ConnectionLost => f.write_str("the connection to the peer was lost"),
            RequestErrorKind::GoingAway => f.write_str("the peer takes no new requests"),
            RequestErrorKind::Rejected => f.write_str("the peer turned the request away unread"),
            RequestErrorKind::Reset(code) => write!(f, "the peer reset the stream ({code:#x})"),
            RequestErrorKind::TooLarge => f.write_str("the head is too large"),
            RequestErrorKind::Invalid => f.write_str("the request cannot be sent over http/3"),
            RequestErrorKind::Malformed => f.write_str("the peer's response breaks the protocol"),
            RequestErrorKind::Unsupported => f.write_str("the peer takes no upgrades"),
            RequestErrorKind::Refused => f.write_str("the peer refused the tunnel"),
        }
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<StreamError> for RequestError {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::RemoteTerminate { code } => return Self::from_code(code.value()),
            StreamError::RemoteClosing => return Self::before(RequestErrorKind::GoingAway),
            // The guard refuses such answers before h3 can, so it is our own head that is too large.
            StreamError::HeaderTooBig { .. } => return Self::before(RequestErrorKind::TooLarge),
            StreamError::StreamError { .. } => RequestErrorKind::Malformed,
            StreamError::Undefined(cause) => cause
                .downcast_ref()
                .map_or(RequestErrorKind::ConnectionLost, of_refusal),
            _ => RequestErrorKind::ConnectionLost,
        };
        Self {
            source: Some(Box::new(error)),
            ..Self::new(kind)
        }
    }
}

/// What to call an answer that the guard refused.
fn of_refusal(refusal: &Refusal) -> RequestErrorKind {
    match refusal.reason {
        Reason::HeaderBytes => RequestErrorKind::TooLarge,
        _ => RequestErrorKind::Malformed,
    }
}

impl From<RecvFailure> for RequestError {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::Reset(code) => Self::from_code(code),
            RecvFailure::Refused(refusal) => Self {
                source: Some(Box::new(refusal)),
                ..Self::new(of_refusal(&refusal))
            },
            RecvFailure::Lost(error) => Self {
                source: Some(Box::new(Ended(error))),
                ..Self::new(RequestErrorKind::ConnectionLost)
            },
            RecvFailure::Stopped => Self::new(RequestErrorKind::ConnectionLost),
        }
    }
}

impl RequestError {
    fn from_code(code: u64) -> Self {
        match code {
            codes::REQUEST_REJECTED => Self::before(RequestErrorKind::Rejected),
            code => Self::new(RequestErrorKind::Reset(code)),
        }
    }

    pub(super) fn lost(error: quinn::ConnectionError) -> Self {
        Self {
            source: Some(Box::new(Ended(error))),
            ..Self::new(RequestErrorKind::ConnectionLost)
        }
    }
}

/// Why a body did not arrive whole. What came before is not to be taken for the whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer gave the stream up, with this code.
    #[error("the peer gave the stream up ({0:#x})")]
    Reset(u64),
    /// The connection is gone.
    #[error("the connection was lost in the middle of a body")]
    ConnectionLost(#[source] Cause),
    /// The message breaks the protocol, for instance by a content-length that does not fit.
    #[error("the message is malformed")]
    Malformed(#[source] Cause),
}

impl From<StreamError> for RecvError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { code } => Self::Reset(code.value()),
            StreamError::Undefined(cause) if cause.is::<Refusal>() => Self::Malformed(cause),
            StreamError::StreamError { .. } | StreamError::HeaderTooBig { .. } => {
                Self::Malformed(error.into())
            }
            other => Self::ConnectionLost(other.into()),
        }
    }
}

/// Why a response did not go out whole. The stream has been reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The peer no longer wants the response.
    #[error("the peer no longer wants the response ({0:#x})")]
    Cancelled(u64),
    /// The connection is gone.
    #[error("the connection was lost before the response was sent")]
    ConnectionLost(#[source] Cause),
    /// The head or the trailers are larger than the peer accepts.
    #[error("the peer does not accept a head this large")]
    TooLarge,
    /// The status is no answer: an interim one, or success where a tunnel was to be refused.
    #[error("the status does not fit an answer")]
    Unfit,
    /// The body given to us failed.
    #[error("the body failed")]
    Body(#[source] Cause),
}

impl From<StreamError> for RespondError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { code } => Self::Cancelled(code.value()),
            StreamError::HeaderTooBig { .. } => Self::TooLarge,
            other => Self::ConnectionLost(other.into()),
        }
    }
}

impl From<SendFailure> for RespondError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Stopped(code) => Self::Cancelled(code),
            SendFailure::Lost(error) => Self::ConnectionLost(Ended(error).into()),
            SendFailure::Closed => Self::Cancelled(codes::NO_ERROR),
        }
    }
}

/// Why a tunnel ended in one direction other than by its end.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The peer gave this direction up, with this code.
    #[error("the peer gave the tunnel up ({0:#x})")]
    Reset(u64),
    /// The connection is gone.
    #[error("the connection under the tunnel was lost")]
    ConnectionLost(#[source] Ended),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol inside a tunnel")]
    Malformed(#[source] Refusal),
    /// This direction was ended on this side before.
    #[error("this direction of the tunnel is already closed")]
    Closed,
}

impl From<RecvFailure> for TunnelError {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::Reset(code) => Self::Reset(code),
            RecvFailure::Lost(error) => Self::ConnectionLost(Ended(error)),
            RecvFailure::Refused(refusal) => Self::Malformed(refusal),
            RecvFailure::Stopped => Self::Closed,
        }
    }
}

impl From<SendFailure> for TunnelError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Stopped(code) => Self::Reset(code),
            SendFailure::Lost(error) => Self::ConnectionLost(Ended(error)),
            SendFailure::Closed => Self::Closed,
        }
    }
}
