//! What is said of `[[route]]`.

use starling_gossip::ServiceName;

use super::*;
use crate::route::Document;

/// Asserts the one problem of a rule with this line, which is the fourth.
#[track_caller]
fn rule(line: &str, what: &str, hint: &str) {
    let text = format!("[[route]]\nservice = \"cart\"\n[[route.rule]]\n{line}\n");
    check(&text, &format!("4: {what}"), hint);
}

#[track_caller]
fn good(lines: &str) {
    let text = format!("[[route]]\nservice = \"cart\"\n[[route.rule]]\n{lines}\n");
    assert_eq!(told(&text), "", "{lines}");
}

#[test]
fn rules_that_cannot_work_are_refused() {
    rule(
        "split = [{ to = { version = \"v1\" }, weight = 90 }, { to = { version = \"v2\" }, weight = 20 }]",
        "the weights of this split add up to 110",
        "weights of one split sum to 100; `version=v1` has 90, `version=v2` has 20",
    );
    rule(
        "split = [{ to = { version = \"v1\" }, weight = 100 }]",
        "a split into 1 parts",
        "it has 2 to 16; all calls to one subset are `to = { … }`",
    );
    rule(
        "split = [{ to = { v = \"1\" }, weight = 50 }, { to = { v = \"1\" }, weight = 50 }]",
        "two parts of the split go to `v=1`",
        "add their weights up in one",
    );
    rule(
        "mirror = { to = { v = \"1\" }, percent = 101 }",
        "`percent` is 101, which is no share",
        "it goes from 0 to 100, in steps of 0.01",
    );
    rule(
        "mirror = { to = { v = \"1\" }, percent = 0.001 }",
        "`percent` is 0.001, which is no share",
        "it goes from 0 to 100, in steps of 0.01",
    );
    rule(
        "mirror = { percent = 1 }",
        "`mirror` does not say where copies go",
        "`to = { version = \"v2\" }`, `service = \"orders-next\"`, or both",
    );
    rule(
        "to = {}",
        "`to` names no label, so it is every instance",
        "as in `to = { version = \"v2\" }`",
    );
    rule(
        "to = { version = \"a b\" }",
        "no instance can have these labels",
        "at most 16; keys and values have up to 63 characters of a-z A-Z 0-9 . _ / -",
    );
    rule(
        "sticky = { cookie = \"id\" }",
        "`sticky` says nothing without a `split`",
        "one subset is always the same",
    );
    rule(
        "fault = {}",
        "`fault` does no harm",
        "`{ delay = \"200ms\" }`, `{ abort = 503 }`, or both",
    );
    rule(
        "fault = { abort = 503, delay_percent = 5 }",
        "`delay_percent` says nothing without `delay`",
        "",
    );
    rule(
        "fault = { abort = 200 }",
        "`abort` is 200, which is out of range",
        "it goes from 400 to 599",
    );
    rule(
        "fault = { delay = \"1h\" }",
        "`delay` is 1h, which is out of range",
        "it goes from 1ms to 5m",
    );
    rule(
        "rewrite = {}",
        "`rewrite` changes nothing",
        "`path` or `prefix`, `host`, or both",
    );
    rule(
        "rewrite = { host = \"Example.org\" }",
        "`Example.org` is not a host",
        "lower case, with a port or none, as in \"orders.example.org\"",
    );
    rule(
        "rewrite = { path = \"/a/../b\" }",
        "`path` cannot be `/a/../b`: it holds a segment `.` or `..`",
        "a plain path, as in \"/orders\"",
    );
    rule(
        "rewrite = { path = \"/%61\" }",
        "`path` cannot be `/%61`: its plain form is `/a`",
        "a plain path, as in \"/orders\"",
    );
    rule(
        "rewrite = { path = \"/a?b\" }",
        "`path` cannot be `/a?b`: it holds a query, which stays what it is",
        "a plain path, as in \"/orders\"",
    );
    rule(
        "rewrite = { prefix = \"/a\" }",
        "`prefix` has nothing to replace",
        "it stands in for what `match = { path = \"/…/**\" }` names; a whole path is `path`",
    );
    rule(
        "redirect = {}",
        "`redirect` leads back to where it came from",
        "name a `path`, `prefix`, `host` or `scheme`",
    );
    rule(
        "redirect = { path = \"/a\", status = 304 }",
        "304 does not redirect",
        "307 or 308 keep the method, 301 to 303 may not",
    );
    rule(
        "respond = {}",
        "`status` is missing",
        "as in `status = 503`",
    );
    rule(
        "respond = { status = 204, body = \"x\" }",
        "an answer with status 204 has no body",
        "leave `body` out",
    );
    rule(
        "body_bytes = -1",
        "`body_bytes` is -1, which is out of range",
        "it goes from 0 to 1099511627776",
    );
    rule(
        "retry = { attempts = 0 }",
        "`attempts` is 0, which is out of range",
        "it goes from 1 to 10",
    );
    rule(
        "timeout = { request = \"1s\" }\nrespond = { status = 204 }",
        "`timeout` says nothing where `respond` answers the call",
        "a rule either answers calls or sends them on",
    );
    rule(
        "name = \"a\\nb\"",
        "`name` is not a plain word",
        "up to 63 characters of a-z A-Z 0-9 . _ - and space",
    );
}

