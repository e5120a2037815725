//! `retry`: which failures are repeated.

use std::time::Duration;

use http::Method;
use toml::Spanned;

use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::config::raw::calls as raw;

/// Which failures are repeated, on another instance if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all of a call that an app may have seen, the first included.
    pub attempts: u32,
    pub on: Conditions,
    /// Methods that may be repeated though the app may have seen the request. Empty: the idempotent ones.
    pub methods: Vec<Method>,
    pub budget: Budget,
    /// Pause before the second try; it doubles, and is shortened at random.
    pub backoff: Duration,
    /// Whether somebody wrote the table: then bodies of up to 64 KiB are kept to be sent again.
    pub is_declared: bool,
}

/// How many retries there may be, so that they cannot multiply the load of a service that is failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Retries in a hundred requests.
    pub percent: u8,
    /// Retries there may be in any case.
    pub min_per_second: u32,
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// The app cannot have seen the request.
    ConnectFailure,
    /// No answer began: the way broke, or the try took too long.
    Reset,
    /// Any answer from 500 on.
    Status5xx,
    /// 502, 503 and 504.
    GatewayError,
    /// 409.
    Retriable4xx,
    GrpcCancelled,
    GrpcDeadlineExceeded,
    GrpcInternal,
    GrpcResourceExhausted,
    GrpcUnavailable,
}

/// A set of [`Condition`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions(u16);

impl Condition {
    /// Every condition by its name.
    pub const ALL: [(&'static str, Self); 10] = [
        ("connect-failure", Self::ConnectFailure),
        ("reset", Self::Reset),
        ("5xx", Self::Status5xx),
        ("gateway-error", Self::GatewayError),
        ("retriable-4xx", Self::Retriable4xx),
        ("grpc-cancelled", Self::GrpcCancelled),
        ("grpc-deadline-exceeded", Self::GrpcDeadlineExceeded),
        ("grpc-internal", Self::GrpcInternal),
        ("grpc-resource-exhausted", Self::GrpcResourceExhausted),
        ("grpc-unavailable", Self::GrpcUnavailable),
    ];
}

impl Conditions {
    pub fn has(self, condition: Condition) -> bool {
        self.0 & (1 << condition as u16) != 0
    }

    /// Whether any of `met` is one of these.
    pub fn meets(self, met: Self) -> bool {
        self.0 & met.0 != 0
    }

    /// The same, looking only at codes of gRPC.
    pub fn meets_grpc(self, met: Self) -> bool {
        self.0 & met.0 & !((1 << Condition::GrpcCancelled as u16) - 1) != 0
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        let bits = conditions.into_iter().map(|one| 1 << one as u16);
        Self(bits.fold(0, |all, one| all | one))
    }
}

impl Retry {
    pub(super) fn check(raw: &Spanned<raw::Retry>, checker: &mut Checker<'_>) -> Self {
        let raw = raw.get_ref();
        let default = Self::default();
        let on = raw.on.as_ref().map(|listed| {
            let listed = listed.iter();
            listed
                .filter_map(|word| checker.choice("on", word, &Condition::ALL))
                .collect()
        });
        let methods = raw.methods.iter().flatten();
        let methods = methods.filter_map(|word| check_method(word, checker));
        Self {
            methods: methods.collect(),
            on: on.unwrap_or(default.on),
            attempts: raw
                .attempts
                .as_ref()
                .and_then(|count| checker.number("attempts", count, 1..=10))
                .unwrap_or(default.attempts),
            budget: raw
                .budget
                .as_ref()
                .map_or(default.budget, |budget| Budget::check(budget, checker)),
            backoff: raw
                .backoff
                .as_ref()
                .and_then(|time| checker.duration("backoff", time, Duration::ZERO..=BACKOFF_MAX))
                .unwrap_or(default.backoff),
            is_declared: true,
        }
    }

    /// Whether a request of this method may be sent again though an app may have seen it.
    pub fn allows(&self, method: &Method) -> bool {
        if self.methods.is_empty() {
            is_idempotent(method)
        } else {
            self.methods.contains(method)
        }
    }
}

impl Budget {
    fn check(raw: &raw::Budget, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        Self {
            percent: raw
                .percent
                .as_ref()
                .and_then(|share| checker.number("percent", share, 0..=100))
                .unwrap_or(default.percent),
            min_per_second: raw
                .min_per_second
                .as_ref()
                .and_then(|count| checker.number("min_per_second", count, 0..=1000))
                .unwrap_or(default.min_per_second),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: [Condition::ConnectFailure, Condition::Reset]
                .into_iter()
                .collect(),
            methods: Vec::new(),
            budget: Budget::default(),
            backoff: Duration::from_millis(25),
            is_declared: false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

fn check_method(word: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Method> {
    let text = word.get_ref();
    // Methods are compared as they are; a small letter is a mistake, not another method.
    let method = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        .then(|| text.parse::<Method>().ok())
        .flatten();
    if method.is_none() {
        let what = format!("`{}` is not a method", shown(text));
        checker.problem(word.span(), what, "in capitals, as in \"POST\"");
    }
    method
}

/// A longer pause is better made by whoever called.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
