//! What a span says of its call, in the words of OpenTelemetry's conventions for HTTP and RPC; what those have no word for
//! is said in the mesh's own, without dots, as in the access log.

use http::Method;

use super::batch::Place;
use super::proto::{AnyValue, KeyValue, Value};
use crate::grpc::{self, Tongue};
use crate::telemetry::series::Side;
use crate::telemetry::trace::Closed;

/// The conventions whose words these are.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";

/// How the span is called: of few values, as paths are not.
pub(super) fn name(span: &Closed) -> String {
    match (rpc_method(span), method(span)) {
        (Some(rpc), _) => rpc.to_owned(),
        (None, Some(OTHER) | None) => "HTTP".to_owned(),
        (None, Some(method)) => method.to_owned(),
    }
}

/// What went wrong, if it did for the one whose span it is: a server did well when it told a caller of the caller's
/// mistake.
pub(super) fn error(span: &Closed) -> Option<String> {
    let is_client = span.series.side() == Side::Caller;
    let told = || span.reason.map(|reason| reason.as_str().to_owned());
    if let Some(code) = grpc_code(span) {
        let is_error = if is_client {
            code != 0
        } else {
            grpc::is_servers_fault(code)
        };
        return is_error.then(|| told().unwrap_or_else(|| grpc::name(code).to_owned()));
    }
    let status = span.reason.map(|reason| reason.status()).or(span.status)?;
    let is_error = status.is_server_error() || (is_client && status.is_client_error());
    is_error.then(|| told().unwrap_or_else(|| status.as_u16().to_string()))
}

pub(super) fn of(span: &Closed, place: &Place) -> Vec<KeyValue> {
    let series = &*span.series;
    let server = format!("{}.svc.{}", series.callee(), place.trust_domain);
    let path = span.path.as_deref();
    let mut all = Attributes::default();
    all.text("http.request.method", method(span));
    let original = span.method.as_ref().map(Method::as_str);
    all.text(
        "http.request.method_original",
        original.filter(|_| method(span) == Some(OTHER)),
    );
    let status = span.status.map(|status| i64::from(status.as_u16()));
    all.int("http.response.status_code", status);
    if let Some(rpc) = rpc_method(span) {
        all.text("rpc.system.name", Some("grpc"));
        all.text("rpc.method", Some(rpc));
        all.text("rpc.response.status_code", grpc_code(span).map(grpc::name));
    }
    let is_client = series.side() == Side::Caller;
    if is_client {
        let full = path.map(|path| format!("https://{server}{path}"));
        all.text("url.full", full.as_deref());
        all.int("server.port", Some(PORT));
        let is_remote = span
            .instance
            .as_ref()
            .is_some_and(|node| *node != place.node);
        all.text("network.protocol.version", is_remote.then_some("3"));
        all.int(
            "http.request.resend_count",
            (span.resends > 0).then_some(i64::from(span.resends)),
        );
        all.text("peer.service", Some(series.callee()));
    } else {
        all.text("url.scheme", Some("https"));
        all.text("peer.service", Some(&span.caller));
    }
    all.text("url.path", path);
    all.text("server.address", Some(&server));
    all.text("error.type", error(span).as_deref());
    all.text("caller", Some(&span.caller));
    all.text("callee", Some(series.callee()));
    all.text("instance", span.instance.as_ref().map(|node| node.as_str()));
    all.text("reason", span.reason.map(|reason| reason.as_str()));
    all.text("rule", span.rule.as_deref());
    all.int("bytes_in", i64::try_from(span.bytes_in).ok());
    all.int("bytes_out", i64::try_from(span.bytes_out).ok());
    all.0
}

/// Attributes whose value may be missing.
#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        self.add(key, value.map(|text| Value::Text(text.to_owned())));
    }

    fn int(&mut self, key: &str, value: Option<i64>) {
        self.add(key, value.map(Value::Int));
    }

    fn add(&mut self, key: &str, value: Option<Value>) {
        self.0.extend(value.map(|value| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        }));
    }
}

/// A method of the standards; any other word would make names of spans without end.
fn method(span: &Closed) -> Option<&str> {
    let method = span.method.as_ref()?;
    let is_known = matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    );
    Some(if is_known { method.as_str() } else { OTHER })
}

/// `package.Service/Method` of a call of gRPC.
fn rpc_method(span: &Closed) -> Option<&str> {
    if span.tongue != Tongue::Grpc {
        return None;
    }
    span.path.as_deref()?.strip_prefix('/')
}

/// As told by the app or, where the mesh failed the call, by the mesh.
fn grpc_code(span: &Closed) -> Option<u16> {
    if span.tongue != Tongue::Grpc {
        return None;
    }
    span.reason.map(grpc::status).or(span.grpc_status)
}

const OTHER: &str = "_OTHER";

/// A service of the mesh has no port; conventions want one, and this is that of the URI.
const PORT: i64 = 443;
