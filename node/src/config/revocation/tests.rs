use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn read(text: &str) -> Result<Vec<Entry>, String> {
    parse(Path::new("lost.toml"), text).map_err(|problems| problems.to_string())
}

/// 2026-03-01T12:00:00Z
const NOON: Duration = Duration::from_secs(1_772_366_400);

#[test]
fn each_form_is_read() {
    let noon = UNIX_EPOCH + NOON;
    let orders = SpiffeId::parse("spiffe://example.org/svc/orders").unwrap();
    let key = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let text = format!(
        r#"
[[revoked]]
host = "n3"
issued_before = 2026-03-01T12:00:00Z
reason = "stolen"

[[revoked]]
identity = "spiffe://example.org/svc/orders"
issued_before = 2026-03-01 12:00:00Z

[[revoked]]
identity = "spiffe://example.org/svc/orders"
host = "n3"
issued_before = 2026-03-01T07:00:00-05:00

[[revoked]]
issuer = "n1"
issued_before = 2026-03-01T12:00:00Z

[[revoked]]
line = "000102030405060708090a0b0c0d0e0f"
identity = "spiffe://example.org/svc/orders"

[[revoked]]
public_key = "{key}"

[[revoked]]
public_key = "{key}"
not_after = 2026-03-01T14:00:00+01:00
"#
    );
    let entries = read(&text).unwrap();
    let whats: Vec<_> = entries.iter().map(|entry| entry.what.clone()).collect();
    assert_eq!(
        whats,
        [
            What::Certificates(Revoked::Host("n3".into()), noon),
            What::Certificates(Revoked::Identity(orders.clone()), noon),
            What::Certificates(Revoked::IdentityOn(orders.clone(), "n3".into()), noon),
            What::Certificates(Revoked::Issuer("n1".into()), noon),
            What::Line("000102030405060708090a0b0c0d0e0f".parse().unwrap(), orders),
            What::Key(key.parse().unwrap(), None),
            What::Key(
                key.parse().unwrap(),
                Some(noon + Duration::from_secs(60 * 60))
            ),
        ]
    );
    assert_eq!(entries[0].reason.as_deref(), Some("stolen"));
    assert_eq!(entries[1].reason, None);
}

#[test]
fn what_says_nothing_or_too_much_is_refused_with_its_line() {
    let cases = [
        ("", "lost.toml:1: nothing is revoked"),
        (
            "[[revoked]]\nreason = \"x\"\nissued_before = 2026-03-01T12:00:00Z",
            "lost.toml:1: it does not say what is revoked",
        ),
        (
            "[[revoked]]\nhost = \"n3\"",
            "lost.toml:1: `issued_before` is missing",
        ),
        (
            "[[revoked]]\nhost = \"n3\"\nissued_before = 2026-03-01",
            "lost.toml:3: `issued_before` is not a moment",
        ),
        (
            "[[revoked]]\nhost = \"n3\"\nissued_before = 2026-03-01T12:00:00",
            "lost.toml:3: `issued_before` is not a moment",
        ),
        (
            "[[revoked]]\nhost = \"N 3\"\nissued_before = 2026-03-01T12:00:00Z",
            "lost.toml:2: `N 3` is not the name of a node",
        ),
        (
            "[[revoked]]\nhost = \"n3\"\nissuer = \"n3\"\nissued_before = 2026-03-01T12:00:00Z",
            "lost.toml:1: it does not say what is revoked",
        ),
        (
            "[[revoked]]\npublic_key = \"abc\"",
            "lost.toml:2: `public_key` cannot be read",
        ),
        (
            "[[revoked]]\nline = \"abc\"",
            "lost.toml:2: `line` cannot be read",
        ),
        (
            "[[revoked]]\nline = \"000102030405060708090a0b0c0d0e0f\"",
            "lost.toml:1: `identity` is missing",
        ),
        (
            "[[revoked]]\nline = \"000102030405060708090a0b0c0d0e0f\"\nhost = \"n3\"",
            "lost.toml:1: a line is revoked on every host",
        ),
        (
            "[[revoked]]\nhost = \"n3\"\nissued_before = 2026-03-01T12:00:00Z\nnot_after = 2027-03-01T12:00:00Z",
            "lost.toml:4: only a `public_key` has an end",
        ),
        (
            "[[revoked]]\nhots = \"n3\"\nissued_before = 2026-03-01T12:00:00Z",
            "lost.toml:2:",
        ),
    ];
    for (text, expected) in cases {
        let problems = read(text).unwrap_err();
        assert!(problems.contains(expected), "{text}\n{problems}");
    }
}
