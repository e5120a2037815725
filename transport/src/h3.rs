//! HTTP/3 over one QUIC connection: requests with streaming bodies, and tunnels (CONNECT, plain or extended) on the same connection.
//!
//! [`Requester`] is the side that asks, [`Acceptor`] the side that serves. h3 speaks the protocol on a backend of ours that
//! refuses what RFC 9114 forbids before h3 sees or buffers it (`guard`), and never turns a stream that was given up into
//! one that ended well. A tunnel's bytes do not pass through h3 once the tunnel stands.

mod backend;
mod body;
mod client;
mod codes;
mod error;
#[doc(hidden)]
pub mod guard;
pub mod metrics;
mod qpack;
mod server;
mod stream;
mod tunnel;

pub use body::RecvBody;
pub use client::{AnswerBody, Requester, Upgraded};
pub use error::{RecvError, RequestError, RequestErrorKind, RespondError, StartError, TunnelError};
pub use guard::{Reason, Refusal, Scope};
pub use server::{Acceptor, ConnectRequest, Exchange, Responder, TunnelResponder};
pub use tunnel::{Tunnel, TunnelRecv, TunnelSend};

/// What one side accepts of the other.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one field section, counted both as encoded and as RFC 9114 §4.2.2 counts decoded ones. A larger head or
    /// trailer section is refused before it is buffered.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
