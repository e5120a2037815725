//! How a host without a certificate reaches an issuer: one request and its answer, on a UDP port of its own.
//!
//! The listener shows the node's SVID with the roots behind it; the joiner knows the SHA-256 of one root from its token
//! and accepts only a node that this root vouches for. What that node answers counts only with the signature of an issuer
//! ([`SignedAnswer`]): a node that is none, or no longer one, can keep a joiner waiting and nothing else. Joiners show no certificate. Both ends derive the same 32 bytes
//! from the handshake ([`BINDING_LABEL`]); whoever signs them proves that the request was made for this very connection.
//!
//! The mesh port knows nothing of this: other socket, other TLS settings, other ALPN.

mod dial;
mod listen;
mod rate;
mod signature;

pub use dial::{JoinError, Pinned, Said, ask};
pub use listen::{JoinListener, Visitor};
pub use signature::{IssuerSignature, SignedAnswer};

/// The one protocol of the join port.
const ALPN: &[u8] = b"starling-join/1";

/// What the binding of a request to its connection is derived with (RFC 8446 §7.5).
pub const BINDING_LABEL: &[u8] = b"EXPORTER-starling-join/1";

/// A request with the CSRs of a node and 32 services is about 12 KiB.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The chains for them are about 40 KiB; a certificate and a signature come before them.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The 32 bytes that only the two ends of this connection know.
fn binding(conn: &quinn::Connection) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    conn.export_keying_material(&mut bytes, BINDING_LABEL, b"")
        .ok()
        .map(|()| bytes)
}

#[cfg(test)]
mod tests;
