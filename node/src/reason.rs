//! Why the mesh itself failed a call: one closed list, shared by responses, logs and metrics.
//!
//! What an app answers, also a 503, is never one of these. `docs/errors.md` is the operator's page of this list; a
//! test keeps the two equal.

use std::fmt;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// The response header that tells a mesh error from an app's answer.
pub const HEADER: HeaderName = HeaderName::from_static("starling-error");

/// Why a call failed in the mesh. The order is that of the page: caller's agent, the way, callee's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    BadRequest,
    HeaderTooLarge,
    BodyTooLarge,
    SlowRequest,
    NotSupported,
    Loop,
    Fault,
    UnknownService,
    WrongProtocol,
    NoInstance,
    NoIdentity,
    Overloaded,
    RateLimited,
    Draining,
    ConnectFailed,
    WrongIdentity,
    UpstreamReset,
    Timeout,
    Denied,
    AmbiguousPath,
    WrongHost,
    WrongService,
    AppUnreachable,
    AppBroken,
    CallerGone,
    Idle,
    Internal,
}

impl Reason {
    /// Every reason, in the order of the page.
    pub const ALL: [Self; 27] = [
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::SlowRequest,
        Self::NotSupported,
        Self::Loop,
        Self::Fault,
        Self::UnknownService,
        Self::WrongProtocol,
        Self::NoInstance,
        Self::NoIdentity,
        Self::Overloaded,
        Self::RateLimited,
        Self::Draining,
        Self::ConnectFailed,
        Self::WrongIdentity,
        Self::UpstreamReset,
        Self::Timeout,
        Self::Denied,
        Self::AmbiguousPath,
        Self::WrongHost,
        Self::WrongService,
        Self::AppUnreachable,
        Self::AppBroken,
        Self::CallerGone,
        Self::Idle,
        Self::Internal,
    ];

