//! What a request says of its trace, and W3C Trace Context, the form in which agents say it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{SpanId, TraceId};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What came with a request. Nothing of it need be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// The trace, and the span that the request was made in.
    pub(super) ids: Option<(TraceId, SpanId)>,
    /// Whether those who take part record it. None: whoever reads this decides.
    pub(super) is_sampled: Option<bool>,
}

impl Context {
    /// Of the one valid `traceparent`, if there is one.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        Self::parse(value.as_bytes())
    }

    /// Follows the standard to the letter: lower-case hex, no id all zero, version `00` exactly 55 bytes, a later version
    /// with nothing or `-…` after them.
    fn parse(traceparent: &[u8]) -> Option<Self> {
        let (head, rest) = traceparent.split_at_checked(LENGTH)?;
        let [version, trace, parent, flags] =
            [&head[..2], &head[3..35], &head[36..52], &head[53..]];
        let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        let is_framed = [2, 35, 52].iter().all(|at| head[*at] == b'-')
            && version.iter().chain(flags).all(is_hex)
            && version != b"ff";
        let is_at_end = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        if !is_framed || !is_at_end {
            return None;
        }
        let digit = char::from(flags[1]).to_digit(16)?;
        Some(Self {
            ids: Some((TraceId::parse(trace)?, SpanId::parse(parent)?)),
            is_sampled: Some(digit & 1 == 1),
        })
    }
}

/// Makes this the one `traceparent` of a request.
pub(super) fn write(headers: &mut HeaderMap, trace: TraceId, span: SpanId, is_sampled: bool) {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    value[3..35].copy_from_slice(trace.as_str().as_bytes());
    value[36..52].copy_from_slice(span.as_str().as_bytes());
    value[54] += u8::from(is_sampled);
    let value = HeaderValue::from_bytes(&value).expect("hex digits and hyphens");
    headers.insert(TRACEPARENT, value);
}

/// Length of a `traceparent` of version 00, and of the known part of later ones.
const LENGTH: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<(String, bool)> {
        let context = Context::parse(text.as_bytes())?;
        Some((context.ids?.0.to_string(), context.is_sampled?))
    }

    #[test]
    fn reads_what_the_standard_allows() {
        let later = format!("01{}-more", &GOOD[2..]);
        for (good, is_sampled) in [
            (GOOD, true),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
                true,
            ),
            (&later, true),
        ] {
            assert_eq!(read(good), Some((TRACE.to_owned(), is_sampled)), "{good}");
        }
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
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut headers = HeaderMap::new();
        let mut rng = fastrand::Rng::with_seed(1);
        for is_sampled in [false, true] {
            let (trace, span) = (TraceId::random(&mut rng), SpanId::random(&mut rng));
            write(&mut headers, trace, span, is_sampled);
            let expected = Context {
                ids: Some((trace, span)),
                is_sampled: Some(is_sampled),
            };
            assert_eq!(Context::read(&headers), Some(expected));
        }
    }
}
