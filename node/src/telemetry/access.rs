//! One line per request or connection, at each of the two ends.
//!
//! ```text
//! request side=caller caller=web callee=orders instance=n2 protocol=http http.request.method=GET url.path=/cart
//!         http.response.status_code=200 bytes_in=0 bytes_out=512 duration_ms=3.2
//!         trace_id=4bf92f3577b34da6a3ce929d0e0e4736
//! ```
//!
//! Fields are named as in traces. Where OpenTelemetry's conventions have a name it is theirs; those all have a dot, and
//! the mesh's own words, which are also its labels in metrics, have none.

mod log;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use starling_gossip::NodeName;
use tokio::time::Instant;

use super::series::{Series, Traffic};
use super::trace::{self, Span, TraceId, Tracer};
use crate::reason::Reason;
use crate::route::Rule;
use crate::tap;

pub use log::{Field, Fields, TARGET, configure};

/// Longest path a line shows, in bytes; the rest is cut off and marked.
const PATH_BYTES_MAX: usize = 512;

/// One call under way. It logs its line and counts itself exactly once: by [`AccessLine::finish`], or when dropped, and
/// then as one whose caller left unless another reason was given.
#[derive(Debug)]
pub struct AccessLine {
    series: Arc<Series>,
    traffic: Arc<Traffic>,
    began: Instant,
    caller: Option<Box<str>>,
    instance: Option<NodeName>,
    request: Option<Request>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    route: Option<Arc<Rule>>,
    rule: Option<Box<str>>,
    trace: Option<TraceId>,
    span: Option<Box<Span>>,
    fields: Option<Box<[tap::Field]>>,
    is_complete: bool,
}

#[derive(Debug)]
struct Request {
    method: Method,
    path: Box<str>,
}

/// A call that ended. Whatever is told of calls is made of this: metrics, the history of edges, those
/// who look at live calls, the log.
#[derive(Debug)]
pub struct Ended<'c> {
    pub series: &'c Arc<Series>,
    /// As its own certificate names it, where the series says only [`super::series::OTHER`].
    pub caller: &'c str,
    pub instance: Option<&'c NodeName>,
    /// Of HTTP only.
    pub method: Option<&'c Method>,
    /// Of HTTP only: without the query, cut at 512 bytes.
    pub path: Option<&'c str>,
    pub status: Option<StatusCode>,
    /// Why the mesh failed it.
    pub reason: Option<Reason>,
    /// The rule of the callee's route that directed it, at the caller's end.
    pub route: Option<&'c Rule>,
    /// The rule of a policy that denied it.
    pub denied_by: Option<&'c str>,
    pub trace: Option<TraceId>,
    /// If the trace is sampled and exported from here.
    pub span: Option<&'c Span>,
    /// The request's header fields, if somebody wanted to see them when it began.
    pub fields: Option<&'c [tap::Field]>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub took: Duration,
}

impl AccessLine {
    /// A TCP connection.
    pub fn connection(series: &Arc<Series>) -> Self {
        Self {
            traffic: series.began(),
            series: series.clone(),
            began: Instant::now(),
            caller: None,
            instance: None,
            request: None,
            status: None,
            reason: None,
            route: None,
            rule: None,
            trace: None,
            span: None,
            fields: None,
            is_complete: false,
        }
    }

    /// An HTTP request. Queries often hold secrets, so only the path is kept.
    pub fn request(series: &Arc<Series>, method: &Method, path: &str) -> Self {
        let mut line = Self::connection(series);
        line.request = Some(Request {
            method: method.clone(),
            path: shorten(path).into(),
        });
        line
    }

    /// The call began at `began`, before this line could know of it.
    pub fn since(&mut self, began: Instant) {
        self.began = self.began.min(began);
    }

    /// Keeps of the request's header what somebody wants to see, if anybody looks.
    pub fn see(&mut self, headers: &HeaderMap) {
        self.fields = self.series.taps().fields(self.series.callee(), headers);
    }

    /// Counts bytes from elsewhere, such as a body that outlives the task of the request.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The name to show where the series says only [`super::series::OTHER`].
    pub fn set_caller(&mut self, caller: &str) {
        self.caller = Some(shorten(caller).into());
    }

