//! Field sections (RFC 9204) without a dynamic table, which we never offer: nothing in a section can refer to state that
//! another stream carries, so a section is checked on its own and can never block.

mod huffman;
mod statics;

use bytes::BufMut;
use http::HeaderMap;

use statics::STATIC;

/// Why a field section could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QpackError {
    /// It breaks the encoding or refers to a dynamic table.
    Invalid,
    /// Decoded, it is larger than allowed.
    TooLarge,
}

/// Decodes `section` and hands each field to `each`, name first, until one is refused.
///
/// `bytes_max` bounds the decoded size as RFC 9114 §4.2.2 counts it (name + value + 32 for each field), so many short
/// references to long table entries cannot expand past it.
///
/// Returns the same section without Huffman codes: what h3 reads after us is then what was checked here, and reading it
/// costs a copy where h3's own Huffman decoder works byte by byte.
pub(super) fn decode<E: From<QpackError>>(
    section: &[u8],
    bytes_max: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut input = Input(section);
    let (_, insert_count) = input.integer(8)?;
    let (sign, _delta_base) = input.integer(7)?;
    // A base below a Required Insert Count of 0 would be negative (§4.5.1.2).
    if insert_count != 0 || sign != 0 {
        return Err(QpackError::Invalid.into());
    }
    // Huffman codes save a fifth of what is common.
    let mut plain = Vec::with_capacity(section.len() + section.len() / 2);
    plain.extend_from_slice(&[0, 0]);
    let (mut name, mut value) = (Vec::new(), Vec::new());
    let mut left = bytes_max;
    while let Some(first) = input.0.first() {
        name.clear();
        value.clear();
        let line = input.0;
        match first {
            0b1100_0000.. => {
                let (known_name, known_value) = input.reference(6)?;
                plain.extend_from_slice(input.since(line));
                name.extend_from_slice(known_name.as_bytes());
                value.extend_from_slice(known_value.as_bytes());
            }
            0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
                name.extend_from_slice(input.reference(4)?.0.as_bytes());
                plain.extend_from_slice(input.since(line));
                input.string(7, left, &mut value)?;
                put_string(&mut plain, 0, 7, &value);
            }
            0b0010_0000..=0b0011_1111 => {
                input.string(3, left, &mut name)?;
                input.string(7, left, &mut value)?;
                put_string(&mut plain, LITERAL_NAME, 3, &name);
                put_string(&mut plain, 0, 7, &value);
            }
            _dynamic => return Err(QpackError::Invalid.into()),
        }
        left = left
            .checked_sub(name.len() + value.len() + FIELD_OVERHEAD)
            .ok_or(QpackError::TooLarge)?;
        each(&name, &value)?;
    }
    Ok(plain)
}

/// What is left of a section while it is decoded.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// What was read of `earlier`, which this was.
    fn since(&self, earlier: &'a [u8]) -> &'a [u8] {
        &earlier[..earlier.len() - self.0.len()]
    }

    fn byte(&mut self) -> Result<u8, QpackError> {
        let (first, rest) = self.0.split_first().ok_or(QpackError::Invalid)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The flag bits and the integer after them (RFC 9204 §4.1.1). Past 2^62 it is refused.
    fn integer(&mut self, prefix: u32) -> Result<(u8, u64), QpackError> {
        let mask = u8::MAX >> (8 - prefix);
        let first = self.byte()?;
        let flags = if prefix == 8 { 0 } else { first >> prefix };
        let mut value = u64::from(first & mask);
        if first & mask < mask {
            return Ok((flags, value));
        }
        for shift in (0..INTEGER_BITS).step_by(7) {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((flags, value));
            }
        }
        Err(QpackError::Invalid)
    }

    fn reference(&mut self, prefix: u32) -> Result<(&'static str, &'static str), QpackError> {
        let (_, index) = self.integer(prefix)?;
        let index = usize::try_from(index).map_err(|_wide| QpackError::Invalid)?;
        STATIC.get(index).copied().ok_or(QpackError::Invalid)
    }

    /// A string literal whose length has `prefix` bits, the bit before it telling whether it is Huffman-coded.
    fn string(
        &mut self,
        prefix: u32,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), QpackError> {
        let (flags, length) = self.integer(prefix)?;
        let length = usize::try_from(length).map_err(|_wide| QpackError::Invalid)?;
        let (encoded, rest) = self.0.split_at_checked(length).ok_or(QpackError::Invalid)?;
        self.0 = rest;
        if flags & 1 == 1 {
            return huffman::decode(encoded, bytes_max, out);
        }
        if length > bytes_max {
            return Err(QpackError::TooLarge);
        }
        out.extend_from_slice(encoded);
        Ok(())
    }
}

/// Encodes the field section of a plain CONNECT request: only `:method` and `:authority` stand before the fields.
pub(super) fn encode_connect(authority: &str, fields: &HeaderMap) -> Vec<u8> {
    let mut out = Section::connect(authority);
    out.fields(fields);
    out.0
}

/// Encodes the field section of an extended CONNECT request (RFC 9220), which also says where to and what for.
pub(super) fn encode_upgrade(
    authority: &str,
    path: &str,
    protocol: &[u8],
    fields: &HeaderMap,
) -> Vec<u8> {
    let mut out = Section::connect(authority);
    out.field(b":scheme", b"https");
    out.field(b":path", path.as_bytes());
    out.field(b":protocol", protocol);
    out.fields(fields);
    out.0
}

/// A field section as it is written, in literals but for what every CONNECT begins with.
#[derive(Debug)]
pub(super) struct Section(Vec<u8>);

impl Section {
    pub(super) fn new() -> Self {
        Self(vec![0, 0])
    }

    fn connect(authority: &str) -> Self {
        let mut section = Self::new();
        let out = &mut section.0;
        put_integer(out, 0b1100_0000, 6, METHOD_CONNECT);
        put_integer(out, 0b0101_0000, 4, AUTHORITY);
        put_string(out, 0, 7, authority.as_bytes());
        section
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        put_string(&mut self.0, LITERAL_NAME, 3, name);
        put_string(&mut self.0, 0, 7, value);
    }

    fn fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            self.field(name.as_str().as_bytes(), value.as_bytes());
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A string literal that is not Huffman-coded.
fn put_string(out: &mut Vec<u8>, flags: u8, prefix: u32, string: &[u8]) {
    put_integer(out, flags, prefix, string.len() as u64);
    out.put_slice(string);
}

pub(super) fn put_integer(out: &mut Vec<u8>, flags: u8, prefix: u32, value: u64) {
    let mask = u64::from(u8::MAX >> (8 - prefix));
    if value < mask {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// What RFC 9114 §4.2.2 adds to each field's name and value.
pub(super) const FIELD_OVERHEAD: usize = 32;
/// Continuation bits an integer may have: nine bytes of seven.
const INTEGER_BITS: u32 = 63;
/// Begins a field whose name is spelled out.
const LITERAL_NAME: u8 = 0b0010_0000;
const AUTHORITY: u64 = 0;
const METHOD_CONNECT: u64 = 15;

#[cfg(test)]
mod tests;
