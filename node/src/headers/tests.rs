use http::{Request, Version};

use super::*;

const CALLER_ID: &str = "spiffe://example.org/svc/web";

/// A request as `GET http://orders/x?y` or `GET /x`, then `name: value` lines.
fn request(version: Version, line: &str, fields: &str) -> request::Parts {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = Request::builder().version(version).method(method).uri(uri);
    for field in fields
        .lines()
        .map(str::trim)
        .filter(|field| !field.is_empty())
    {
        let (name, value) = field.split_once(':').unwrap();
        request = request.header(name, value.trim());
    }
    request.body(()).unwrap().into_parts().0
}

/// Fields left, sorted.
fn fields(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.join("\n")
}

/// What is left of an app's fields (besides `Host` and the count of hops) on the way into the mesh.
fn from_app(given: &str, left: &str) {
    let mut head = request(Version::HTTP_11, "GET /", &format!("host: orders\n{given}"));
    request_from_app(&mut head, "orders").unwrap();
    assert_eq!(head.headers.remove(HOPS).unwrap(), "1");
    assert_eq!(fields(&head.headers), left, "{given}");
}

/// The URI a request leaves with, or why it is refused.
fn target(version: Version, line: &str, given: &str, expected: Result<&str, Reason>) {
    let mut head = request(version, line, given);
    let outcome = request_from_app(&mut head, "orders").map(|_trace| head.uri.to_string());
    assert_eq!(
        outcome.as_deref().map_err(|reason| *reason),
        expected,
        "{version:?} {line} {given}"
    );
    assert!(outcome.is_err() || !head.headers.contains_key(HOST));
}

#[test]
fn end_to_end_fields_pass() {
    from_app("accept: */*", "accept: */*");
    from_app(
        "forwarded: for=1.2.3.4\nx-forwarded-for: 1.2.3.4",
        "forwarded: for=1.2.3.4\nx-forwarded-for: 1.2.3.4",
    );
    from_app("via: 1.1 cdn", "via: 1.1 cdn");
    from_app("authorization: Bearer x", "authorization: Bearer x");
    from_app("content-length: 3", "content-length: 3");
    from_app("x-starling: murmurs", "x-starling: murmurs");
    from_app(
        "client-certificate: no claim",
        "client-certificate: no claim",
    );
}

