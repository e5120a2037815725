//! How calls ended, for those of a series that one rule of a route directed.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};

use super::access::Ended;
use super::cap::SERIES_MAX;
use super::{exemplar, metrics as names};
use crate::config::Protocol;
use crate::reason::Reason;
use crate::route::Rule;

/// The outcomes of one series, by the label of the rule. Read without a lock; there are few, and seldom a new one.
#[derive(Debug, Default)]
pub(super) struct ByRoute(ArcSwap<Vec<Arc<Outcomes>>>);

/// The handles of one rule, fetched once and used for every call.
#[derive(Debug)]
pub(super) struct Outcomes {
    route: Box<str>,
    protocol: Protocol,
    labels: Vec<(&'static str, String)>,
    /// By status class, then by reason; most are never used.
    ended: [OnceLock<Counter>; ENDS],
    /// Of HTTP only: how long a TCP connection lasts tells nothing.
    duration: Option<Histogram>,
}

/// 1xx to 5xx and none, when the mesh did not fail the call; and each reason.
const ENDS: usize = 6 + Reason::ALL.len();

impl ByRoute {
    pub(super) fn note(&self, call: &Ended<'_>) {
        // At the callee's end no rule is known, and without one the label is empty.
        let route = call.route.map_or("", Rule::label);
        let known = self.0.load();
        match known.iter().find(|known| &*known.route == route) {
            Some(outcomes) => outcomes.note(call),
            None => self.add(route, call).note(call),
        }
    }

    /// Two that add the same one at a time add it twice, with the same handles.
    fn add(&self, route: &str, call: &Ended<'_>) -> Arc<Outcomes> {
        let new = Outcomes::new(route, call);
        self.0.rcu(|known| {
            let mut known = known.to_vec();
            if known.len() < SERIES_MAX {
                known.push(new.clone());
            }
            known
        });
        new
    }
}

impl Outcomes {
    fn new(route: &str, call: &Ended<'_>) -> Arc<Self> {
        let series = call.series;
        let protocol = series.protocol();
        let labels = vec![
            ("side", series.side().as_str().to_owned()),
            ("caller", series.caller().to_owned()),
            ("callee", series.callee().to_owned()),
            ("route", route.to_owned()),
            ("protocol", protocol.as_str().to_owned()),
        ];
        Arc::new(Self {
            route: route.into(),
            protocol,
            ended: [const { OnceLock::new() }; ENDS],
            duration: (protocol == Protocol::Http)
                .then(|| histogram!(names::REQUEST_DURATION, &labels)),
            labels,
        })
    }

    fn note(&self, call: &Ended<'_>) {
        if let Some(duration) = &self.duration {
            let is_sampled = call.span.is_some();
            exemplar::of(call.trace, is_sampled, || {
                duration.record(call.took.as_secs_f64())
            });
        }
        let status = call.status.map(|status| usize::from(status.as_u16() / 100));
        let class = status.unwrap_or_default().min(5);
        let end = call.reason.map_or(class, |reason| 6 + reason as usize);
        self.ended[end]
            .get_or_init(|| self.counter(class, call.reason))
            .increment(1);
    }

    /// A reason goes with one status, and so with one class, except where the answer had begun: then the reason tells
    /// more than the status, and the class is that of the reason.
    fn counter(&self, class: usize, reason: Option<Reason>) -> Counter {
        let class = reason.map_or(class, |reason| usize::from(reason.status().as_u16() / 100));
        let mut labels = self.labels.clone();
        labels.push(("reason", reason.map_or("", Reason::as_str).to_owned()));
        match self.protocol {
            Protocol::Tcp => counter!(names::CONNECTIONS, &labels),
            Protocol::Http => {
                labels.push(("status", CLASSES[class].to_owned()));
                counter!(names::REQUESTS, &labels)
            }
        }
    }
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::{Method, StatusCode};
    use starling_gossip::ServiceName;

    use super::*;
    use crate::route::Document;
    use crate::telemetry::metrics::tests::recorded;
    use crate::telemetry::{AccessLine, Series, Side};

    #[test]
    fn calls_are_told_apart_by_the_rule_that_directed_them() {
        let text =
            "[[rule]]\nname = 'beta'\nto = { version = 'v2' }\n[[rule]]\nto = { version = 'v1' }\n";
        let document = Document::parse_as(Path::new("route"), text).unwrap();
        let route = document.of(ServiceName::parse("orders").unwrap());
        let ((), page) = recorded(|| {
            let series = Series::new(
                Side::Caller,
                "web",
                "orders",
                Protocol::Http,
                Arc::default(),
            );
            for (rule, calls) in [(None, 1), (Some(0), 2), (Some(1), 3)] {
                for _ in 0..calls {
                    let mut line = AccessLine::request(&series, &Method::GET, "/");
                    if let Some(at) = rule {
                        let rule: &Arc<Rule> = &route.rules[at];
                        line.set_route(rule.clone());
                    }
                    line.set_status(StatusCode::OK);
                    line.finish();
                }
            }
        });
        for (label, calls) in [("", 1), ("beta", 2), ("2", 3)] {
            let labels = format!(r#"caller="web",callee="orders",route="{label}",protocol="http""#);
            for row in [
                format!(
                    r#"starling_requests_total{{side="caller",{labels},reason="",status="2xx"}} {calls}"#
                ),
                format!(
                    r#"starling_request_duration_seconds_count{{side="caller",{labels}}} {calls}"#
                ),
            ] {
                assert!(page.contains(&row), "no {row} in\n{page}");
            }
        }
    }
}
