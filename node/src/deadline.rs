//! Until when an answer is of use, and how that travels from hop to hop.
//!
//! A request has no deadline of its own. It gets one from the app (`starling-deadline-ms`, or `grpc-timeout`) or from
//! the operator (`timeout.request`), whichever ends first. Agents tell each other and the callee's app what is left in
//! `starling-deadline-ms`; an app that copies it into its own calls passes the deadline on.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// What is left of the time for the answer, in milliseconds.
pub const DEADLINE: HeaderName = HeaderName::from_static("starling-deadline-ms");

/// gRPC's own word for it: up to eight digits and a unit.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The end of a call's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    /// Whoever calls chose it, not the operator.
    pub is_callers: bool,
}

impl Deadline {
    /// Of a call that began then: what its sender claimed or what the operator allows, whichever is shorter.
    pub fn new(claimed: Option<Duration>, most: Option<Duration>, began: Instant) -> Option<Self> {
        let time = claimed.into_iter().chain(most).min()?;
        Some(Self {
            at: began + bounded(time),
            is_callers: claimed == Some(time),
        })
    }

    pub fn is_over(self) -> bool {
        Instant::now() >= self.at
    }
}

/// How long the sender of these fields will wait, if it says so. What cannot be read says nothing.
pub fn claimed(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(&name)?.to_str().ok();
    let ours = text(DEADLINE).and_then(|millis| millis.parse().ok());
    let ours = ours.map(Duration::from_millis);
    let grpc = text(GRPC_TIMEOUT).and_then(parse_grpc);
    [ours, grpc].into_iter().flatten().min().map(bounded)
}

/// Says how much is left until `deadline`. A `grpc-timeout` that promises more is shortened, as gRPC servers read it.
pub fn tell(headers: &mut HeaderMap, deadline: Instant, now: Instant) {
    let left = deadline.saturating_duration_since(now);
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(DEADLINE, HeaderValue::from(millis));
    let promised = headers
        .get(GRPC_TIMEOUT)
        .and_then(|value| parse_grpc(value.to_str().ok()?));
    if promised.is_some_and(|promised| promised > left)
        && let Ok(shorter) = HeaderValue::from_str(&format!("{}m", millis.min(GRPC_MAX)))
    {
        headers.insert(GRPC_TIMEOUT, shorter);
    }
}

fn parse_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A clock can be moved only so far.
fn bounded(time: Duration) -> Duration {
    time.min(LONGEST)
}

/// Longer than any call lives.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Eight digits.
const GRPC_MAX: u64 = 99_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn the_shorter_claim_counts() {
        let check = |given: &[(&'static str, &'static str)], millis: Option<u64>| {
            assert_eq!(
                claimed(&fields(given)),
                millis.map(Duration::from_millis),
                "{given:?}"
            );
        };
        check(&[], None);
        check(&[("starling-deadline-ms", "250")], Some(250));
        check(
            &[("starling-deadline-ms", "250"), ("grpc-timeout", "1S")],
            Some(250),
        );
        check(
            &[("starling-deadline-ms", "2500"), ("grpc-timeout", "1S")],
            Some(1000),
        );
        check(&[("grpc-timeout", "2M")], Some(120_000));
        check(&[("grpc-timeout", "7m")], Some(7));
        check(
            &[("grpc-timeout", "99999999H")],
            Some(LONGEST.as_millis() as u64),
        );
        for nonsense in ["", "S", "1", "-1S", "123456789m", "1.5S", "+1S", "5d", "é"] {
            assert_eq!(parse_grpc(nonsense), None, "{nonsense}");
        }
        check(&[("starling-deadline-ms", "-1")], None);
        check(&[("starling-deadline-ms", "soon")], None);
    }

    #[test]
    fn the_shorter_of_callers_and_operators_time_counts() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(Deadline::new(None, None, now), None);
        let check = |claimed, most, at, is_callers| {
            let expected = Deadline {
                at: now + at,
                is_callers,
            };
            assert_eq!(Deadline::new(claimed, most, now), Some(expected));
        };
        check(Some(second), None, second, true);
        check(None, Some(second), second, false);
        check(Some(second), Some(2 * second), second, true);
        check(Some(3 * second), Some(2 * second), 2 * second, false);
        check(Some(Duration::MAX), None, LONGEST, true);
    }

    #[test]
    fn what_is_left_is_told_and_grpc_is_not_promised_more() {
        let now = Instant::now();
        let mut headers = fields(&[("grpc-timeout", "10S")]);
        tell(&mut headers, now + Duration::from_millis(1500), now);
        assert_eq!(headers[DEADLINE], "1500");
        assert_eq!(headers[GRPC_TIMEOUT], "1500m");
        tell(&mut headers, now + Duration::from_secs(60), now);
        assert_eq!(headers[GRPC_TIMEOUT], "1500m", "a shorter one stays");
        tell(&mut headers, now, now + Duration::from_secs(1));
        assert_eq!(headers[DEADLINE], "0");
    }
}
