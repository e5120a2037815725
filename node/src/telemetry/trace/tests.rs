//! What becomes of the trace of a request, and what is told of it.

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::*;
use crate::config::Protocol;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::{Series, Side};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn fields(given: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// One that begins so many traces.
fn tracer(per_second: u32) -> (Arc<Tracer>, Inbox) {
    let (tracer, inbox) = Tracer::new(per_second);
    (Arc::new(tracer), inbox)
}

fn begun(headers: &mut HeaderMap, tracer: Option<&Arc<Tracer>>) -> Traced {
    begin(headers, tracer, &mut fastrand::Rng::with_seed(1))
}

fn traceparent(headers: &HeaderMap) -> &str {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let one = all.next().expect("there is one").to_str().unwrap();
    assert_eq!(all.next(), None);
    one
}

#[test]
fn without_a_tracer_a_good_one_passes_unchanged() {
    for good in [SAMPLED, UNSAMPLED] {
        let mut headers = fields(&[("traceparent", good), ("tracestate", "a=b")]);
        let before = headers.clone();
        let traced = begun(&mut headers, None);
        assert_eq!(traced.trace.as_str(), TRACE);
        assert!(traced.span.is_none());
        assert_eq!(headers, before);
    }
}

#[test]
fn none_two_or_a_bad_one_are_replaced_by_one() {
    for values in [&[][..], &[SAMPLED, SAMPLED], &["nonsense"]] {
        let mut headers = fields(&[("tracestate", "a=b")]);
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        let traced = begun(&mut headers, None);
        let made = traceparent(&headers);
        assert!(made.starts_with(&format!("00-{}-", traced.trace)) && made.ends_with("-00"));
        assert!(!headers.contains_key(TRACESTATE));
        assert_ne!(traced.trace.as_str(), TRACE);
    }
}

#[tokio::test]
async fn what_is_sampled_gets_our_span_and_nothing_else_does() {
    let (tracer, _inbox) = tracer(0);
    let mut headers = fields(&[("traceparent", SAMPLED), ("tracestate", "a=b")]);
    let span = begun(&mut headers, Some(&tracer))
        .span
        .expect("it is sampled");
    assert_eq!(
        traceparent(&headers),
        format!("00-{TRACE}-{}-01", span.id())
    );
    assert_ne!(span.id().as_str(), PARENT);
    assert_eq!(headers[TRACESTATE], "a=b");

    let mut headers = fields(&[("traceparent", UNSAMPLED)]);
    assert!(begun(&mut headers, Some(&tracer)).span.is_none());
    assert_eq!(traceparent(&headers), UNSAMPLED);
}

#[tokio::test]
async fn whoever_begins_a_trace_decides_within_its_rate() {
    let (tracer, _inbox) = tracer(2);
    let sampled = (0..10).filter(|_| {
        let mut headers = HeaderMap::new();
        let traced = begun(&mut headers, Some(&tracer));
        let flags = if traced.span.is_some() { "-01" } else { "-00" };
        assert!(traceparent(&headers).ends_with(flags));
        traced.span.is_some()
    });
    assert_eq!(sampled.count(), 2);
    // An app's word does not count against it.
    let mut headers = fields(&[("b3", "1")]);
    assert!(begun(&mut headers, Some(&tracer)).span.is_some());
}

#[tokio::test]
async fn b3_is_read_and_passed_on_and_w3c_written() {
    let (never, _inbox) = tracer(0);
    let (always, _inbox) = tracer(u32::MAX);
    let b3 = |state: &str| format!("{TRACE}-{PARENT}{state}");
    for (state, tracer, is_sampled) in [
        ("-1", Some(&never), true),
        ("-d", Some(&never), true),
        ("-0", Some(&always), false),
        ("", Some(&always), true),
        ("", Some(&never), false),
    ] {
        let value = b3(state);
        let mut headers = fields(&[("b3", &value)]);
        let traced = begun(&mut headers, tracer);
        assert_eq!(traced.trace.as_str(), TRACE);
        let span = traced.span.map(|span| span.id().to_string());
        assert_eq!(span.is_some(), is_sampled, "{state}");
        let parent = span.as_deref().unwrap_or(PARENT);
        let flags = u8::from(is_sampled);
        assert_eq!(
            traceparent(&headers),
            format!("00-{TRACE}-{parent}-0{flags}")
        );
        assert_eq!(headers["b3"], value);
    }
    // Without a tracer its decision goes on in the other form.
    let mut headers = fields(&[
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", PARENT),
        ("x-b3-sampled", "1"),
    ]);
    begun(&mut headers, None);
    assert_eq!(traceparent(&headers), SAMPLED);
    // The standard counts more than its forerunner.
    let mut headers = fields(&[("b3", "0"), ("traceparent", SAMPLED)]);
    assert!(begun(&mut headers, Some(&never)).span.is_some());
}

#[test]
fn our_own_requests_are_nobodys_business() {
    let mut headers = fields(&[("traceparent", SAMPLED)]);
    silence(&mut headers);
    let value = traceparent(&headers);
    assert!(value.ends_with("-00") && !value.contains(TRACE), "{value}");
}

#[tokio::test(start_paused = true)]
async fn each_try_is_a_span_of_its_own() {
    let (tracer, mut inbox) = tracer(0);
    let series = Series::new(
        Side::Caller,
        "web",
        "orders",
        Protocol::Http,
        Arc::default(),
    );
    let mut headers = fields(&[("traceparent", SAMPLED)]);
    let mut line = AccessLine::request(&series, &Method::GET, "/cart");
    line.trace(&mut headers, Some(&tracer));
    let first = traceparent(&headers).to_owned();
    tokio::time::advance(std::time::Duration::from_millis(30)).await;
    let over = Instant::now();
    tokio::time::advance(std::time::Duration::from_millis(10)).await;
    let unavailable = Some(StatusCode::SERVICE_UNAVAILABLE);
    line.try_again(over, unavailable, None, &mut headers);
    let second = traceparent(&headers).to_owned();
    assert_ne!(first, second);
    tokio::time::advance(std::time::Duration::from_millis(5)).await;
    line.fail(Reason::Timeout);
    line.finish();

    let spans = inbox.batch();
    let [one, two] = &spans[..] else {
        panic!("two spans: {spans:?}");
    };
    for (span, traceparent) in [(one, first), (two, second)] {
        assert_eq!(traceparent, format!("00-{TRACE}-{}-01", span.id));
        assert_eq!(span.trace.as_str(), TRACE);
        assert_eq!(span.parent.unwrap().as_str(), PARENT);
    }
    assert_eq!(
        (one.status, one.reason, one.resends),
        (unavailable, None, 0)
    );
    assert_eq!(
        (two.status, two.reason, two.resends),
        (None, Some(Reason::Timeout), 1)
    );
    let took = |span: &Closed| span.ended.duration_since(span.began).unwrap().as_millis();
    assert_eq!((took(one), took(two)), (30, 5));
    let gap = two.began.duration_since(one.ended).unwrap();
    assert_eq!(gap.as_millis(), 10);
}

#[tokio::test]
async fn a_grpc_call_ends_with_the_status_of_its_trailers() {
    let (tracer, mut inbox) = tracer(0);
    let series = Series::new(
        Side::Callee,
        "web",
        "orders",
        Protocol::Http,
        Arc::default(),
    );
    for kind in ["application/grpc", "application/json"] {
        let mut headers = fields(&[("traceparent", SAMPLED), ("content-type", kind)]);
        let mut line = AccessLine::request(&series, &Method::POST, "/shop.Orders/Get");
        line.trace(&mut headers, Some(&tracer));
        line.note(&HeaderMap::new());
        line.note(&fields(&[("grpc-status", "5")]));
        line.finish();
    }
    let told: Vec<_> = inbox.batch().iter().map(|span| span.grpc_status).collect();
    assert_eq!(told, [Some(5), None]);
}
