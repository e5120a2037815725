//! Many spans as one message, those of one service together: a resource of OpenTelemetry is the service for which the
//! agent speaks, at the caller's end the caller and at the callee's the callee.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use starling_gossip::NodeName;
use starling_transport::TrustDomain;

use super::attributes::{self, Attributes};
use super::proto::{Code, Kind, Request, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status};
use crate::telemetry::series::Side;
use crate::telemetry::trace::Closed;

/// Where the agent that tells is.
#[derive(Debug, Clone)]
pub struct Place {
    pub node: NodeName,
    pub trust_domain: TrustDomain,
}

/// The message that brings these spans to a collector.
pub(super) fn encode(spans: &[Box<Closed>], place: &Place) -> Vec<u8> {
    let mut services = BTreeMap::<&str, Vec<Span>>::new();
    for span in spans {
        services
            .entry(service(span))
            .or_default()
            .push(message(span, place));
    }
    let resource_spans = services
        .into_iter()
        .map(|(service, spans)| ResourceSpans {
            resource: Some(resource(service, place)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans,
            }],
            schema_url: attributes::SCHEMA_URL.to_owned(),
        })
        .collect();
    Request { resource_spans }.encode_to_vec()
}

/// For whom the agent speaks.
fn service(span: &Closed) -> &str {
    match span.series.side() {
        Side::Caller => span.series.caller(),
        Side::Callee => span.series.callee(),
    }
}

fn message(span: &Closed, place: &Place) -> Span {
    let kind = match span.series.side() {
        Side::Caller => Kind::Client,
        Side::Callee => Kind::Server,
    };
    Span {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span
            .parent
            .map(|parent| parent.bytes().to_vec())
            .unwrap_or_default(),
        name: attributes::name(span),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.began),
        end_time_unix_nano: nanos(span.ended),
        attributes: attributes::of(span, place),
        status: attributes::error(span).map(|_error| status(span)),
        flags: match span.parent {
            Some(_) => SAMPLED | KNOWS_WHERE_PARENT_IS | PARENT_IS_REMOTE,
            None => SAMPLED,
        },
    }
}

fn status(span: &Closed) -> Status {
    Status {
        message: span
            .reason
            .map(|reason| reason.advice().to_owned())
            .unwrap_or_default(),
        code: Code::Error.into(),
    }
}

fn resource(service: &str, place: &Place) -> Resource {
    let mut all = Attributes::default();
    all.text("service.name", Some(service));
    all.text("service.namespace", Some(place.trust_domain.as_str()));
    all.text("service.instance.id", Some(place.node.as_str()));
    all.text("host.name", Some(place.node.as_str()));
    Resource { attributes: all.0 }
}

