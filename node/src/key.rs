//! What of a request keeps it together with others, or apart from them.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::COOKIE;

use crate::config::Key;

/// The value of `key`, if the request has one. `source` is where it comes from.
pub(crate) fn value<'r>(
    key: &Key,
    headers: &'r HeaderMap,
    source: IpAddr,
) -> Option<Cow<'r, [u8]>> {
    match (key, source) {
        (Key::Source, IpAddr::V4(ip)) => Some(ip.octets().to_vec().into()),
        (Key::Source, IpAddr::V6(ip)) => Some(ip.octets().to_vec().into()),
        _ => within(key, headers).map(Cow::from),
    }
}

/// The value of `key` in the request itself.
pub(crate) fn within<'r>(key: &Key, headers: &'r HeaderMap) -> Option<&'r [u8]> {
    match key {
        Key::Header(name) => headers.get(name).map(|value| value.as_bytes()),
        Key::Cookie(name) => cookie(name, headers),
        Key::Source => None,
    }
}

/// The first cookie of this name.
fn cookie<'r>(name: &str, headers: &'r HeaderMap) -> Option<&'r [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn values_are_found() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("alice"));
        headers.append(COOKIE, HeaderValue::from_static("theme=dark; sid=42"));
        headers.append(COOKIE, HeaderValue::from_static("sid2=7; empty="));
        let source = IpAddr::from([127, 0, 0, 1]);
        let check = |key: Key, expected: Option<&[u8]>| {
            assert_eq!(value(&key, &headers, source).as_deref(), expected, "{key}");
        };
        check(Key::Header("x-user".parse().unwrap()), Some(b"alice"));
        check(Key::Header("x-other".parse().unwrap()), None);
        check(Key::Cookie("sid".into()), Some(b"42"));
        check(Key::Cookie("sid2".into()), Some(b"7"));
        check(Key::Cookie("empty".into()), Some(b""));
        check(Key::Cookie("si".into()), None);
        check(Key::Source, Some(&[127, 0, 0, 1]));
    }
}
