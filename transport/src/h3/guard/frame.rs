//! Variable-length integers and frame headers (RFC 9000 §16, RFC 9114 §7.1), read from whatever chunks come.

use bytes::BufMut;

/// The integers of a frame header, gathered while they arrive in pieces: at most two of eight bytes.
#[derive(Debug, Default)]
pub(in crate::h3) struct HeaderBytes {
    bytes: [u8; 16],
    held: usize,
}

impl HeaderBytes {
    /// Takes bytes off the front of `chunk` until they make `N` integers. Returns how many bytes were taken and, if that
    /// was enough, the integers.
    pub(in crate::h3) fn take<const N: usize>(
        &mut self,
        chunk: &[u8],
    ) -> (usize, Option<[u64; N]>) {
        for (taken, byte) in chunk.iter().enumerate() {
            self.bytes[self.held] = *byte;
            self.held += 1;
            if let Some(integers) = integers(&self.bytes[..self.held]) {
                return (taken + 1, Some(integers));
            }
        }
        (chunk.len(), None)
    }

    /// The bytes gathered so far, to pass on.
    pub(in crate::h3) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.held]
    }

    pub(in crate::h3) fn is_empty(&self) -> bool {
        self.held == 0
    }

    pub(in crate::h3) fn clear(&mut self) {
        self.held = 0;
    }
}

fn integers<const N: usize>(mut bytes: &[u8]) -> Option<[u64; N]> {
    let mut found = [0; N];
    for slot in &mut found {
        let (value, length) = varint(bytes)?;
        *slot = value;
        bytes = &bytes[length..];
    }
    Some(found)
}

/// The integer at the front of `bytes` and its length, if it is all there.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| {
        value << 8 | u64::from(*byte)
    });
    Some((value, length))
}

/// Appends `value` (below 2^62) in its shortest form.
pub(in crate::h3) fn put_varint(out: &mut impl BufMut, value: u64) {
    match value {
        0..0x40 => out.put_u8(value as u8),
        0x40..0x4000 => out.put_u16(value as u16 | 0x4000),
        0x4000..0x4000_0000 => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;

/// Frame types of HTTP/2 that HTTP/3 reserves so that they are never mistaken (RFC 9114 §7.2.8).
pub(super) fn is_http2_only(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}