#[test]
fn conditions_that_nothing_meets_are_refused() {
    rule(
        "match = { path = \"orders\" }",
        "`path` cannot be `orders`: no request has such a path: it does not begin with `/`",
        "begin it with `/`, as in \"/orders/**\"",
    );
    let regex = "bytes, not Unicode; always matched against the whole value; no look-around or back-references";
    rule(
        "match = { path_regex = \"(\" }",
        "`path_regex` is not a usable expression: unclosed group",
        regex,
    );
    rule(
        "match = { headers = { x = { regex = \"(\\\\w{99}){99}\" } } }",
        "`headers.x` is not a usable expression: it is too big once compiled",
        regex,
    );
    rule(
        "match = { methods = [] }",
        "`methods` is empty, so nothing matches",
        "leave it out to match any",
    );
    rule(
        "match = { methods = [\"get\"] }",
        "`get` is not a method",
        "capitals, as in \"GET\"",
    );
    rule(
        "match = { callers = [\"*\"] }",
        "`*` is not the name of a service: a name holds only a-z, 0-9 and -, and neither begins nor ends with -",
        "there is no wildcard: list the services that may call",
    );
    rule(
        "match = { headers = { host = \"a\" } }",
        "`host` is not seen as a header field",
        "callers name the service, whatever its host is called",
    );
    rule(
        "match = { headers = { Starling-Caller = \"a\" } }",
        "no app's request keeps `starling-caller`",
        "who calls is `callers = [\"web\"]`",
    );
    rule(
        "match = { headers = { \"a b\" = true } }",
        "`a b` is not the name of a header field",
        "",
    );
    rule(
        "match = { headers = { x = { prefix = \"a\", regex = \"b\" } } }",
        "`headers.x` says not one thing",
        "either `prefix` or `regex`",
    );
    rule(
        "match = { headers = { x = 1 } }",
        "invalid type: integer `1`, expected a text, true (there), false (not there), { prefix = \"…\" } or { regex = \"…\" }",
        "",
    );
}

