//! One message to a collector, by OTLP/HTTP or OTLP/gRPC, and what its answer means.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TE, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;

use super::proto;
use crate::config::{Collector as Declared, ExportProtocol};
use crate::grpc;
use crate::telemetry::trace;

/// Where spans go.
#[derive(Debug)]
pub(super) struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    protocol: ExportProtocol,
}

/// What a collector took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Spans of the message that it did not want.
    pub(super) rejected: u64,
    /// What it said about them, or about anything else.
    pub(super) message: String,
}

/// Why a message did not arrive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the collector cannot be reached: {0}")]
    Unreachable(String),
    /// It asks to be spared for a while.
    #[error("the collector has too much to do: {0}")]
    Busy(String, Option<Duration>),
    /// Another try would end in the same way.
    #[error("the collector refuses the spans: {0}")]
    Refused(String),
}

impl Collector {
    pub(super) fn new(declared: &Declared) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
        connector.set_nodelay(true);
        let is_grpc = declared.protocol == ExportProtocol::Grpc;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(1)
            .http2_only(is_grpc)
            .build(connector);
        Self {
            client,
            uri: declared.uri(),
            protocol: declared.protocol,
        }
    }

    /// Sends a message once. Takes no longer than [`SEND_TIME_MAX`].
    pub(super) async fn send(&self, message: &Bytes) -> Result<Taken, Failure> {
        let sent = tokio::time::timeout(SEND_TIME_MAX, self.exchange(message));
        sent.await.unwrap_or_else(|_elapsed| {
            let why = format!("no answer within {SEND_TIME_MAX:?}");
            Err(Failure::Unreachable(why))
        })
    }

    async fn exchange(&self, message: &Bytes) -> Result<Taken, Failure> {
        let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
        let asked = self.client.request(self.request(message)).await;
        let response = asked.map_err(|error| match std::error::Error::source(&error) {
            Some(source) => unreachable(&format!("{error}: {source}")),
            None => unreachable(&error),
        })?;
        let (head, body) = response.into_parts();
        let body: Limited<Incoming> = Limited::new(body, ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| unreachable(&error))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let answer = Response::from_parts(head, body.to_bytes());
        match self.protocol {
            ExportProtocol::Http => http_outcome(&answer),
            ExportProtocol::Grpc => grpc_outcome(&answer, &trailers),
        }
    }

    fn request(&self, message: &Bytes) -> Request<Full<Bytes>> {
        let (kind, body) = match self.protocol {
            ExportProtocol::Http => ("application/x-protobuf", message.clone()),
            ExportProtocol::Grpc => ("application/grpc", framed(message)),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let agent = concat!("starling/", env!("CARGO_PKG_VERSION"));
        fields.insert(USER_AGENT, HeaderValue::from_static(agent));
        if self.protocol == ExportProtocol::Grpc {
            fields.insert(TE, HeaderValue::from_static("trailers"));
        }
        // The way to the collector may lead through the mesh: telling of telling would never end.
        trace::silence(fields);
        request
    }
}

/// A message of gRPC: not compressed, of this length.
fn framed(message: &Bytes) -> Bytes {
    let mut framed = Vec::with_capacity(FRAME_HEAD_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(message);
    framed.into()
}

fn http_outcome(answer: &Response<Bytes>) -> Result<Taken, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(taken(answer.body()));
    }
    let said = format!("it answers {status}");
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Failure::Busy(said, retry_after(answer.headers())),
        _ => Failure::Refused(said),
    })
}

fn grpc_outcome(answer: &Response<Bytes>, trailers: &HeaderMap) -> Result<Taken, Failure> {
    let told = grpc::told_status(trailers).or_else(|| grpc::told_status(answer.headers()));
    let Some(status) = told else {
        let said = format!("it answers {} and does not speak gRPC", answer.status());
        return Err(Failure::Refused(said));
    };
    let name = grpc::name(status);
    match name {
        "OK" => Ok(taken(
            answer.body().get(FRAME_HEAD_BYTES..).unwrap_or_default(),
        )),
        "CANCELLED" | "DEADLINE_EXCEEDED" | "RESOURCE_EXHAUSTED" | "ABORTED" | "OUT_OF_RANGE"
        | "UNAVAILABLE" | "DATA_LOSS" => Err(Failure::Busy(format!("it answers {name}"), None)),
        _ => Err(Failure::Refused(format!("it answers {name}"))),
    }
}

/// What an answer says of the spans. One that cannot be read is a success all the same.
fn taken(body: &[u8]) -> Taken {
    let partial = proto::Response::decode(body).unwrap_or_default();
    let partial = partial.partial_success.unwrap_or_default();
    Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        message: partial.error_message,
    }
}

/// Seconds; the other form, a date, needs clocks that agree.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let seconds = fields.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Flag and length before each message of gRPC.
const FRAME_HEAD_BYTES: usize = 5;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// A collector on the same host answers in milliseconds, one behind the mesh in tenths of a second. Meanwhile the queue
/// takes in what comes.
pub(super) const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// Longer than the second between messages, so that a connection lasts.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// What a collector may say: a count and a sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: &[u8],
    ) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::copy_from_slice(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(*name, value);
        }
        answer
    }

    fn partly() -> Vec<u8> {
        let partial_success = Some(proto::PartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        });
        proto::Response { partial_success }.encode_to_vec()
    }

    #[test]
    fn http_says_what_to_do_by_its_status() {
        let outcome = |status, fields: &[_]| http_outcome(&answer(status, fields, &[]));
        assert_eq!(outcome(200, &[]), Ok(Taken::default()));
        for (status, is_busy) in [
            (400, false),
            (404, false),
            (429, true),
            (500, false),
            (503, true),
        ] {
            let outcome = outcome(status, &[]).unwrap_err();
            assert_eq!(
                matches!(outcome, Failure::Busy(_, None)),
                is_busy,
                "{status}"
            );
        }
        let Err(Failure::Busy(_, after)) = outcome(503, &[("retry-after", "7")]) else {
            panic!("it is busy");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn grpc_says_it_by_its_own() {
        let in_head = |status| {
            grpc_outcome(
                &answer(200, &[("grpc-status", status)], &[]),
                &HeaderMap::new(),
            )
        };
        assert_eq!(in_head("0"), Ok(Taken::default()));
        assert!(matches!(in_head("14"), Err(Failure::Busy(..))));
        assert!(matches!(in_head("12"), Err(Failure::Refused(_))));
        assert!(matches!(in_head("99"), Err(Failure::Refused(_))));
        let no_grpc = grpc_outcome(&answer(404, &[], b"<html>"), &HeaderMap::new());
        assert!(matches!(no_grpc, Err(Failure::Refused(why)) if why.contains("gRPC")));
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]);
        let message = framed(&partly().into());
        let rejected = grpc_outcome(&answer(200, &[], &message), &trailers).unwrap();
        assert_eq!((rejected.rejected, &*rejected.message), (3, "too old"));
    }

    #[test]
    fn what_a_collector_says_is_read_or_left() {
        assert_eq!(taken(&partly()).rejected, 3);
        for bytes in [&b""[..], b"{}", &[0xff; 100], b"\x0a\xff\xff\xff\xff\x0f"] {
            assert_eq!(taken(bytes), Taken::default(), "{bytes:?}");
        }
    }
}
