//! B3 propagation, as Zipkin's libraries and older meshes send it: one field `b3`, or several.
//!
//! <https://github.com/openzipkin/b3-propagation>

use http::{HeaderMap, HeaderValue};

use super::context::Context;
use super::{SpanId, TraceId};

/// What the fields of B3 say, if they are there and whole. The single one counts more, as its authors want.
pub(super) fn read(headers: &HeaderMap) -> Option<Context> {
    if let Some(value) = one(headers, "b3") {
        return parse(value);
    }
    let ids = ids(
        one(headers, "x-b3-traceid").unwrap_or_default(),
        one(headers, "x-b3-spanid").unwrap_or_default(),
    );
    let is_debug = one(headers, "x-b3-flags") == Some(b"1");
    let is_sampled = match one(headers, "x-b3-sampled") {
        _ if is_debug => Some(true),
        // Old libraries say it in words.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    (ids.is_some() || is_sampled.is_some()).then_some(Context { ids, is_sampled })
}

/// `{trace}-{span}`, `{trace}-{span}-{state}`, `{trace}-{span}-{state}-{parent}` or only `{state}`.
fn parse(value: &[u8]) -> Option<Context> {
    let mut parts = value.split(|byte| *byte == b'-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        let is_sampled = Some(state(first)?);
        let ids = None;
        return Some(Context { ids, is_sampled });
    };
    let is_sampled = parts.next().map(state);
    let is_over = parts
        .next()
        .is_none_or(|parent| SpanId::parse(parent).is_some());
    if is_sampled == Some(None) || !is_over || parts.next().is_some() {
        return None;
    }
    Some(Context {
        ids: Some(ids(first, span)?),
        is_sampled: is_sampled.flatten(),
    })
}

/// `d` is for debug, which wants to be recorded more than anything.
fn state(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

fn ids(trace: &[u8], span: &[u8]) -> Option<(TraceId, SpanId)> {
    let trace = TraceId::parse(trace).or_else(|| TraceId::parse_short(trace));
    Some((trace?, SpanId::parse(span)?))
}

fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SHORT: &str = "64fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    /// Trace and span, and the decision, as far as they were said.
    type Read = (Option<(String, String)>, Option<bool>);

    fn read(fields: &[(&'static str, &str)]) -> Option<Read> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let context = super::read(&headers)?;
        let ids = context.ids;
        let ids = ids.map(|(trace, span)| (trace.to_string(), span.to_string()));
        Some((ids, context.is_sampled))
    }

    #[test]
    fn the_single_field() {
        let ids = |trace: &str| Some((trace.to_owned(), SPAN.to_owned()));
        for (value, expected) in [
            (format!("{LONG}-{SPAN}"), Some((ids(LONG), None))),
            (format!("{LONG}-{SPAN}-1"), Some((ids(LONG), Some(true)))),
            (format!("{LONG}-{SPAN}-d"), Some((ids(LONG), Some(true)))),
            (
                format!("{LONG}-{SPAN}-0-05e3ac9a4f6e3b90"),
                Some((ids(LONG), Some(false))),
            ),
            (
                format!("{SHORT}-{SPAN}-1"),
                Some((ids(&format!("{:0>32}", SHORT)), Some(true))),
            ),
            ("0".to_owned(), Some((None, Some(false)))),
            ("1".to_owned(), Some((None, Some(true)))),
            (LONG.to_owned(), None),
            (format!("{LONG}-{SPAN}-x"), None),
            (format!("{LONG}-{SPAN}-1-short"), None),
            (format!("{LONG}-{SPAN}-1-05e3ac9a4f6e3b90-more"), None),
            (format!("{LONG}-{LONG}-1"), None),
            (format!("{}-{SPAN}-1", LONG.to_uppercase()), None),
            (String::new(), None),
        ] {
            assert_eq!(read(&[("b3", &value)]), expected, "{value:?}");
        }
    }

    #[test]
    fn several_fields() {
        let (trace, span) = (("x-b3-traceid", LONG), ("x-b3-spanid", SPAN));
        let ids = Some((LONG.to_owned(), SPAN.to_owned()));
        let state = |is_sampled| Some((ids.clone(), is_sampled));
        assert_eq!(read(&[trace, span]), state(None));
        assert_eq!(
            read(&[trace, span, ("x-b3-sampled", "1")]),
            state(Some(true))
        );
        assert_eq!(
            read(&[trace, span, ("x-b3-sampled", "false")]),
            state(Some(false))
        );
        assert_eq!(read(&[trace, span, ("x-b3-flags", "1")]), state(Some(true)));
        assert_eq!(read(&[("x-b3-sampled", "0")]), Some((None, Some(false))));
        assert_eq!(read(&[trace]), None);
        assert_eq!(read(&[trace, trace, span]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn the_single_field_counts_more() {
        let several = [("x-b3-traceid", LONG), ("x-b3-spanid", SPAN)];
        let [trace, span] = several;
        assert_eq!(read(&[("b3", "0"), trace, span]), Some((None, Some(false))));
    }
}
