//! What stands between QUIC and h3: every byte a peer sends on a request or control stream passes here first.
//!
//! A guard follows the frames, bounds them before anything buffers them, and refuses what RFC 9114 forbids and h3 0.0.8
//! lets through. h3 receives only frames that were checked: unknown frames, empty DATA frames and interim responses are
//! left out, HEADERS arrive whole. The guards are pure: chunks in, pieces or a refusal out, the same however the bytes
//! were cut into chunks.

mod control;
mod fields;
mod frame;
mod instructions;
mod message;

use bytes::Bytes;

pub(super) use control::ControlGuard;
pub(super) use frame::HeaderBytes;
pub(super) use frame::put_varint;
pub(super) use instructions::QpackGuard;
pub(super) use message::{Asked, MessageGuard};

use super::codes;

/// Why bytes of a peer were refused. Says what the peer is told; nothing of the message went further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused: {reason:?} (code {code:#x})")]
pub struct Refusal {
    /// Whether the whole connection ends or the one stream.
    pub scope: Scope,
    /// The HTTP/3 error code sent to the peer.
    pub code: u64,
    /// The kind of fault, for counting.
    pub reason: Reason,
}

/// How far a refusal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The stream is reset and no longer read.
    Stream,
    /// The connection is closed.
    Connection,
}

/// The closed list of faults; `label` is the metric label of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A frame that is not allowed on this stream or in this state.
    FrameUnexpected,
    /// A frame cut off by the end of the stream, or of a wrong size.
    FrameMalformed,
    /// A field section over the cap, encoded or decoded, or of too many fields.
    HeaderBytes,
    /// A field section that does not decode, or refers to a dynamic table.
    Qpack,
    /// A pseudo-header that is missing, repeated, unknown, misplaced or badly formed.
    PseudoHeader,
    /// A field name or value with characters that are not allowed.
    Field,
    /// A field that speaks of a connection, which HTTP/3 has no place for.
    ConnectionField,
    /// A content-length that is not one number, or differs from the bytes that came.
    ContentLength,
    /// A stream that ended before a whole message head.
    Incomplete,
    /// More interim responses than anyone sends.
    Interim,
    /// Settings that are missing, repeated, reserved or out of range.
    Settings,
    /// A stream of a kind that may not exist, or exist twice.
    StreamKind,
    /// An identifier that may not be used, or grew where it may only shrink.
    Identifier,
    /// A stream that may never end has ended.
    CriticalStream,
    /// An instruction on a QPACK stream that needs a dynamic table.
    QpackStream,
    /// More streams opened and given up than a peer may.
    Churn,
}

impl Reason {
    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::FrameUnexpected => "frame_unexpected",
            Self::FrameMalformed => "frame_malformed",
            Self::HeaderBytes => "header_bytes",
            Self::Qpack => "qpack",
            Self::PseudoHeader => "pseudo_header",
            Self::Field => "field",
            Self::ConnectionField => "connection_field",
            Self::ContentLength => "content_length",
            Self::Incomplete => "incomplete",
            Self::Interim => "interim",
            Self::Settings => "settings",
            Self::StreamKind => "stream_kind",
            Self::Identifier => "identifier",
            Self::CriticalStream => "critical_stream",
            Self::QpackStream => "qpack_stream",
            Self::Churn => "churn",
        }
    }
}

impl Refusal {
    pub(super) fn stream(code: u64, reason: Reason) -> Self {
        Self {
            scope: Scope::Stream,
            code,
            reason,
        }
    }

    pub(super) fn connection(code: u64, reason: Reason) -> Self {
        Self {
            scope: Scope::Connection,
            code,
            reason,
        }
    }

    /// RFC 9114 §4.1.2: a malformed message ends its stream.
    fn malformed(reason: Reason) -> Self {
        Self::stream(codes::MESSAGE_ERROR, reason)
    }

    fn unexpected() -> Self {
        Self::connection(codes::FRAME_UNEXPECTED, Reason::FrameUnexpected)
    }

    fn truncated() -> Self {
        Self::connection(codes::FRAME_ERROR, Reason::FrameMalformed)
    }
}

/// A checked part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// One HEADERS frame, whole, its fields as they were checked but without Huffman codes.
    Headers(Bytes),
    /// Part of a DATA frame: its header up to `payload_at` (nothing if the header came before), then payload.
    Data { bytes: Bytes, payload_at: usize },
    /// The SETTINGS frame, whole, and whether the peer takes extended CONNECT.
    Settings { bytes: Bytes, upgrades: bool },
    /// A GOAWAY frame, whole, and the identifier it names.
    GoAway { bytes: Bytes, id: u64 },
}

impl Piece {
    /// The bytes as h3 is to read them.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Headers(bytes)
            | Self::Data { bytes, .. }
            | Self::Settings { bytes, .. }
            | Self::GoAway { bytes, .. } => bytes,
        }
    }
}

/// What a guard does with a stream, so that one reader serves all kinds.
#[derive(Debug)]
pub(super) enum Guard {
    Message(MessageGuard),
    Control(ControlGuard),
}

impl Guard {
    /// Takes the next checked piece off the front of `chunk`, or all of `chunk` if it holds none yet.
    pub(super) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, Refusal> {
        match self {
            Self::Message(guard) => guard.next(chunk),
            Self::Control(guard) => guard.next(chunk),
        }
    }

    /// The stream ended cleanly here; may it?
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        match self {
            Self::Message(guard) => guard.finish(),
            Self::Control(guard) => guard.finish(),
        }
    }
}

/// Runs every guard over arbitrary bytes, cut into chunks as the first byte says. For fuzzing: it must never panic, nor
/// answer differently for another cut.
#[doc(hidden)]
pub fn check_bytes(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    for make in [
        || Guard::Message(MessageGuard::request(FUZZ_HEADER_BYTES)),
        || Guard::Message(MessageGuard::response(FUZZ_HEADER_BYTES, Asked::Head)),
        || Guard::Message(MessageGuard::response(FUZZ_HEADER_BYTES, Asked::Other)),
        || Guard::Message(MessageGuard::response(FUZZ_HEADER_BYTES, Asked::Connect)),
        || Guard::Control(ControlGuard::of_client()),
        || Guard::Control(ControlGuard::of_server()),
    ] {
        let whole = verdict(make(), stream.chunks(usize::MAX));
        let parts = verdict(make(), stream.chunks(cut));
        assert_eq!(whole, parts, "the cut changed the verdict");
    }
}

/// All that a guard let through, and how it ended.
fn verdict<'a>(
    mut guard: Guard,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Result<(), Refusal>) {
    let mut passed = Vec::new();
    for chunk in chunks {
        let mut chunk = Bytes::copy_from_slice(chunk);
        while !chunk.is_empty() {
            match guard.next(&mut chunk) {
                Ok(Some(piece)) => passed.extend_from_slice(&piece.into_bytes()),
                Ok(None) => {}
                Err(refusal) => return (passed, Err(refusal)),
            }
        }
    }
    let end = guard.finish();
    (passed, end)
}

const FUZZ_HEADER_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
