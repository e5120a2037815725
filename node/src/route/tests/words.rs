//! Rules in words.

use std::path::Path;

use starling_gossip::ServiceName;

use super::notation::route;
use crate::route::{Document, Route};

fn check(rules: &str, expected: &[(&str, &str)]) {
    check_route(&route(rules), expected);
}

fn check_route(route: &Route, expected: &[(&str, &str)]) {
    let told: Vec<_> = route
        .rules
        .iter()
        .map(|rule| (rule.matches.to_string(), rule.action.to_string()))
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(matches, action)| (matches.as_str(), action.as_str()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn rules_are_told_as_short_as_they_are_written() {
    check(
        "cart v1=90 v2=10; x-beta -> v2",
        &[
            ("x-beta", "version=v2"),
            ("any call", "90% version=v1, 10% version=v2"),
        ],
    );
    check(
        "cart; GET|HEAD /a/** x=1 y^e !z ?q~[0-9] @web|api %r1 -> any",
        &[(
            "GET|HEAD /a/** x=1 y^e !z ?q~[0-9] from web|api in r1",
            "any instance",
        )],
    );
    check(
        "cart; re:/a.* -> respond:503; /o/** -> redirect-prefix:/n; /b/** -> prefix:/ host:h v2",
        &[
            ("path~/a.*", "respond 503"),
            ("/o/**", "redirect 307, path begins with /n/"),
            ("/b/**", "version=v2; path begins with /; host becomes h"),
        ],
    );
}

#[test]
fn everything_else_is_told_too() {
    let body = r#"
[[rule]]
split = [{ to = { version = "v1" }, weight = 99.5 }, { to = { version = "v2" }, weight = 0.5 }]
sticky = { cookie = "id" }
rewrite = { path = "/new" }
request_headers = { set = { x-a = "1" }, add = { x-b = "2" }, remove = ["x-c"] }
response_headers = { remove = ["server"] }
mirror = { service = "next", to = { version = "v3" }, percent = 5, credentials = true }
fault = { delay = "200ms", delay_percent = 10, abort = 503, abort_percent = 0.01 }
body_bytes = 1000
timeout = { request = "1s" }
retry = { attempts = 3 }
[[rule]]
redirect = { status = 308, scheme = "https", host = "example.org", path = "/x" }
"#;
    let cart = ServiceName::parse("cart").unwrap();
    let route = Document::parse_as(Path::new("route"), body)
        .unwrap()
        .of(cart);
    check_route(
        &route,
        &[
            (
                "any call",
                "99.5% version=v1, 0.5% version=v2 by cookie id; path becomes /new; \
             request headers -x-c =x-a +x-b; mirror 5% to next version=v3 with credentials; response headers -server; \
             delay 10% by 200ms; fail 0.01% with 503; bodies up to 1000 bytes; \
             own retry; own timeout",
            ),
            (
                "any call",
                "redirect 308, scheme https, host example.org, path becomes /x",
            ),
        ],
    );
}
