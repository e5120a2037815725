//! What an access line says, and which calls get one: `[log.access]`.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use starling_gossip::NodeName;

use super::Ended;
use crate::config::{AccessLog, Protocol};
use crate::reason::Reason;
use crate::route::split::{Point, Share};
use crate::telemetry::trace::{Span, TraceId};

/// The target of access lines, for filters such as `info,starling::access=off`.
pub const TARGET: &str = "starling::access";

/// One thing that access lines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Side,
    Caller,
    Callee,
    Instance,
    Protocol,
    Method,
    Path,
    Status,
    BytesIn,
    BytesOut,
    Duration,
    Reason,
    Rule,
    TraceId,
    SpanId,
}

/// Some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u32);

impl Field {
    pub const ALL: [Self; 15] = [
        Self::Side,
        Self::Caller,
        Self::Callee,
        Self::Instance,
        Self::Protocol,
        Self::Method,
        Self::Path,
        Self::Status,
        Self::BytesIn,
        Self::BytesOut,
        Self::Duration,
        Self::Reason,
        Self::Rule,
        Self::TraceId,
        Self::SpanId,
    ];

    /// As lines and operators write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Side => "side",
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::Instance => "instance",
            Self::Protocol => "protocol",
            Self::Method => "http.request.method",
            Self::Path => "url.path",
            Self::Status => "http.response.status_code",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::Duration => "duration_ms",
            Self::Reason => "reason",
            Self::Rule => "rule",
            Self::TraceId => "trace_id",
            Self::SpanId => "span_id",
        }
    }
}

impl Fields {
    pub const ALL: Self = Self((1 << Field::ALL.len()) - 1);

    pub fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    /// `value` where the field is wanted.
    fn take<T>(self, field: Field, value: Option<T>) -> Option<T> {
        value.filter(|_| self.has(field))
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        Self(
            fields
                .into_iter()
                .fold(0, |all, field| all | 1 << field as u32),
        )
    }
}

/// Puts `[log.access]` in force, for the whole process as all of logging is.
pub fn configure(setting: AccessLog) {
    IN_FORCE.store(packed(setting.fields, setting.sample), Ordering::Relaxed);
}

/// In one word, so that a call reads it whole and for next to nothing.
static IN_FORCE: AtomicU64 = AtomicU64::new(packed(Fields::ALL, Share::WHOLE));

const fn packed(fields: Fields, sample: Share) -> u64 {
    (fields.0 as u64) << 16 | sample.0 as u64
}

fn in_force() -> AccessLog {
    let packed = IN_FORCE.load(Ordering::Relaxed);
    AccessLog {
        fields: Fields((packed >> 16) as u32),
        sample: Share(packed as u16),
    }
}