fn scope() -> Scope {
    Scope {
        name: "starling".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Bits of `Span.flags`.
const SAMPLED: u32 = 1;
const KNOWS_WHERE_PARENT_IS: u32 = 1 << 8;
const PARENT_IS_REMOTE: u32 = 1 << 9;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::super::proto::{KeyValue, Value};
    use super::*;
    use crate::config::Protocol;
    use crate::grpc::Tongue;
    use crate::reason::Reason;
    use crate::telemetry::series::Series;
    use crate::telemetry::trace::{self, TRACEPARENT};

    fn closed(side: Side) -> Closed {
        let mut headers = http::HeaderMap::new();
        let trace = trace::begin(&mut headers, None, &mut fastrand::Rng::with_seed(1)).trace;
        let parent = headers[TRACEPARENT].to_str().unwrap();
        let parent = trace::SpanId::parse(&parent.as_bytes()[36..52]).unwrap();
        let began = UNIX_EPOCH + Duration::from_secs(1);
        Closed {
            trace,
            parent: Some(parent),
            id: parent,
            series: Series::new(side, "web", "orders", Protocol::Http, Arc::default()),
            caller: "web".into(),
            instance: Some("n2".parse().unwrap()),
            method: Some(Method::GET),
            path: Some("/cart".into()),
            status: Some(StatusCode::OK),
            reason: None,
            rule: None,
            bytes_in: 1,
            bytes_out: 2,
            began,
            ended: began + Duration::from_millis(5),
            resends: 0,
            tongue: Tongue::Http,
            grpc_status: None,
        }
    }

    fn place() -> Place {
        Place {
            node: "n1".parse().unwrap(),
            trust_domain: TrustDomain::parse("example.org").unwrap(),
        }
    }

    fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
        let text = |value: &KeyValue| match value.value.clone()?.value? {
            Value::Text(text) => Some(text),
            Value::Int(number) => Some(number.to_string()),
        };
        let all = attributes.iter();
        all.filter_map(|one| Some((&*one.key, text(one)?)))
            .collect()
    }

    /// What a collector reads of one span.
    fn span(closed: Closed) -> (Span, BTreeMap<String, String>) {
        let span = message(&closed, &place());
        let attributes = texts(&span.attributes);
        let attributes = attributes
            .into_iter()
            .map(|(key, text)| (key.to_owned(), text));
        let attributes = attributes.collect();
        (span, attributes)
    }

    #[test]
    fn spans_of_one_service_travel_together() {
        let spans = [Side::Caller, Side::Callee, Side::Caller].map(|side| Box::new(closed(side)));
        let request = Request::decode(&*encode(&spans, &place())).unwrap();
        let services: Vec<_> = request
            .resource_spans
            .iter()
            .map(|of| {
                let resource = texts(&of.resource.as_ref().unwrap().attributes);
                let spans = &of.scope_spans[0].spans;
                (resource["service.name"].clone(), spans.len())
            })
            .collect();
        assert_eq!(services, [("orders".to_owned(), 1), ("web".to_owned(), 2)]);
        let one = &request.resource_spans[0];
        let resource = texts(&one.resource.as_ref().unwrap().attributes);
        assert_eq!(resource["service.namespace"], "example.org");
        assert_eq!(resource["service.instance.id"], "n1");
        assert_eq!(one.scope_spans[0].scope.as_ref().unwrap().name, "starling");
    }

    #[test]
    fn a_callers_span_is_a_client() {
        let closed = Closed {
            resends: 1,
            ..closed(Side::Caller)
        };
        let (span, said) = span(closed);
        assert_eq!((span.kind(), &*span.name), (Kind::Client, "GET"));
        assert_eq!(
            (
                span.trace_id.len(),
                span.span_id.len(),
                span.parent_span_id.len()
            ),
            (16, 8, 8)
        );
        assert_eq!(
            span.end_time_unix_nano - span.start_time_unix_nano,
            5_000_000
        );
        assert_eq!(span.flags, 0x301);
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("http.request.resend_count", "1"),
            ("url.full", "https://orders.svc.example.org/cart"),
            ("server.address", "orders.svc.example.org"),
            ("server.port", "443"),
            ("network.protocol.version", "3"),
            ("peer.service", "orders"),
            ("instance", "n2"),
            ("bytes_out", "2"),
        ] {
            assert_eq!(said.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(span.status.is_none() && !said.contains_key("error.type"));
    }

    #[test]
    fn a_root_has_no_parent() {
        let closed = Closed {
            parent: None,
            ..closed(Side::Caller)
        };
        let (span, _) = span(closed);
        assert!(span.parent_span_id.is_empty() && span.flags == 1);
    }

    #[test]
    fn only_the_one_at_fault_has_an_error() {
        for (status, reason, at_caller, at_callee) in [
            (200, None, None, None),
            (404, None, Some("404"), None),
            (500, None, Some("500"), Some("500")),
            (403, Some(Reason::Denied), Some("denied"), None),
            (
                502,
                Some(Reason::AppBroken),
                Some("app-broken"),
                Some("app-broken"),
            ),
            // The answer had begun well.
            (200, Some(Reason::Timeout), Some("timeout"), Some("timeout")),
        ] {
            for (side, expected) in [(Side::Caller, at_caller), (Side::Callee, at_callee)] {
                let closed = Closed {
                    status: StatusCode::from_u16(status).ok(),
                    reason,
                    ..closed(side)
                };
                let (span, said) = span(closed);
                let told = said.get("error.type").map(String::as_str);
                assert_eq!(told, expected, "{status} {reason:?} {side:?}");
                let code = span.status.map(|status| status.code());
                assert_eq!(code, expected.map(|_| Code::Error));
                assert_eq!(
                    said.get("reason").map(String::as_str),
                    reason.map(Reason::as_str)
                );
            }
        }
    }

    #[test]
    fn grpc_speaks_of_methods_and_statuses() {
        for (status, reason, name, at_caller, at_callee) in [
            (Some(0), None, "OK", None, None),
            (Some(5), None, "NOT_FOUND", Some("NOT_FOUND"), None),
            (
                Some(13),
                None,
                "INTERNAL",
                Some("INTERNAL"),
                Some("INTERNAL"),
            ),
            (
                None,
                Some(Reason::Denied),
                "PERMISSION_DENIED",
                Some("denied"),
                None,
            ),
        ] {
            for (side, expected) in [(Side::Caller, at_caller), (Side::Callee, at_callee)] {
                let closed = Closed {
                    tongue: Tongue::Grpc,
                    path: Some("/shop.Orders/Get".into()),
                    grpc_status: status,
                    reason,
                    ..closed(side)
                };
                let (span, said) = span(closed);
                assert_eq!(span.name, "shop.Orders/Get");
                assert_eq!(said["rpc.method"], "shop.Orders/Get");
                assert_eq!(said["rpc.response.status_code"], name);
                let told = said.get("error.type").map(String::as_str);
                assert_eq!(told, expected, "{name} {side:?}");
            }
        }
    }

    #[test]
    fn strange_methods_do_not_name_spans() {
        let closed = Closed {
            method: Method::from_bytes(b"STRANGE").ok(),
            ..closed(Side::Callee)
        };
        let (span, said) = span(closed);
        assert_eq!(span.name, "HTTP");
        assert_eq!(said["http.request.method"], "_OTHER");
        assert_eq!(said["http.request.method_original"], "STRANGE");
    }
}