    /// The node that the call was sent to, or that serves it. The last one counts.
    pub fn set_instance(&mut self, node: &NodeName) {
        self.instance = Some(node.clone());
    }

    pub fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Finds the trace of the request with these fields, or begins one. The fields are then those to pass on.
    pub fn trace(&mut self, headers: &mut HeaderMap, tracer: Option<&Arc<Tracer>>) {
        let traced = trace::begin(headers, tracer, &mut fastrand::Rng::new());
        self.trace = Some(traced.trace);
        self.span = traced.span;
    }

    /// Another try follows one that was over at `over` and ended so. `headers` are those to pass on with it.
    pub fn try_again(
        &mut self,
        over: Instant,
        status: Option<StatusCode>,
        reason: Option<Reason>,
        headers: &mut HeaderMap,
    ) {
        let Some(mut span) = self.span.take() else {
            return;
        };
        span.close(&Ended {
            status,
            reason,
            took: over - self.began,
            ..self.ended()
        });
        span.again(self.began.elapsed(), headers, &mut fastrand::Rng::new());
        self.span = Some(span);
    }

    /// Looks at the fields or trailers of the answer for what they say of its end.
    pub fn note(&mut self, fields: &HeaderMap) {
        if let Some(span) = &mut self.span {
            span.note(fields);
        }
    }

    /// The rule of the callee's route that says where it goes.
    pub fn set_route(&mut self, rule: Arc<Rule>) {
        self.route = Some(rule);
    }

    /// The rule that denied it.
    pub fn set_rule(&mut self, rule: &str) {
        self.rule = Some(shorten(rule).into());
    }

    /// Why the mesh failed the call. The first reason counts: what follows is its consequence.
    pub fn fail(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }

    /// The call ended as it should, or for the reason given before.
    pub fn finish(mut self) {
        self.is_complete = true;
    }

    fn ended(&self) -> Ended<'_> {
        let request = self.request.as_ref();
        let caller = self.caller.as_deref();
        Ended {
            series: &self.series,
            caller: caller.unwrap_or_else(|| self.series.caller()),
            instance: self.instance.as_ref(),
            method: request.map(|request| &request.method),
            path: request.map(|request| &*request.path),
            status: self.status,
            reason: self.reason,
            route: self.route.as_deref(),
            denied_by: self.rule.as_deref(),
            trace: self.trace,
            span: self.span.as_deref(),
            fields: self.fields.as_deref(),
            bytes_in: self.traffic.bytes_in(),
            bytes_out: self.traffic.bytes_out(),
            took: self.began.elapsed(),
        }
    }
}

impl Ended<'_> {
    /// Tells everybody who wants to know.
    fn tell(&self) {
        self.series.ended(self);
        self.series.edge().ended(self);
        self.series.taps().tell(self);
        self.log();
        if let Some(span) = self.span {
            span.close(self);
        }
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        if let Some(reason) = self.traffic.cut_for() {
            self.fail(reason);
        }
        if !self.is_complete {
            self.fail(Reason::CallerGone);
        }
        self.ended().tell();
    }
}

fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= PATH_BYTES_MAX {
        return text.into();
    }
    let end = (0..=PATH_BYTES_MAX)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or_default();
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::telemetry::log::tests::captured;
    use crate::telemetry::metrics::tests::recorded;
    use crate::telemetry::series::{OTHER, Side};

    fn orders(side: Side, protocol: Protocol) -> Arc<Series> {
        Series::new(side, "web", "orders", protocol, Arc::default())
    }

    #[test]
    fn a_request_is_one_line_and_one_count() {
        let (lines, page) = recorded(|| {
            captured(|| {
                let series = orders(Side::Caller, Protocol::Http);
                let mut line = AccessLine::request(&series, &Method::GET, "/cart");
                line.set_instance(&NodeName::parse("n2").unwrap());
                line.set_status(StatusCode::OK);
                let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
                let mut headers = HeaderMap::new();
                headers.insert(trace::TRACEPARENT, parent.parse().unwrap());
                line.trace(&mut headers, None);
                let traffic = line.traffic().clone();
                traffic.add_in(5);
                traffic.add_out(7);
                line.finish();
            })
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let expected = [
            ("target", "starling::access"),
            ("message", "request"),
            ("side", "caller"),
            ("caller", "web"),
            ("callee", "orders"),
            ("instance", "n2"),
            ("protocol", "http"),
            ("http.request.method", "GET"),
            ("url.path", "/cart"),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ];
        for (field, value) in expected {
            assert_eq!(line[field], value, "{field} in {line}");
        }
        assert_eq!(
            (
                &line["http.response.status_code"],
                &line["bytes_in"],
                &line["bytes_out"]
            ),
            (&200.into(), &5.into(), &7.into())
        );
        assert!(line["duration_ms"].is_f64() && line.get("reason").is_none());
        for row in [
            r#"starling_requests_total{side="caller",caller="web",callee="orders",route="",protocol="http",reason="",status="2xx"} 1"#,
            r#"starling_traffic_bytes_total{side="caller",caller="web",callee="orders",protocol="http",direction="in"} 5"#,
            r#"starling_calls_open{side="caller",caller="web",callee="orders",protocol="http"} 0"#,
            r#"starling_request_duration_seconds_count{side="caller",caller="web",callee="orders",route="",protocol="http"} 1"#,
        ] {
            assert!(page.contains(row), "no {row} in\n{page}");
        }
    }

    #[test]
    fn a_dropped_line_says_the_caller_left() {
        let (lines, page) = recorded(|| {
            captured(|| drop(AccessLine::connection(&orders(Side::Callee, Protocol::Tcp))))
        });
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].contains(r#""reason":"caller-gone""#)
                && lines[0].contains(r#""message":"connection""#),
            "{lines:?}"
        );
        assert!(!lines[0].contains("http."), "{lines:?}");
        let row = r#"starling_connections_total{side="callee",caller="web",callee="orders",route="",protocol="tcp",reason="caller-gone"} 1"#;
        assert!(page.contains(row), "{page}");
        assert!(
            !page.contains("starling_request_duration_seconds_count{"),
            "{page}"
        );
    }

    #[test]
    fn the_first_reason_counts() {
        let (lines, page) = recorded(|| {
            captured(|| {
                let mut line =
                    AccessLine::request(&orders(Side::Caller, Protocol::Http), &Method::GET, "/");
                line.fail(Reason::ConnectFailed);
                line.fail(Reason::Timeout);
            })
        });
        assert!(
            lines[0].contains(r#""reason":"connect-failed""#),
            "{lines:?}"
        );
        assert!(
            page.contains(r#"reason="connect-failed",status="5xx"} 1"#),
            "{page}"
        );
    }

    #[test]
    fn a_stranger_is_named_in_the_line_only() {
        let (lines, page) = recorded(|| {
            captured(|| {
                let series = Series::new(
                    Side::Callee,
                    OTHER,
                    "orders",
                    Protocol::Http,
                    Arc::default(),
                );
                let mut line = AccessLine::request(&series, &Method::GET, "/");
                line.set_caller("stranger");
                line.fail(Reason::Denied);
                line.finish();
            })
        });
        assert!(lines[0].contains(r#""caller":"stranger""#), "{lines:?}");
        assert!(
            page.contains(r#"caller="other""#) && !page.contains("stranger"),
            "{page}"
        );
    }

    #[test]
    fn long_paths_are_cut_at_a_character() {
        let path = format!("/{}", "ä".repeat(PATH_BYTES_MAX));
        let short = shorten(&path);
        assert!(short.len() <= PATH_BYTES_MAX + '…'.len_utf8() && short.ends_with("ä…"));
        assert_eq!(shorten("/short"), "/short");
    }

    #[test]
    fn open_connections_are_counted_back() {
        let ((), page) = recorded(|| {
            let series = orders(Side::Caller, Protocol::Tcp);
            let (first, _second) = (series.open(), series.open());
            drop(first);
        });
        let row = r#"starling_connections_open{side="caller",caller="web",callee="orders",protocol="tcp"} 0"#;
        assert!(page.contains(row), "{page}");
    }
}