#[test]
fn fields_that_are_not_for_rules_are_refused() {
    for (name, hint) in [
        (
            "host",
            "what the app is asked for is `rewrite = { host = \"…\" }`",
        ),
        (
            "content-length",
            "it belongs to one connection, not to the request",
        ),
        (
            "transfer-encoding",
            "it belongs to one connection, not to the request",
        ),
        (
            "connection",
            "it belongs to one connection, not to the request",
        ),
        (
            "keep-alive",
            "it belongs to one connection, not to the request",
        ),
        ("starling-caller", "it says who calls, which only agents do"),
        ("starling_caller", "it says who calls, which only agents do"),
        (
            "x-forwarded-client-cert",
            "it says who calls, which only agents do",
        ),
        ("traceparent", "traces go through unchanged"),
    ] {
        for edits in ["request_headers", "response_headers"] {
            rule(
                &format!("{edits} = {{ set = {{ {name} = \"1\" }} }}"),
                &format!("no rule can use the field `{name}`"),
                hint,
            );
        }
    }
    rule(
        "request_headers = { set = { x = \"a\\nb\" } }",
        "`a\\nb` cannot be the value of a header field",
        "visible ASCII and spaces",
    );
    rule(
        "request_headers = {}",
        "0 changes to header fields",
        "1 to 32 of `set`, `add` and `remove`",
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    check(
        "[[route]]\nservice = \"cart\"\n[[route.rule]]\nredirect = { path = \"/a\" }\nto = { version = \"v1\" }\n",
        "5: `to` says nothing where `redirect` answers the call",
        "a rule either answers calls or sends them on",
    );
    check(
        "[[route]]\nservice = \"cart\"\n[[route.rule]]\nto = { v = \"1\" }\nsplit = [{ to = { v = \"1\" }, weight = 50 }, { to = { v = \"2\" }, weight = 50 }]\n",
        "4: `to` and `split` both say where calls go",
        "keep one of them",
    );
    let text = "[[route]]\nservice = \"cart\"\n[[route]]\nservice = \"cart\"\n[[route.rule]]\n";
    assert!(
        told(text).contains("starling.toml:1: a route without rules directs nothing"),
        "{}",
        told(text)
    );
    check(
        "[[route]]\nservice = \"cart\"\n[[route.rule]]\n[[route]]\nservice = \"cart\"\n[[route.rule]]\n",
        "4: `cart` has two routes",
        "rules are tried in order, so they stand together; the other is at starling.toml:1",
    );
    check(
        "[[route]]\n[[route.rule]]\n",
        "1: `service` is missing",
        "whose callers it directs: `service = \"orders\"`",
    );
}

#[test]
fn slips_in_keys_are_told() {
    rule(
        "spilt = []",
        "unknown key `spilt` in [[route.rule]]",
        "did you mean `split`?",
    );
    rule(
        "match = { headrs = {} }",
        "unknown key `headrs` in `match`",
        "did you mean `headers`?",
    );
    rule(
        "path = \"/a\"",
        "unknown key `path` in [[route.rule]]",
        "`path` belongs in `match`",
    );
    rule(
        "mirror = { percnt = 1, service = \"a\" }",
        "unknown key `percnt` in `mirror`",
        "did you mean `percent`?",
    );
    rule(
        "fault = { abrt = 500, delay = \"1s\" }",
        "unknown key `abrt` in `fault`",
        "did you mean `abort`?",
    );
}

#[test]
fn all_that_can_be_said_is_taken() {
    good("");
    good("match = { headers = { X-Beta = \"1\" }, query = { v = true }, zones = [\"rack-1\"] }");
    good("match = { path = \"/a/**\" }\nrewrite = { prefix = \"/\" }");
    good(
        "match = { path = \"/a/**\" }\nredirect = { prefix = \"/b/\", host = \"example.org:8443\", scheme = \"https\" }",
    );
    good(
        "respond = { status = 200, body = \"{}\", content_type = \"application/json\" }\nresponse_headers = { add = { x = \"1\" } }",
    );
    good("fault = { delay = \"100ms\", abort = 503, abort_percent = 0.5 }");
    good(
        "split = [{ to = { v = \"1\" }, weight = 33.33 }, { to = { v = \"2\" }, weight = 66.67 }]\nsticky = { header = \"X-User\" }",
    );
}

#[test]
fn a_document_is_a_route_without_its_name() {
    let cart = ServiceName::parse("cart").unwrap();
    let read = |body: &str| Document::parse_as(Path::new("route/cart@3"), body);
    let route = read("[[rule]]\nto = { version = \"v1\" }\n")
        .unwrap()
        .of(cart);
    assert_eq!(
        (route.rules.len(), route.declared.to_string().as_str()),
        (1, "route/cart@3:1")
    );
    for (body, expected) in [
        (
            "",
            "error: route/cart@3:1: a route without rules directs nothing\n  hint: add a rule, or leave the route out: calls then go to any instance",
        ),
        (
            "service = \"shop\"\n[[rule]]\n",
            "error: route/cart@3:1: a document of kind `route` is about the service that it is named after\n  hint: leave `service` out",
        ),
        (
            "[[rule]]\nto = { version = \"\" }\nx = 1\n",
            "unknown key `x` in [[route.rule]]",
        ),
        ("[[rule]\n", "error: route/cart@3:1: "),
        ("rule = 1\n", "error: route/cart@3:1: invalid type"),
        (
            "[[route]]\nservice = \"cart\"\n",
            "unknown key `route` in [[route]]",
        ),
    ] {
        let told = read(body).unwrap_err().to_string();
        assert!(told.contains(expected), "{body}: {told}");
    }
}
