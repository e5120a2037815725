//! What one try's outcome is worth: whether the call may be tried again, and what it says of the instance. Pure.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};

use super::exchange::Failure;
use crate::config::{Condition, Conditions, Retry};
use crate::headers;
use crate::reason::{self, Reason};

/// One try's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What the mesh failed it for.
    pub(super) reason: Option<Reason>,
    /// The conditions of a retry that it meets.
    met: Conditions,
    /// The app cannot have seen the request.
    pub(super) is_unsent: bool,
    /// The app says that it failed.
    pub(super) is_error: bool,
    /// Nobody gains from another try.
    pub(super) is_final: bool,
    /// For how long the instance wants fewer calls.
    pub(super) spare: Option<Duration>,
}

impl Verdict {
    /// Of a try that brought no response.
    pub(super) fn failed(failure: &Failure) -> Self {
        let condition = if failure.may_repeat {
            Condition::ConnectFailure
        } else {
            Condition::Reset
        };
        Self {
            reason: Some(failure.reason),
            met: [condition].into_iter().collect(),
            is_unsent: failure.may_repeat,
            is_error: false,
            is_final: false,
            spare: None,
        }
    }

    /// Of a connection that stands.
    pub(super) fn good() -> Self {
        Self::answered(StatusCode::OK, &HeaderMap::new())
    }

    /// Of a call whose time is over.
    pub(super) fn late() -> Self {
        Self {
            is_final: true,
            ..Self::failed(&Failure {
                reason: Reason::Timeout,
                may_repeat: false,
            })
        }
    }

    /// Of a response, the app's or that of the callee's agent.
    pub(super) fn of<B>(response: &Response<B>) -> Self {
        let fields = response.headers();
        let reason = fields
            .get(reason::HEADER)
            .and_then(|name| Reason::parse(name.as_bytes()));
        match reason {
            Some(reason) => Self::refused(reason, fields),
            None => Self::answered(response.status(), fields),
        }
    }

    fn refused(reason: Reason, fields: &HeaderMap) -> Self {
        let met = match reason {
            _ if reason.is_unsent() => Some(Condition::ConnectFailure),
            Reason::AppBroken | Reason::UpstreamReset => Some(Condition::Reset),
            _ => None,
        };
        Self {
            reason: Some(reason),
            met: met.into_iter().collect(),
            is_unsent: reason.is_unsent(),
            is_error: false,
            is_final: false,
            spare: (reason == Reason::Overloaded).then(|| retry_after(fields).unwrap_or(SPARE)),
        }
    }

    fn answered(status: StatusCode, fields: &HeaderMap) -> Self {
        let grpc = fields.get("grpc-status").map(|code| code.as_bytes());
        let by_grpc = grpc.and_then(grpc_condition);
        let by_status = [
            (status.is_server_error(), Condition::Status5xx),
            (
                matches!(status.as_u16(), 502..=504),
                Condition::GatewayError,
            ),
            (status == StatusCode::CONFLICT, Condition::Retriable4xx),
        ];
        let by_status = by_status.into_iter().filter(|(is_met, _)| *is_met);
        let is_busy = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let is_exhausted = by_grpc == Some(Condition::GrpcResourceExhausted);
        Self {
            reason: None,
            met: by_status.map(|(_, one)| one).chain(by_grpc).collect(),
            is_unsent: false,
            is_error: status.is_server_error() || grpc.is_some_and(is_grpc_error),
            is_final: fields.get(headers::RETRY).is_some_and(|word| word == "no"),
            spare: match (is_busy, is_exhausted) {
                (true, _) => retry_after(fields),
                (_, true) => Some(SPARE),
                _ => None,
            },
        }
    }

    /// Whether the call may be tried again by what the operator allows. `tries` counts those that an app may have seen,
    /// this one included.
    pub(super) fn may_repeat(&self, retry: &Retry, method: &Method, tries: u32) -> bool {
        if self.is_final || !retry.on.meets(self.met) {
            return false;
        }
        self.is_unsent
            || (tries < retry.attempts && (retry.allows(method) || retry.on.meets_grpc(self.met)))
    }

    /// Whether another try adds to the load of the service, so that the budget has a say.
    pub(super) fn is_load(&self) -> bool {
        !self.is_unsent || self.reason == Some(Reason::Overloaded)
    }

    /// Whether it is a failure that somebody wanted repeated.
    pub(super) fn is_repeatable(&self, retry: &Retry) -> bool {
        retry.on.meets(self.met)
    }

    /// The cause of a retry, for metrics: a reason or a kind of answer.
    pub(super) fn cause(&self) -> &'static str {
        match self.reason {
            Some(reason) => reason.as_str(),
            None if self.met.has(Condition::Status5xx) => "5xx",
            None if self.met.has(Condition::Retriable4xx) => "4xx",
            None => "grpc",
        }
    }
}

