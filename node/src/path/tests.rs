use proptest::prelude::*;

use super::*;

fn check(raw: &str, expected: Result<&str, Ambiguous>) {
    let normal = Normal::of(raw).map(|normal| normal.to_string());
    assert_eq!(normal.as_deref(), expected.as_ref().copied(), "{raw:?}");
}

#[test]
fn what_is_normal_stays() {
    for path in [
        "/",
        "/orders",
        "/orders/",
        "/a-b._~/c",
        "/a:b@c!d$e&f'g(h)i*j+k,l=m",
        "/caf%C3%A9",
        "/100%25",
        "/a?b=%2f../;#",
        "/?",
        "/...",
        "/.a/a./..b",
        "/a%3Fb%23c%5B%7B",
    ] {
        check(path, Ok(path));
        assert!(!Normal::of(path).unwrap().is_changed(), "{path}");
    }
}

#[test]
fn other_forms_become_the_one() {
    check("/%6frders", Ok("/orders"));
    check("/%7Eme", Ok("/~me"));
    check("/a%2Dx%5f", Ok("/a-x_"));
    check("/caf%c3%a9", Ok("/caf%C3%A9"));
    check("/café", Ok("/caf%C3%A9"));
    check(
        "/a b\"<>[]^`{|}",
        Ok("/a%20b%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
    );
    check("/a%2e", Ok("/a."));
    check("/%61?%61", Ok("/a?%61"));
    // Encoded where it need not be, and equal to nothing else in meaning of RFC 3986.
    check("/a%3ab", Ok("/a%3Ab"));
}

#[test]
fn two_meanings_are_refused() {
    use Ambiguous::*;
    for (raw, why) in [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("orders", NotAbsolute),
        ("?/a", NotAbsolute),
        ("http://x/a", NotAbsolute),
        ("/a%2fb", Separator),
        ("/a%2Fb", Separator),
        ("/a%5cb", Separator),
        ("/a\\b", Separator),
        ("/a\0", Control),
        ("/a%00", Control),
        ("/a%0a", Control),
        ("/a\t", Control),
        ("/a%7f", Control),
        ("/a%c2%85", Control),
        ("/a\u{85}", Control),
        ("/.", DotSegment),
        ("/..", DotSegment),
        ("/a/./b", DotSegment),
        ("/a/../b", DotSegment),
        ("/a/..", DotSegment),
        ("/a/%2e%2E/b", DotSegment),
        ("/a/.%2e", DotSegment),
        ("/%2e", DotSegment),
        ("//", EmptySegment),
        ("//a", EmptySegment),
        ("/a//b", EmptySegment),
        ("/a//", EmptySegment),
        ("/a;v=1", Parameter),
        ("/..;/a", Parameter),
        ("/a%3bv", Parameter),
        ("/a#b", Fragment),
        ("/a%", Encoding),
        ("/a%4", Encoding),
        ("/a%zz", Encoding),
        ("/a%+1", Encoding),
        ("/a%u002f", Encoding),
        ("/a%252f", EncodedTwice),
        ("/a%25%32%66", EncodedTwice),
        ("/a%c0%af", NotUtf8),
        ("/a%ff", NotUtf8),
        ("/a%c3", NotUtf8),
        ("/%e2%82", NotUtf8),
    ] {
        check(raw, Err(why));
    }
}

#[test]
fn a_path_may_be_long_but_not_endless() {
    let path = format!("/{}", "a".repeat(PATH_BYTES_MAX - 1));
    check(&path, Ok(&path));
    check(&format!("{path}a"), Err(Ambiguous::TooLong));
    let with_query = format!("{path}?{path}");
    check(&with_query, Ok(&with_query));
}

fn matches(pattern: &str, path: &str) -> bool {
    Pattern::parse(pattern)
        .unwrap()
        .matches(&Normal::of(path).unwrap())
}

#[test]
fn patterns_match_at_borders_of_segments() {
    for (pattern, yes, no) in [
        ("/", &["/", "/?a"][..], &["/a"][..]),
        (
            "/orders",
            &["/orders", "/%6Frders", "/orders?x=1"],
            &["/", "/orders/", "/ordersx", "/Orders", "/orders/1"],
        ),
        ("/orders/", &["/orders/"], &["/orders", "/orders/1"]),
        (
            "/orders/**",
            &["/orders", "/orders/", "/orders/1", "/orders/1/items/"],
            &["/ordersx", "/order", "/", "/x/orders"],
        ),
        ("/**", &["/", "/a", "/a/b/"], &[]),
        (
            "/orders/{id}/items",
            &["/orders/1/items", "/orders/%C3%A9/items"],
            &["/orders/items", "/orders/1/2/items", "/orders/1/items/"],
        ),
        ("/o/{id}", &["/o/1"], &["/o/", "/o", "/o/1/"]),
        ("/o/{id}/**", &["/o/1", "/o/1/", "/o/1/2"], &["/o", "/o/"]),
        ("/a:b", &["/a:b", "/a%3Ab", "/a%3ab"], &["/a"]),
        ("/a%3ab", &["/a:b", "/a%3Ab"], &[]),
        ("/café", &["/caf%c3%a9", "/café"], &["/cafe"]),
        ("/a.b", &["/a.b"], &["/axb"]),
        ("/%2A", &["/*", "/%2a"], &["/a"]),
    ] {
        for path in yes {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for path in no {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }
}

#[test]
fn a_denial_looks_past_a_trailing_slash() {
    let either = |pattern: &str, path: &str| {
        Pattern::parse(pattern)
            .unwrap()
            .matches_either_end(&Normal::of(path).unwrap())
    };
    for (pattern, path) in [
        ("/admin", "/admin/"),
        ("/admin/", "/admin"),
        ("/a/{id}", "/a/1/"),
        ("/", "/"),
        ("/a/**", "/a/"),
    ] {
        assert!(either(pattern, path), "{pattern} {path}");
    }
    assert!(!either("/admin", "/admin/x"));
    assert!(!either("/a/{id}", "/a/"));
}

#[test]
fn what_is_no_pattern_is_told_why() {
    use PatternError as E;
    for (text, why) in [
        ("orders", E::Ambiguous(Ambiguous::NotAbsolute)),
        ("", E::Ambiguous(Ambiguous::NotAbsolute)),
        ("**", E::Star),
        ("/orders/*", E::Star),
        ("/orders*", E::Star),
        ("/**/items", E::Star),
        ("/orders/**/", E::Star),
        ("/orders/**/**", E::Star),
        ("/orders?x", E::Query),
        ("/{}", E::Brace),
        ("/a{b}", E::Brace),
        ("/{a}{b}", E::Brace),
        ("/{a", E::Brace),
        ("/a//b", E::Ambiguous(Ambiguous::EmptySegment)),
        ("//**", E::Ambiguous(Ambiguous::EmptySegment)),
        ("/a/../b", E::Ambiguous(Ambiguous::DotSegment)),
        ("/a;b", E::Ambiguous(Ambiguous::Parameter)),
        ("/a%2fb/**", E::Ambiguous(Ambiguous::Separator)),
    ] {
        assert_eq!(Pattern::parse(text), Err(why), "{text}");
        assert!(!why.hint().is_empty());
    }
}

/// Paths made of what servers disagree on, and of plain words.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "a", "orders", ".", "..", "%2e", "%2F", "%25", "2f", "%", ";", "?", "#", "\\", "%00",
        "%c3", "%a9", "é", "%6f", "{", "*", " ", "%3a", ":", "%5C", "\u{85}", "%C2", "%85",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], text.get(at + 1..at + 3)) {
            (b'%', Some(pair)) if u8::from_str_radix(pair, 16).is_ok() => {
                out.push(u8::from_str_radix(pair, 16).unwrap());
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 0..64)) {
        fuzz(&data);
    }

    #[test]
    fn the_normal_form_means_the_same_and_is_final(raw in tricky()) {
        fuzz(raw.as_bytes());
        if let Ok(normal) = Normal::of(&raw) {
            let path = normal.as_str();
            let came = raw.split('?').next().unwrap();
            prop_assert_eq!(percent_decoded(path), percent_decoded(came));
            prop_assert!(path.is_ascii());
            prop_assert!(!path.contains("//") && !path.contains([';', '#', '\\', '?', ' ']), "{}", path);
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", path);
            let twice = percent_decoded(path);
            prop_assert_eq!(
                twice.iter().filter(|byte| **byte == b'/').count(),
                path.matches('/').count()
            );
            prop_assert!(path.parse::<http::uri::PathAndQuery>().is_ok(), "{}", path);
        }
    }

    #[test]
    fn a_path_matches_itself_and_what_is_above(raw in tricky()) {
        let Ok(normal) = Normal::of(&raw) else { return Ok(()) };
        // Stars are written encoded in patterns.
        let own = Pattern::parse(&normal.as_str().replace('*', "%2A")).unwrap();
        prop_assert!(own.matches(&normal) && own.matches_either_end(&normal));
        prop_assert!(matches("/**", &raw));
        let mut above = String::new();
        for segment in normal.segments().filter(|segment| !segment.is_empty()) {
            above = format!("{above}/{}", segment.replace('*', "%2A"));
            prop_assert!(matches(&format!("{above}/**"), &raw), "{} {}", above, raw);
        }
    }
}
