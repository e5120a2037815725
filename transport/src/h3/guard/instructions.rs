//! The guard of a peer's two QPACK streams, on which it would keep a dynamic table.

use super::{Reason, Refusal};
use crate::h3::codes;

/// Follows a peer's QPACK encoder or decoder stream. Without a dynamic table hardly anything is allowed there.
#[derive(Debug)]
pub(in crate::h3) struct QpackGuard {
    kind: Qpack,
    /// Bytes of a stream cancellation's integer still allowed; zero between instructions.
    integer_left: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qpack {
    Encoder,
    Decoder,
}

impl QpackGuard {
    pub(in crate::h3) fn encoder() -> Self {
        Self {
            kind: Qpack::Encoder,
            integer_left: 0,
        }
    }

    pub(in crate::h3) fn decoder() -> Self {
        Self {
            kind: Qpack::Decoder,
            integer_left: 0,
        }
    }

    pub(in crate::h3) fn is_encoder(&self) -> bool {
        self.kind == Qpack::Encoder
    }

    pub(in crate::h3) fn check(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        bytes.iter().try_for_each(|byte| match self.kind {
            // The one thing an encoder may say is that the table has no capacity.
            Qpack::Encoder if *byte == CAPACITY_ZERO => Ok(()),
            Qpack::Encoder => Err(Refusal::connection(
                codes::QPACK_ENCODER_STREAM_ERROR,
                Reason::QpackStream,
            )),
            Qpack::Decoder => self.decoder_byte(*byte),
        })
    }

    /// A decoder may cancel streams; there are no insertions to acknowledge.
    fn decoder_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        let fault = Refusal::connection(codes::QPACK_DECODER_STREAM_ERROR, Reason::QpackStream);
        if self.integer_left > 0 {
            let more = byte & 0x80 != 0;
            self.integer_left = if more { self.integer_left - 1 } else { 0 };
            return if more && self.integer_left == 0 {
                Err(fault)
            } else {
                Ok(())
            };
        }
        if byte & 0b1100_0000 != STREAM_CANCELLATION {
            return Err(fault);
        }
        if byte & 0x3f == 0x3f {
            self.integer_left = INTEGER_BYTES_MAX;
        }
        Ok(())
    }
}

const CAPACITY_ZERO: u8 = 0b0010_0000;
const STREAM_CANCELLATION: u8 = 0b0100_0000;
const INTEGER_BYTES_MAX: u8 = 10;