fn grpc_condition(code: &[u8]) -> Option<Condition> {
    match code {
        b"1" => Some(Condition::GrpcCancelled),
        b"4" => Some(Condition::GrpcDeadlineExceeded),
        b"8" => Some(Condition::GrpcResourceExhausted),
        b"13" => Some(Condition::GrpcInternal),
        b"14" => Some(Condition::GrpcUnavailable),
        _ => None,
    }
}

/// Codes by which a server says that it is the one that failed: unknown, internal, unavailable, data loss.
fn is_grpc_error(code: &[u8]) -> bool {
    matches!(code, b"2" | b"13" | b"14" | b"15")
}

/// Seconds; a date would need a clock that both agree on.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let seconds = fields.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How long an instance is spared that did not say for how long.
const SPARE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        response
    }

    fn retry(on: &[Condition], methods: &[Method]) -> Retry {
        Retry {
            attempts: 3,
            on: on.iter().copied().collect(),
            methods: methods.to_vec(),
            ..Retry::default()
        }
    }

    #[test]
    fn only_what_is_safe_or_listed_is_repeated() {
        let check = |retry: &Retry, verdict: Verdict, method: Method, expected: bool| {
            assert_eq!(
                verdict.may_repeat(retry, &method, 1),
                expected,
                "{verdict:?} {method}"
            );
        };
        let usual = Retry::default();
        let failed = |may_repeat| {
            Verdict::failed(&Failure {
                reason: Reason::ConnectFailed,
                may_repeat,
            })
        };
        check(&usual, failed(true), Method::POST, true);
        check(&usual, failed(false), Method::GET, true);
        check(&usual, failed(false), Method::POST, false);
        check(&usual, Verdict::late(), Method::GET, false);
        let answer = |status, fields: &[_]| Verdict::of(&response(status, fields));
        check(&usual, answer(503, &[]), Method::GET, false);
        check(
            &usual,
            answer(503, &[("starling-error", "draining")]),
            Method::POST,
            true,
        );
        check(
            &usual,
            answer(403, &[("starling-error", "denied")]),
            Method::GET,
            false,
        );
        let on_5xx = retry(&[Condition::Status5xx], &[]);
        check(&on_5xx, answer(500, &[]), Method::GET, true);
        check(&on_5xx, answer(500, &[]), Method::POST, false);
        check(&on_5xx, answer(404, &[]), Method::GET, false);
        check(
            &on_5xx,
            answer(500, &[("starling-retry", "no")]),
            Method::GET,
            false,
        );
        check(&on_5xx, failed(true), Method::GET, false);
        let posts = retry(
            &[Condition::GatewayError, Condition::Retriable4xx],
            &[Method::POST],
        );
        check(&posts, answer(502, &[]), Method::POST, true);
        check(&posts, answer(502, &[]), Method::GET, false);
        check(&posts, answer(500, &[]), Method::POST, false);
        check(&posts, answer(409, &[]), Method::POST, true);
        // Whoever names a code of gRPC means gRPC's one method.
        let grpc = retry(&[Condition::GrpcUnavailable], &[]);
        check(
            &grpc,
            answer(200, &[("grpc-status", "14")]),
            Method::POST,
            true,
        );
        check(
            &grpc,
            answer(200, &[("grpc-status", "13")]),
            Method::POST,
            false,
        );
        check(
            &grpc,
            answer(200, &[("grpc-status", "0")]),
            Method::POST,
            false,
        );
    }

    #[test]
    fn tries_have_an_end() {
        let on_5xx = retry(&[Condition::Status5xx], &[]);
        let verdict = Verdict::of(&response(500, &[]));
        let tries: Vec<_> = (1..5)
            .filter(|tries| verdict.may_repeat(&on_5xx, &Method::GET, *tries))
            .collect();
        assert_eq!(tries, [1, 2]);
    }

    #[test]
    fn an_instance_says_for_how_long_it_is_to_be_spared() {
        let check = |status, fields: &[_], seconds: Option<u64>| {
            let spare = Verdict::of(&response(status, fields)).spare;
            assert_eq!(
                spare,
                seconds.map(Duration::from_secs),
                "{status} {fields:?}"
            );
        };
        check(503, &[("retry-after", "7")], Some(7));
        check(429, &[("retry-after", "7")], Some(7));
        check(503, &[], None);
        check(
            503,
            &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")],
            None,
        );
        check(500, &[("retry-after", "7")], None);
        check(200, &[("grpc-status", "8")], Some(1));
        check(503, &[("starling-error", "overloaded")], Some(1));
        check(
            503,
            &[("starling-error", "overloaded"), ("retry-after", "2")],
            Some(2),
        );
        check(503, &[("starling-error", "draining")], None);
    }

    #[test]
    fn causes_are_of_a_closed_list() {
        let cause = |status, fields: &[_]| Verdict::of(&response(status, fields)).cause();
        assert_eq!(cause(500, &[]), "5xx");
        assert_eq!(cause(409, &[]), "4xx");
        assert_eq!(cause(200, &[("grpc-status", "14")]), "grpc");
        assert_eq!(
            cause(502, &[("starling-error", "app-broken")]),
            "app-broken"
        );
    }
}
