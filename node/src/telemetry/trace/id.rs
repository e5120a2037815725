//! Ids of traces and spans, kept as the hex digits in which they travel and are logged.

use std::fmt;

/// One trace, over all who take part in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 32]);

/// One span of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 16]);

impl TraceId {
    /// 32 lower-case hex digits, not all zero.
    pub(in crate::telemetry) fn parse(digits: &[u8]) -> Option<Self> {
        id(digits).map(Self)
    }

    /// The same for 16 digits, the shorter form of B3.
    pub(super) fn parse_short(digits: &[u8]) -> Option<Self> {
        let short: [u8; 16] = id(digits)?;
        let mut long = [b'0'; 32];
        long[16..].copy_from_slice(&short);
        Some(Self(long))
    }

    pub(super) fn random(rng: &mut fastrand::Rng) -> Self {
        Self(hex(&rng.u128(1..).to_be_bytes()))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only hex digits")
    }

    pub fn bytes(&self) -> [u8; 16] {
        bytes(&self.0)
    }
}

impl SpanId {
    /// 16 lower-case hex digits, not all zero.
    pub(in crate::telemetry) fn parse(digits: &[u8]) -> Option<Self> {
        id(digits).map(Self)
    }

    pub(super) fn random(rng: &mut fastrand::Rng) -> Self {
        Self(hex(&rng.u64(1..).to_be_bytes()))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only hex digits")
    }

    pub fn bytes(&self) -> [u8; 8] {
        bytes(&self.0)
    }
}

fn id<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let is_id = digits.iter().all(is_hex) && digits.iter().any(|digit| *digit != b'0');
    digits.try_into().ok().filter(|_| is_id)
}

fn hex<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| {
        let half = bytes[at / 2] >> (4 * (1 - at % 2));
        b"0123456789abcdef"[usize::from(half & 0xf)]
    })
}

fn bytes<const N: usize>(digits: &[u8]) -> [u8; N] {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    };
    std::array::from_fn(|at| value(digits[2 * at]) << 4 | value(digits[2 * at + 1]))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hex_digits_and_bytes() {
        let trace = TraceId::parse(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        assert_eq!(trace.bytes()[..3], [0x4b, 0xf9, 0x2f]);
        let span = SpanId::parse(b"00f067aa0ba902b7").unwrap();
        assert_eq!(span.bytes(), [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(
            TraceId::parse_short(b"a3ce929d0e0e4736").unwrap().as_str(),
            "0000000000000000a3ce929d0e0e4736"
        );
        for bad in ["0000000000000000", "00f067aa0ba902b", "00F067AA0BA902B7"] {
            assert_eq!(SpanId::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn random_ones_are_good_and_differ() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (one, other) = (TraceId::random(&mut rng), TraceId::random(&mut rng));
        assert_ne!(one, other);
        assert_eq!(TraceId::parse(one.as_str().as_bytes()), Some(one));
        let span = SpanId::random(&mut rng);
        assert_eq!(SpanId::parse(span.as_str().as_bytes()), Some(span));
    }
}