#[test]
fn no_caller_says_that_its_request_is_a_copy() {
    let to_app = |given: &str| {
        let mut head = request(Version::HTTP_11, "GET /", &format!("host: orders\n{given}"));
        request_from_peer(&mut head, CALLER_ID).unwrap();
        let marks = head
            .headers
            .keys()
            .filter(|name| name.as_str().contains("mirror"));
        marks
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    for forged in [
        "x-starling-mirror: 1",
        "x_starling_mirror: 1",
        "x-starling_mirror: 1",
        "X.Starling-Mirror: 1",
        "starling_mirror: 1",
        "x-starling-anything: 1",
        "connection: x-starling-mirror\nx-starling-mirror: 1",
    ] {
        from_app(forged, "");
        assert!(to_app(forged).is_empty(), "{forged}");
    }
    from_app("starling-mirror: 1", "");
    assert_eq!(to_app("starling-mirror: 1"), ["x-starling-mirror"]);
    // Nor does an app's answer.
    let mut headers = HeaderMap::new();
    headers.insert("x-starling-mirror", HeaderValue::from_static("1"));
    response_from_app(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn fields_of_one_hop_end_here() {
    from_app("connection: close", "");
    from_app("keep-alive: timeout=5\nproxy-connection: keep-alive", "");
    from_app(
        "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABk",
        "",
    );
    from_app("http2-settings: AAMAAABk\nupgrade: h2c", "");
    from_app("transfer-encoding: chunked", "");
    from_app(
        "connection: x-one , X-Two\nx-one: 1\nx-two: 2\nx-three: 3",
        "x-three: 3",
    );
    from_app(
        "connection: x-one\nconnection: x-two\nx-one: 1\nx-two: 2",
        "",
    );
    from_app("connection: ,, \"quoted\", x one\nx-one: 1", "x-one: 1");
    from_app("proxy: http://evil", "");
}

#[test]
fn a_body_ends_in_one_way_only() {
    let framed = |version, fields: &str| {
        let mut head = request(version, "POST /", &format!("host: orders\n{fields}"));
        request_from_app(&mut head, "orders").map(drop)
    };
    for good in ["content-length: 3", "transfer-encoding: Chunked"] {
        assert_eq!(framed(Version::HTTP_11, good), Ok(()), "{good}");
    }
    for bad in [
        "transfer-encoding: chunked\ncontent-length: 3",
        "transfer-encoding: chunked\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding:",
    ] {
        assert_eq!(
            framed(Version::HTTP_11, bad),
            Err(Reason::BadRequest),
            "{bad}"
        );
    }
    let chunks = "transfer-encoding: chunked";
    assert_eq!(framed(Version::HTTP_10, chunks), Err(Reason::BadRequest));
}

#[test]
fn connection_names_away_nothing_that_matters() {
    from_app(
        "connection: content-length\ncontent-length: 3",
        "content-length: 3",
    );
    let mut head = request(
        Version::HTTP_11,
        "GET /",
        "host: orders\nconnection: host, starling-hops, traceparent",
    );
    trace::begin(&mut head.headers, None, &mut fastrand::Rng::new());
    request_from_app(&mut head, "orders").unwrap();
    assert_eq!(head.uri, "https://orders/");
    assert!(head.headers.contains_key(HOPS) && head.headers.contains_key(trace::TRACEPARENT));

    let mut head = request(
        Version::HTTP_11,
        "GET http://orders/",
        "connection: starling-caller",
    );
    request_from_peer(&mut head, CALLER_ID).unwrap();
    assert_eq!(head.headers[CALLER], CALLER_ID);
}

#[test]
fn only_trailers_is_left_of_te() {
    from_app("te: trailers\nconnection: te", "te: trailers");
    from_app("te: gzip, Trailers;q=1", "");
    from_app("te: gzip;q=0.5, Trailers", "te: trailers");
    from_app("te: gzip", "");
}

#[test]
fn nobody_claims_an_identity_from_outside() {
    for name in [
        "starling-caller",
        "Starling-Caller",
        "STARLING_CALLER",
        "starling.caller",
        "starling_anything",
        "starling-error",
        "x-forwarded-client-cert",
        "X_Forwarded_Client_Cert",
        "client-cert",
        "client_cert_chain",
    ] {
        from_app(&format!("{name}: {CALLER_ID}\n{name}: again"), "");
        let mut head = request(
            Version::HTTP_3,
            "GET https://orders/",
            &format!("{name}: spiffe://example.org/svc/admin"),
        );
        request_from_peer(&mut head, CALLER_ID).unwrap();
        assert_eq!(
            fields(&head.headers),
            format!("starling-caller: {CALLER_ID}"),
            "{name}"
        );
    }
}

#[test]
fn a_request_is_for_exactly_one_host() {
    use Version as V;
    target(
        V::HTTP_11,
        "GET /x?y=1",
        "host: Orders:80",
        Ok("https://orders:80/x?y=1"),
    );
    target(
        V::HTTP_11,
        "GET http://ORDERS/x",
        "host: other",
        Ok("https://orders/x"),
    );
    target(V::HTTP_11, "GET http://orders", "", Ok("https://orders/"));
    target(V::HTTP_11, "GET /", "", Err(Reason::BadRequest));
    target(
        V::HTTP_11,
        "GET /",
        "host: a\nhost: a",
        Err(Reason::BadRequest),
    );
    target(V::HTTP_11, "GET /", "host:", Err(Reason::BadRequest));
    target(V::HTTP_11, "GET /", "host: :80", Err(Reason::BadRequest));
    target(
        V::HTTP_11,
        "GET /",
        "host: user@orders",
        Err(Reason::BadRequest),
    );
    target(
        V::HTTP_11,
        "GET http://user@orders/",
        "",
        Err(Reason::BadRequest),
    );
    target(V::HTTP_11, "GET /", "host: a b", Err(Reason::BadRequest));
    target(V::HTTP_11, "GET /", "host: a/b", Err(Reason::BadRequest));
    target(
        V::HTTP_11,
        "GET /",
        "host: [::1]:9001",
        Ok("https://[::1]:9001/"),
    );
    target(V::HTTP_10, "GET /", "", Ok("https://orders/"));
    target(V::HTTP_2, "GET http://orders/", "", Ok("https://orders/"));
    target(
        V::HTTP_2,
        "GET http://orders/",
        "host: ORDERS",
        Ok("https://orders/"),
    );
    target(
        V::HTTP_2,
        "GET http://orders/",
        "host: other",
        Err(Reason::BadRequest),
    );
    target(
        V::HTTP_11,
        "CONNECT orders:80",
        "host: orders:80",
        Err(Reason::NotSupported),
    );
}

#[test]
fn a_path_in_raw_utf8_crosses_as_a_uri() {
    let host = "host: orders";
    target(
        Version::HTTP_11,
        "GET /café?q=é%20",
        host,
        Ok("https://orders/caf%C3%A9?q=%C3%A9%20"),
    );
    target(
        Version::HTTP_11,
        "GET /a%c3",
        host,
        Ok("https://orders/a%c3"),
    );
}

#[test]
fn a_request_in_circles_ends() {
    let mut head = request(Version::HTTP_11, "GET /", "host: orders");
    for _ in 0..HOPS_MAX {
        request_from_app(&mut head, "orders").unwrap();
        request_from_peer(&mut head, CALLER_ID).unwrap();
        into_http1(&mut head).unwrap();
    }
    assert_eq!(request_from_app(&mut head, "orders"), Err(Reason::Loop));
    for (nonsense, reads) in [("-1", 0), ("x", 0), ("256", 0), ("255", 254), ("3", 3)] {
        let head = request(
            Version::HTTP_11,
            "GET /",
            &format!("starling-hops: {nonsense}"),
        );
        assert_eq!(hops(&head.headers), reads, "{nonsense}");
    }
}

#[test]
fn the_app_sees_plain_http1() {
    let given = "te: trailers\ncookie: a=1\ncookie: b=2\nstarling-hops: 1";
    let mut head = request(Version::HTTP_3, "GET https://orders:9001/x?y", given);
    request_from_peer(&mut head, CALLER_ID).unwrap();
    into_http1(&mut head).unwrap();
    assert_eq!(head.uri, "/x?y");
    assert_eq!(head.version, Version::HTTP_11);
    let expected = format!(
        "connection: te\ncookie: a=1; b=2\nhost: orders:9001\nstarling-caller: {CALLER_ID}\nstarling-hops: 1\nte: trailers"
    );
    assert_eq!(fields(&head.headers), expected);
}

#[test]
fn asterisk_form_survives() {
    let mut head = request(Version::HTTP_11, "OPTIONS *", "host: orders");
    request_from_app(&mut head, "orders").unwrap();
    request_from_peer(&mut head, CALLER_ID).unwrap();
    into_http1(&mut head).unwrap();
    assert_eq!(head.uri.path(), "*");
}

#[test]
fn apps_cannot_speak_as_the_mesh_and_peers_only_in_its_words() {
    let response = |given: &str| request(Version::HTTP_11, "GET /", given).headers;

    let mut headers = response(
        "starling-error: denied\nstarling_error: denied\nconnection: x\nx: 1\ncontent-length: 3",
    );
    response_from_app(&mut headers);
    assert_eq!(fields(&headers), "content-length: 3");

    let mut headers = response("starling-error: denied\nstarling-caller: x\nserver: app");
    assert_eq!(response_from_peer(&mut headers), Some(Reason::Denied));
    assert_eq!(fields(&headers), "server: app\nstarling-error: denied");

    let mut headers = response("starling-error: made-up");
    assert_eq!(response_from_peer(&mut headers), None);
    assert_eq!(fields(&headers), "");

    let mut headers = response(
        "grpc-status: 0\ncontent-length: 3\nhost: x\ntransfer-encoding: chunked\nstarling-caller: x",
    );
    trailers(&mut headers);
    assert_eq!(fields(&headers), "grpc-status: 0");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Names that mean something here, some of them disguised, and any others.
    fn name() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "connection",
            "content-length",
            "cookie",
            "keep-alive",
            "starling-caller",
            "starling-hops",
            "starling_error",
            "te",
            "traceparent",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-client-cert",
            "x_forwarded.client-cert",
        ]);
        prop_oneof![known.prop_map(str::to_owned), "[a-z][a-z_.!-]{0,12}"]
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let listed =
            prop::collection::vec(name(), 1..4).prop_map(|names| names.join(", ").into_bytes());
        prop_oneof![listed, prop::collection::vec(any::<u8>(), 0..20)]
    }

    fn head(fields: &[(String, Vec<u8>)]) -> request::Parts {
        let mut head = request(Version::HTTP_11, "GET /", "host: orders");
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                head.headers.append(name, value);
            }
        }
        head
    }

    proptest! {
        #[test]
        fn whatever_an_app_sends(fields in prop::collection::vec((name(), value()), 0..12)) {
            let mut head = head(&fields);
            let wish = upgrade(&head);
            trace::begin(&mut head.headers, None, &mut fastrand::Rng::new());
            if request_from_app(&mut head, "orders").is_err() {
                return Ok(());
            }
            let claims = head.headers.keys().filter(|name| is_claim(name) && **name != HOPS).count();
            prop_assert_eq!(claims, 0);
            for gone in ["connection", "transfer-encoding", "keep-alive", "host"] {
                prop_assert!(!head.headers.contains_key(gone), "{} stayed", gone);
            }
            prop_assert_eq!(head.headers.get(UPGRADE), wish.as_ref());
            prop_assert_eq!(head.headers.get_all(trace::TRACEPARENT).iter().count(), 1);

            // The callee's agent hears the same and adds exactly who called.
            let before = head.headers.clone();
            request_from_peer(&mut head, CALLER_ID).unwrap();
            prop_assert_eq!(head.headers.remove(CALLER).unwrap(), CALLER_ID);
            prop_assert_eq!(head.headers, before);
        }

        #[test]
        fn whatever_an_app_answers(fields in prop::collection::vec((name(), value()), 0..12)) {
            let mut headers = head(&fields).headers;
            response_from_app(&mut headers);
            prop_assert!(!headers.keys().any(is_claim));
            let before = headers.clone();
            prop_assert_eq!(response_from_peer(&mut headers), None);
            prop_assert_eq!(headers, before);
        }
    }
}