impl Ended<'_> {
    pub(super) fn log(&self) {
        self.log_as(in_force());
    }

    fn log_as(&self, AccessLog { fields, sample }: AccessLog) {
        if !self.is_failure() && !self.is_of(sample) {
            return;
        }
        let status = self.status.map(|status| status.as_u16());
        let duration_ms = self.took.as_micros() as f64 / 1000.0;
        let span = self.span.map(Span::id);
        let kind = match self.series.protocol() {
            Protocol::Http => "request",
            Protocol::Tcp => "connection",
        };
        tracing::info!(
            target: TARGET,
            message = kind,
            side = fields.take(Field::Side, Some(self.series.side().as_str())),
            caller = fields.take(Field::Caller, Some(self.caller)),
            callee = fields.take(Field::Callee, Some(self.series.callee())),
            instance = fields.take(Field::Instance, self.instance.map(NodeName::as_str)),
            protocol = fields.take(Field::Protocol, Some(self.series.protocol().as_str())),
            "http.request.method" = fields.take(Field::Method, self.method.map(Method::as_str)),
            "url.path" = fields.take(Field::Path, self.path),
            "http.response.status_code" = fields.take(Field::Status, status),
            bytes_in = fields.take(Field::BytesIn, Some(self.bytes_in)),
            bytes_out = fields.take(Field::BytesOut, Some(self.bytes_out)),
            duration_ms = fields.take(Field::Duration, Some(duration_ms)),
            reason = fields.take(Field::Reason, self.reason.map(Reason::as_str)),
            rule = fields.take(Field::Rule, self.denied_by),
            trace_id = fields.take(Field::TraceId, self.trace.as_ref().map(TraceId::as_str)),
            span_id = fields.take(Field::SpanId, span.as_ref().map(|id| id.as_str())),
        );
    }

    /// Whether somebody has to look, or may want to.
    fn is_failure(&self) -> bool {
        self.reason.is_some() || self.status.is_some_and(|status| status.is_server_error())
    }

    /// Whether it is one of a share of all calls. By its trace where it has one, so that both ends choose alike.
    fn is_of(&self, share: Share) -> bool {
        if share == Share::WHOLE {
            return true;
        }
        share.takes(match &self.trace {
            Some(trace) => Point::of([trace.as_str().as_bytes(), b""]),
            None => Point::random(&mut fastrand::Rng::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::telemetry::log::tests::captured;
    use crate::telemetry::series::{Series, Side};
    use crate::telemetry::trace;

    /// The lines of `calls` calls, each with a trace of its own, that ended with `status` and `reason`.
    fn lines(setting: AccessLog, calls: u64, status: u16, reason: Option<Reason>) -> Vec<String> {
        let series = Series::new(
            Side::Callee,
            "web",
            "orders",
            Protocol::Http,
            Arc::default(),
        );
        let call = |seed| Ended {
            series: &series,
            caller: "web",
            instance: None,
            method: Some(&Method::GET),
            path: Some("/"),
            status: StatusCode::from_u16(status).ok(),
            reason,
            route: None,
            denied_by: None,
            trace: Some(trace(seed)),
            span: None,
            fields: None,
            bytes_in: 0,
            bytes_out: 0,
            took: Duration::from_millis(1),
        };
        captured(|| (0..calls).for_each(|seed| call(seed).log_as(setting)))
    }

    fn trace(seed: u64) -> TraceId {
        let mut rng = fastrand::Rng::with_seed(seed);
        trace::begin(&mut http::HeaderMap::new(), None, &mut rng).trace
    }

    #[test]
    fn only_what_is_wanted_is_said() {
        let setting = AccessLog {
            fields: [Field::Callee, Field::Status].into_iter().collect(),
            ..AccessLog::default()
        };
        let lines = lines(setting, 1, 200, None);
        let line: serde_json::Map<_, _> = serde_json::from_str(&lines[0]).unwrap();
        let keys: Vec<_> = line.keys().map(String::as_str).collect();
        let always = ["level", "message", "target", "time"];
        let mut expected = [&always[..], &["callee", "http.response.status_code"]].concat();
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_share_of_the_calls_is_logged_and_every_failure() {
        let sample = |share| AccessLog {
            sample: Share(share),
            ..AccessLog::default()
        };
        assert_eq!(lines(AccessLog::default(), 50, 200, None).len(), 50);
        assert_eq!(lines(sample(0), 50, 200, None).len(), 0);
        assert_eq!(lines(sample(0), 50, 404, None).len(), 0);
        assert_eq!(lines(sample(0), 50, 500, None).len(), 50);
        assert_eq!(lines(sample(0), 50, 403, Some(Reason::Denied)).len(), 50);
        let some = lines(sample(2_500), 400, 200, None);
        assert!((50..150).contains(&some.len()), "{}", some.len());
        let ids = |lines: &[String]| -> Vec<_> {
            let id = |line: &String| {
                line.split("trace_id\":\"")
                    .nth(1)
                    .map(|rest| rest[..32].to_owned())
            };
            lines.iter().map(id).collect()
        };
        assert_eq!(
            ids(&some),
            ids(&lines(sample(2_500), 400, 200, None)),
            "whoever asks"
        );
    }

    #[test]
    fn what_is_in_force_is_read_whole() {
        let fields: Fields = [Field::Side, Field::SpanId].into_iter().collect();
        for sample in [Share::NONE, Share(1), Share::WHOLE] {
            let packed = packed(fields, sample);
            assert_eq!(
                (Fields((packed >> 16) as u32), Share(packed as u16)),
                (fields, sample)
            );
        }
        for (at, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, at);
            assert!(Fields::ALL.has(field));
        }
    }
}