    /// The name in `starling-error`, in logs and in metric labels.
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The status of the response that carries it.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).expect("the list holds valid codes")
    }

    /// What to look at, in one line for whoever reads the response.
    pub const fn advice(self) -> &'static str {
        self.facts().2
    }

    /// The reason that a peer's `starling-error` names, if it is one of ours.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str().as_bytes() == name)
    }

    /// Whether the app at the other end cannot have seen any of the request, so that it may be sent elsewhere
    /// whatever its method. Reasons that do not tell are `false`.
    pub const fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::NoInstance
                | Self::NoIdentity
                | Self::Overloaded
                | Self::Draining
                | Self::ConnectFailed
                | Self::WrongIdentity
                | Self::WrongService
                | Self::AppUnreachable
        )
    }

    /// The response an app gets: plain text that names the service (a name from the configuration or the catalogue)
    /// and says what to look at.
    pub fn response(self, service: &str) -> Response<Bytes> {
        let text = format!(
            "starling: call to {service} failed: {self}: {}\n",
            self.advice()
        );
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = self.status();
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(HEADER, HeaderValue::from_static(self.as_str()));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        response
    }

    /// Name, status and advice: one line of the page each.
    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => (
                "bad-request",
                400,
                "the request is malformed or ambiguous; look at what the caller sends",
            ),
            Self::HeaderTooLarge => (
                "header-too-large",
                431,
                "the header fields exceed limits.header_bytes; look for a growing cookie",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                413,
                "the body exceeds what the route of this service allows; run `starling routes`",
            ),
            Self::SlowRequest => (
                "slow-request",
                408,
                "the head of the request did not arrive in time; look at the caller",
            ),
            Self::NotSupported => (
                "not-supported",
                501,
                "the mesh does not carry this kind of request; use a tcp upstream for it",
            ),
            Self::Loop => (
                "loop",
                508,
                "the request went through the mesh too often; an app or port points back at an upstream",
            ),
            Self::Fault => (
                "fault",
                503,
                "a rule of the route fails some calls on purpose; run `starling routes`",
            ),
            Self::UnknownService => (
                "unknown-service",
                404,
                "no node offers a service of this name; run `starling services`",
            ),
            Self::WrongProtocol => (
                "wrong-protocol",
                502,
                "caller and callee declare different protocols for this service; compare their TOML",
            ),
            Self::NoInstance => (
                "no-instance",
                503,
                "no instance became usable in time; run `starling services` on the caller's host",
            ),
            Self::NoIdentity => (
                "no-identity",
                503,
                "this node has no valid certificate for the caller; run `starling status`",
            ),
            Self::Overloaded => (
                "overloaded",
                503,
                "a stated limit is reached; look at [limits], `limits` of upstream and service, and starling_requests_total",
            ),
            Self::RateLimited => (
                "rate-limited",
                429,
                "the caller sends faster than a rate allows; wait for Retry-After, or look at `rate` in the TOML",
            ),
            Self::Draining => ("draining", 503, "the agent is shutting down; try again"),
            Self::ConnectFailed => (
                "connect-failed",
                502,
                "no instance's agent could be reached; check UDP to their mesh port",
            ),
            Self::WrongIdentity => (
                "wrong-identity",
                502,
                "the peer proved another identity than its service; look at that host's certificates",
            ),
            Self::UpstreamReset => (
                "upstream-reset",
                502,
                "the connection to the instance's agent broke; look at its access log and the network",
            ),
            Self::Timeout => (
                "timeout",
                504,
                "no answer within the time allowed; look at the app's latency",
            ),
            Self::Denied => (
                "denied",
                403,
                "the callee does not allow this call; run `starling explain CALLER CALLEE METHOD PATH`",
            ),
            Self::AmbiguousPath => (
                "ambiguous-path",
                400,
                "rules look at paths here, and servers read this one in more than one way; see docs/policy.md",
            ),
            Self::WrongHost => (
                "wrong-host",
                403,
                "`hosts` of the upstream or the service does not list the host that the request names, or a web page sent it; look at Host and Origin",
            ),
            Self::WrongService => (
                "wrong-service",
                403,
                "the request names another service than its connection was made to; look at the caller",
            ),
            Self::AppUnreachable => (
                "app-unreachable",
                502,
                "the app refuses connections on its port; look whether it runs on its host",
            ),
            Self::AppBroken => (
                "app-broken",
                502,
                "the app broke off or sent what is not HTTP; look at the app's log",
            ),
            Self::CallerGone => (
                "caller-gone",
                499,
                "the caller left before the end; look at its timeout",
            ),
            Self::Idle => (
                "idle",
                408,
                "nothing was carried for limits.idle; send keep-alives or raise it",
            ),
            Self::Internal => (
                "internal",
                500,
                "a fault of the agent; look at its log and report it",
            ),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PAGE: &str = include_str!("../../docs/errors.md");

    /// Rows of the page: reason → (status, all its words).
    fn documented() -> BTreeMap<&'static str, (u16, &'static str)> {
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().trim_end_matches('`');
            (name, (cells.next().unwrap().parse().unwrap(), row))
        })
        .collect()
    }

    #[test]
    fn every_reason_is_documented_and_nothing_else() {
        let coded: BTreeMap<_, _> = Reason::ALL
            .iter()
            .map(|r| (r.as_str(), r.status().as_u16()))
            .collect();
        let written: BTreeMap<_, _> = documented()
            .into_iter()
            .map(|(name, (status, _))| (name, status))
            .collect();
        assert_eq!(coded, written);
    }

    #[test]
    fn names_are_unique_kebab_case_and_found_again() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(seen.insert(name), "{name} twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{name}"
            );
            assert_eq!(Reason::parse(name.as_bytes()), Some(reason));
        }
        assert_eq!(Reason::parse(b"Denied"), None);
        assert_eq!(Reason::parse(b""), None);
    }

    #[test]
    fn the_list_holds_every_variant() {
        // A variant missing from ALL would leave a gap between discriminants and length.
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        assert_eq!(
            Reason::Internal as usize + 1,
            Reason::ALL.len(),
            "Internal stays the last"
        );
    }

    #[test]
    fn a_response_says_who_failed_why_and_what_to_look_at() {
        let response = Reason::NoInstance.response("orders");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[HEADER], "no-instance");
        assert_eq!(
            response.headers()[CONTENT_LENGTH],
            response.body().len().to_string()
        );
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(
            text.starts_with("starling: call to orders failed: no-instance: "),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
