//! What of a request's header fields may be shown.

use http::{HeaderMap, HeaderName};

use super::call::Field;

/// The fields of a request: all names, and values where `shows` says so and they are no secrets. Cut where there are too many.
pub(super) fn fields(headers: &HeaderMap, shows: impl Fn(&HeaderName) -> bool) -> Box<[Field]> {
    let mut bytes = 0;
    let fields = headers.iter().map(|(name, value)| Field {
        name: name.to_string(),
        value: (shows(name) && !is_secret(name))
            .then(|| cut(&String::from_utf8_lossy(value.as_bytes()))),
    });
    let fits = |field: &Field| {
        bytes += field.bytes();
        bytes <= FIELDS_BYTES_MAX
    };
    fields.take_while(fits).collect()
}

/// Whether a field's value lets its reader act as somebody else, as far as its name tells. Such values are never shown,
/// whatever a pass says.
pub(super) fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    SECRETS.contains(&name) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Secrets whose names do not say so.
const SECRETS: [&str; 5] = [
    "x-forwarded-client-cert",
    "x-goog-iap-jwt-assertion",
    "dpop",
    "x-otp",
    "x-pin",
];

/// What names of secrets hold: `authorization`, `proxy-authorization`, `cookie`, `set-cookie`, `x-api-key`, `x-csrf-token`,
/// `x-amz-security-token` and so on.
const SECRET_PARTS: [&str; 10] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "pass",
    "credential",
    "session",
    "key",
    "signature",
    "jwt",
];

/// Longer ones are cut: somebody looks for an id, not for a text.
const VALUE_CHARS_MAX: usize = 256;

/// Bytes of all fields of one call; the rest is left out. A request rarely has a quarter of that.
const FIELDS_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &[(&'static str, &str)], shows: &[&str]) -> Vec<(String, Option<String>)> {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        let fields = fields(&headers, |name| shows.contains(&name.as_str()));
        let fields = fields.into_iter();
        fields.map(|field| (field.name, field.value)).collect()
    }

    #[test]
    fn names_are_shown_and_values_where_asked_for() {
        let seen = shown(&[("x-tenant", "acme"), ("accept", "*/*")], &["x-tenant"]);
        let expected = [
            ("x-tenant".to_owned(), Some("acme".to_owned())),
            ("accept".to_owned(), None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn secrets_are_not_shown_though_asked_for() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-apikey",
            "x-auth-request-user",
            "x-amz-security-token",
            "x-csrf-token",
            "x-session-id",
            "x-forwarded-client-cert",
            "x-hub-signature-256",
            "sec-websocket-key",
        ] {
            assert_eq!(shown(&[(name, "s3cret")], &[name])[0].1, None, "{name}");
        }
        assert!(!is_secret(&"x-request-id".parse().unwrap()));
        assert!(!is_secret(&"user-agent".parse().unwrap()));
        assert!(!is_secret(&"traceparent".parse().unwrap()));
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "ä".repeat(1000);
        let value = shown(&[("x-a", &long)], &["x-a"]).remove(0).1.unwrap();
        assert_eq!(value.chars().count(), VALUE_CHARS_MAX + 1);
        let many = vec![("x-a", "b"); 1000];
        assert!(shown(&many, &[]).len() < 1000);
    }
}
