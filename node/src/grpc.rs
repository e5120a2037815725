//! Errors of the mesh in the language of gRPC: a call that fails is told so by a status, not by an HTTP error that the
//! caller's library has to guess from.
//!
//! What is a gRPC call shows in its content type, whatever the service was declared as. `docs/protocols.md` has the
//! table of statuses; a test keeps it equal to this.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, boxed};
use crate::reason::{self, Reason};

/// How a caller wants to be told that its call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    Http,
    Grpc,
}

impl Tongue {
    /// That of the request with these fields.
    pub fn of(request: &HeaderMap) -> Self {
        let kind = request
            .get(CONTENT_TYPE)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let name = kind.len().min(GRPC.len());
        let is_grpc = kind[..name].eq_ignore_ascii_case(GRPC)
            && matches!(kind.get(GRPC.len()), None | Some(b'+' | b';' | b' '));
        if is_grpc { Self::Grpc } else { Self::Http }
    }

    /// The answer to a call of `service` that failed for `reason`.
    pub fn failure(self, reason: Reason, service: &str) -> Response<Bytes> {
        let mut response = reason.response(service);
        if self == Self::Http {
            return response;
        }
        let message = message(response.body());
        *response.body_mut() = Bytes::new();
        *response.status_mut() = StatusCode::OK;
        let fields = response.headers_mut();
        fields.clear();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(reason::HEADER, HeaderValue::from_static(reason.as_str()));
        fields.insert(STATUS, status(reason).into());
        fields.insert(MESSAGE, message);
        response
    }

    /// The body of an answer on its way to the caller, whose break is said in this language too.
    pub fn ending<B>(self, body: B, broken: Reason) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<crate::body::BoxError>,
    {
        match self {
            Self::Http => boxed(body),
            Self::Grpc => boxed(Ending {
                body: Some(body),
                broken,
            }),
        }
    }
}

/// The status that an answer's fields or trailers tell, if they do.
pub fn told_status(fields: &HeaderMap) -> Option<u16> {
    fields.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The name of a status; whoever reads a number that has none takes it for unknown.
pub fn name(status: u16) -> &'static str {
    NAMES.get(usize::from(status)).unwrap_or(&"UNKNOWN")
}

/// Whether a status tells of the server's fault, not of its caller's.
pub fn is_servers_fault(status: u16) -> bool {
    [
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    ]
    .contains(&name(status))
}

/// The status of gRPC for a reason of ours: by its HTTP status, but where gRPC has a better word.
pub fn status(reason: Reason) -> u16 {
    if reason == Reason::Overloaded {
        return RESOURCE_EXHAUSTED;
    }
    let http = reason.status().as_u16();
    let found = STATUSES.iter().find(|(of, _)| *of == http);
    found.map_or(UNAVAILABLE, |(_, status)| *status)
}

/// Percent-encoded as gRPC wants it.
fn message(text: &[u8]) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.trim_ascii_end() {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("it is plain ASCII")
}

/// A body that ends with a status where it would break.
struct Ending<B> {
    /// Gone once it broke.
    body: Option<B>,
    broken: Reason,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Ending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(match polled {
            Some(Err(_)) => {
                self.body = None;
                Some(Ok(Frame::trailers(trailers(self.broken))))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

fn trailers(reason: Reason) -> HeaderMap {
    let text = format!("starling: {reason}: {}", reason.advice());
    HeaderMap::from_iter([
        (STATUS, status(reason).into()),
        (MESSAGE, message(text.as_bytes())),
        (reason::HEADER, HeaderValue::from_static(reason.as_str())),
    ])
}

const GRPC: &[u8] = b"application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// By number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const RESOURCE_EXHAUSTED: u16 = 8;
const UNAVAILABLE: u16 = 14;

/// HTTP status and gRPC status; every other is UNAVAILABLE, which callers may try again.
const STATUSES: &[(u16, u16)] = &[
    (400, 13),
    (403, 7),
    (408, 4),
    (413, RESOURCE_EXHAUSTED),
    (429, RESOURCE_EXHAUSTED),
    (431, RESOURCE_EXHAUSTED),
    (499, 1),
    (500, 13),
    (501, 12),
    (504, 4),
    (508, 13),
];

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const PAGE: &str = include_str!("../../docs/protocols.md");

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (kind, tongue) in [
            ("application/grpc", Tongue::Grpc),
            ("application/grpc+proto", Tongue::Grpc),
            ("Application/gRPC; x=y", Tongue::Grpc),
            // Browsers speak it over HTTP, and read HTTP's statuses.
            ("application/grpc-web", Tongue::Http),
            ("application/grpcx", Tongue::Http),
            ("application/json", Tongue::Http),
            ("", Tongue::Http),
        ] {
            let fields = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(Tongue::of(&fields), tongue, "{kind}");
        }
        assert_eq!(Tongue::of(&HeaderMap::new()), Tongue::Http);
    }

    #[test]
    fn a_failure_is_a_status_without_a_body() {
        let told = Tongue::Grpc.failure(Reason::Denied, "orders");
        assert_eq!(told.status(), 200);
        assert_eq!(told.headers()[STATUS], "7");
        assert_eq!(told.headers()[reason::HEADER], "denied");
        let message = told.headers()[MESSAGE].to_str().unwrap();
        assert!(
            message.starts_with("starling: call to orders failed: denied: "),
            "{message}"
        );
        assert!(told.body().is_empty() && !told.headers().contains_key("content-length"));
        let told = Tongue::Http.failure(Reason::Denied, "orders");
        assert_eq!(
            (told.status().as_u16(), told.headers().contains_key(STATUS)),
            (403, false)
        );
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(message("50 % of\nü\n".as_bytes()), "50 %25 of%0A%C3%BC");
    }

    #[test]
    fn the_page_has_the_same_statuses() {
        let rows = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("| `grpc-status: "));
        let mut seen = 0;
        for row in rows {
            let (number, rest) = row.split_once('`').unwrap();
            let reasons = rest.split('|').nth(2).unwrap();
            for name in reasons.split('`').skip(1).step_by(2) {
                let reason = Reason::parse(name.as_bytes()).unwrap_or_else(|| panic!("{name}"));
                assert_eq!(status(reason).to_string(), number, "{name}");
                seen += 1;
            }
        }
        assert!(seen >= 12, "found only {seen}");
    }

    #[tokio::test]
    async fn a_broken_answer_ends_with_a_status() {
        let frames = || {
            let data = Ok(Frame::data(Bytes::from_static(b"half a message")));
            futures_util::stream::iter([data, Err("broken")])
        };
        let body = Tongue::Grpc.ending(StreamBody::new(frames()), Reason::UpstreamReset);
        let read = body.collect().await.unwrap();
        let trailers = read.trailers().unwrap();
        assert_eq!(trailers[STATUS], "14");
        assert_eq!(trailers[reason::HEADER], "upstream-reset");
        assert_eq!(read.to_bytes(), "half a message");
        let body = Tongue::Http.ending(StreamBody::new(frames()), Reason::UpstreamReset);
        assert!(body.collect().await.is_err());
        let whole = http_body_util::Full::new(Bytes::from_static(b"x"));
        let whole = Tongue::Grpc.ending(whole, Reason::UpstreamReset);
        assert!(whole.collect().await.unwrap().trailers().is_none());
    }
}
