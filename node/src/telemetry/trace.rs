//! W3C Trace Context: the id that ties the access lines of both ends, and the app's own traces, together.
//!
//! The agent adds no span of its own, so a caller's `traceparent` passes unchanged. Only when it is missing or invalid
//! is one made, with the flag "not sampled": it gives the lines an id without asking anyone to record a trace.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace a call belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The trace that `traceparent` names, if its value follows the standard to the letter: lower-case hex, no id all
    /// zero, version `00` exactly 55 bytes, a later version with nothing or `-…` after them.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let (head, rest) = traceparent.split_at_checked(LENGTH)?;
        let version = &head[..2];
        let well_formed = head.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let good_end = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let zero = |id: &[u8]| id.iter().all(|byte| *byte == b'0');
        if !well_formed
            || !good_end
            || version == b"ff"
            || zero(&head[3..35])
            || zero(&head[36..52])
        {
            return None;
        }
        head[3..35].try_into().ok().map(Self)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only hex digits")
    }
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

/// The trace of a request, which leaves with exactly one valid `traceparent`: its own, or a new one. An invalid or
/// repeated one goes, and `tracestate` with it, as the standard demands.
pub fn ensure(headers: &mut HeaderMap, rng: &mut fastrand::Rng) -> TraceId {
    if let Some(trace) = present(headers) {
        return trace;
    }
    headers.remove(TRACESTATE);
    let value = format!("00-{:032x}-{:016x}-00", rng.u128(1..), rng.u64(1..));
    let trace = TraceId::parse(value.as_bytes()).expect("made to the standard");
    headers.insert(
        TRACEPARENT,
        HeaderValue::from_str(&value).expect("hex digits and hyphens"),
    );
    trace
}

/// The trace of a request, if it carries exactly one valid `traceparent`.
pub fn present(headers: &HeaderMap) -> Option<TraceId> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    TraceId::parse(value.as_bytes())
}

/// Length of a `traceparent` of version 00, and of the known part of later ones.
const LENGTH: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_the_standard_allows() {
        for good in [
            GOOD,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        ] {
            assert_eq!(TraceId::parse(good.as_bytes()).unwrap().as_str(), TRACE);
        }
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(TraceId::parse(later.as_bytes()).unwrap().as_str(), TRACE);
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_good_one_passes_unchanged() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let before = headers.clone();
        assert_eq!(
            ensure(&mut headers, &mut fastrand::Rng::with_seed(1)).as_str(),
            TRACE
        );
        assert_eq!(headers, before);
    }

    #[test]
    fn none_two_or_a_bad_one_are_replaced_by_one() {
        for values in [vec![], vec![GOOD, GOOD], vec!["nonsense"]] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            for value in values {
                headers.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            let trace = ensure(&mut headers, &mut fastrand::Rng::with_seed(1));
            assert_eq!(present(&headers), Some(trace));
            assert!(!headers.contains_key(TRACESTATE));
            assert_ne!(trace.as_str(), TRACE);
        }
    }
}
