//! The tables that say how calls are made.

use std::time::Duration;

use http::Method;

use super::*;

/// The settings of an upstream with these lines.
fn calls(lines: &str) -> CallSettings {
    let text = format!(
        "[[upstream]]\nservice = \"orders\"\nlisten = \"127.0.0.1:9001\"\nas = \"web\"\n{lines}"
    );
    let [upstream] = &read(&text).upstreams[..] else {
        panic!("one upstream")
    };
    (*upstream.calls).clone()
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(calls(""), CallSettings::default());
    assert_eq!(
        calls("balance = {}\ntimeout = {}\nlimits = {}").balance,
        Balance::default()
    );
    assert_eq!(calls("outlier = {}").outlier, Outlier::declared());
}

#[test]
fn what_is_written_holds() {
    let said = calls(
        "balance = { algorithm = \"maglev\", on = \"cookie:sid\", slow_start = \"10s\", panic = 40, \
         zone = { failover = [\"b\", \"c\"], spill_below = 80 } }\n\
         retry = { attempts = 3, on = [\"5xx\", \"grpc-unavailable\"], methods = [\"POST\"], backoff = \"1ms\", \
         budget = { percent = 10, min_per_second = 0 } }\n\
         timeout = { request = \"2s\", idle = \"1m\", per_try = \"100ms\" }\n\
         limits = { connections = 1, pending = 0, concurrent = 3, rate = { requests = 5, key = \"header:X-User\" } }\n\
         outlier = { consecutive = 0, answers = false, success_rate = 20, base = \"5s\", max_share = 10 }\n",
    );
    assert_eq!(
        said.balance.algorithm,
        Algorithm::Maglev(Key::Cookie("sid".into()))
    );
    assert_eq!(said.balance.zone.failover, ["b", "c"]);
    assert_eq!(said.timeout.per_try, Some(Duration::from_millis(100)));
    assert!(said.retry.on.has(Condition::Status5xx) && !said.retry.on.has(Condition::Reset));
    assert!(said.retry.allows(&Method::POST) && !said.retry.allows(&Method::GET));
    assert!(Retry::default().allows(&Method::GET) && !Retry::default().allows(&Method::POST));
    let rate = said.limits.rate.unwrap();
    assert_eq!(
        (rate.requests, rate.burst, rate.per),
        (5, 5, Duration::from_secs(1))
    );
    assert_eq!(rate.key.unwrap().to_string(), "header:x-user");
    assert_eq!(said.outlier.max_share, 10);
}

#[test]
fn a_table_replaces_the_other_one_whole() {
    let base = calls("retry = { attempts = 7 }\ntimeout = { idle = \"1m\" }");
    let over = CallOverrides {
        timeout: Some(Timeouts {
            request: Some(Duration::from_secs(1)),
            ..Timeouts::default()
        }),
        ..CallOverrides::default()
    };
    let both = over.over(&base);
    assert_eq!(both.retry.attempts, 7);
    assert_eq!(
        (both.timeout.idle, both.timeout.request),
        (None, Some(Duration::from_secs(1)))
    );
}

#[test]
fn limits_are_told_as_they_were_written() {
    assert!(calls("").limits_in_words().is_empty());
    let said = calls(
        "retry = { attempts = 3 }\ntimeout = { request = \"5s\" }\n\
         limits = { connections = 9, rate = { requests = 5, key = \"header:x-user\" } }",
    );
    assert_eq!(
        said.limits_in_words(),
        [
            "whole call within 5s",
            "up to 3 tries, retries in 20 % of requests",
            "at most 9 connections",
            "5 requests in 1s, 5 at once for each header:x-user",
        ]
    );
}

#[test]
fn what_cannot_work_is_refused_with_a_way_out() {
    let key = "\"header:NAME\", \"cookie:NAME\" or \"source\", the address of the app";
    for (line, what, hint) in [
        (
            "balance = { algorithm = \"maglv\" }",
            "`algorithm` cannot be `maglv`",
            "did you mean \"maglev\"?",
        ),
        (
            "balance = { algorithm = \"maglev\" }",
            "`on` is missing: maglev of what?",
            key,
        ),
        (
            "balance = { on = \"source\" }",
            "`on` says nothing about peak-ewma",
            "`algorithm = \"ring-hash\"` or \"maglev\", or leave `on` out",
        ),
        (
            "balance = { algorithm = \"ring-hash\", on = \"header:a b\" }",
            "`on` cannot be `header:a b`",
            key,
        ),
        (
            "balance = { zone = { prefr = true } }",
            "unknown key `prefr` in zone",
            "did you mean `prefer`?",
        ),
        (
            "balance = { zone = { prefer = false, failover = [\"b\"] } }",
            "`failover` says nothing where no zone is preferred",
            "leave `prefer = false` out",
        ),
        (
            "balance = { panic = 101 }",
            "`panic` is 101, which is out of range",
            "it goes from 0 to 100",
        ),
        (
            "retry = { on = [\"6xx\"] }",
            "`on` cannot be `6xx`",
            "did you mean \"5xx\"?",
        ),
        (
            "retry = { methods = [\"post\"] }",
            "`post` is not a method",
            "in capitals, as in \"POST\"",
        ),
        (
            "timeout = { request = \"1s\", per_try = \"2s\" }",
            "`per_try` is longer than `request`, so it never counts",
            "`request` covers all tries together",
        ),
        (
            "limits = { rate = { per = \"1s\" } }",
            "`requests` is missing",
            "how many: `requests = 100`",
        ),
        (
            "limits = { rate = { requests = 1, key = \"ip\" } }",
            "`key` cannot be `ip`",
            key,
        ),
        (
            "limits = { queue = 3 }",
            "unknown key `queue` in limits of calls",
            "`queue` belongs in limits of a service",
        ),
        (
            "outlier = { base = \"1m\" }",
            "`base` is 1m, which is out of range",
            "it goes from 100ms to 30s",
        ),
    ] {
        upstream(line, what, hint);
    }
    service(
        "limits = { queue = 3 }",
        "`queue` says nothing without `concurrent`",
        "`concurrent = 64`: how many the app takes at a time",
    );
}