/// The protocol that is left of an app's wish for an upgrade.
fn upgrades(line: &str, given: &str, left: Option<&str>) {
    let mut head = request(Version::HTTP_11, line, &format!("host: orders\n{given}"));
    request_from_app(&mut head, "orders").unwrap();
    let upgrade = head.headers.get(UPGRADE).map(|name| name.to_str().unwrap());
    assert_eq!(upgrade, left, "{line} {given}");
    assert!(!head.headers.contains_key(CONNECTION));
}

#[test]
fn an_upgrade_the_mesh_carries_is_asked_for_again() {
    upgrades(
        "GET /",
        "connection: keep-alive, Upgrade\nupgrade: websocket",
        Some("websocket"),
    );
    upgrades(
        "GET /",
        "connection: upgrade\nupgrade: SPDY/3.1\ncontent-length: 0",
        Some("SPDY/3.1"),
    );
}

#[test]
fn an_upgrade_that_could_not_be_kept_is_an_ordinary_request() {
    upgrades("GET /", "upgrade: websocket", None);
    upgrades("GET /", "connection: close\nupgrade: websocket", None);
    for protocol in [
        "h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0", "a, b", "a b", "", "a/", "a/1/2",
    ] {
        upgrades(
            "GET /",
            &format!("connection: upgrade\nupgrade: {protocol}"),
            None,
        );
    }
    upgrades("GET /", "connection: upgrade\nupgrade: a\nupgrade: b", None);
    upgrades("POST /", "connection: upgrade\nupgrade: websocket", None);
    let with_body = "connection: upgrade\nupgrade: websocket\ncontent-length: 1";
    upgrades("GET /", with_body, None);
    let with_body = "connection: upgrade\nupgrade: websocket\ntransfer-encoding: chunked";
    upgrades("GET /", with_body, None);
    let mut head = request(
        Version::HTTP_10,
        "GET /",
        "host: orders\nconnection: upgrade\nupgrade: websocket",
    );
    request_from_app(&mut head, "orders").unwrap();
    assert!(!head.headers.contains_key(UPGRADE));
}

#[test]
fn an_app_is_asked_for_an_upgrade_in_full() {
    let mut head = request(
        Version::HTTP_3,
        "GET https://chat/",
        "upgrade: websocket\nte: trailers",
    );
    request_from_peer(&mut head, CALLER_ID).unwrap();
    into_http1(&mut head).unwrap();
    assert_eq!(head.headers[UPGRADE], "websocket");
    assert_eq!(head.headers[CONNECTION], "upgrade");
    // RFC 9220 knows no key, HTTP/1.1 insists on one.
    let key = head.headers[SEC_WEBSOCKET_KEY].as_bytes();
    assert!(key.len() == 24 && key.ends_with(b"A=="), "{key:?}");
    let mut head = request(
        Version::HTTP_3,
        "GET https://chat/",
        "upgrade: websocket\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    );
    request_from_peer(&mut head, CALLER_ID).unwrap();
    into_http1(&mut head).unwrap();
    assert_eq!(head.headers[SEC_WEBSOCKET_KEY], "dGhlIHNhbXBsZSBub25jZQ==");
}
