//! Names of what this crate counts.
//!
//! Labels hold names from the configuration or the verified catalogue and values of closed lists, never what the wire
//! says; `cap` bounds how many come together. `docs/metrics.md` is the operator's page of these; a test keeps the two equal.

use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use starling_gossip::ServiceName;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use super::cap::SERIES_MAX;
use super::{process, quic};
use crate::enrol::Outcome;
use crate::pass::PassError;
use crate::route::split::Subset;

/// HTTP requests, once at either end.
pub const REQUESTS: &str = "starling_requests_total";
/// TCP connections carried, once at either end.
pub const CONNECTIONS: &str = "starling_connections_total";
/// From the head of a request to the end of its response.
pub const REQUEST_DURATION: &str = "starling_request_duration_seconds";
/// Bytes of bodies and tunnels.
pub const TRAFFIC: &str = "starling_traffic_bytes_total";
/// Requests and tunnels under way.
pub const CALLS_OPEN: &str = "starling_calls_open";
/// Connections open between agent and apps.
pub const CONNECTIONS_OPEN: &str = "starling_connections_open";
/// Calls sent to another instance after one failed.
pub const RETRIES: &str = "starling_retries_total";
/// Times an instance was left out because calls to it failed.
pub const EJECTIONS: &str = "starling_ejections_total";
/// Calls that the mode of their service let through.
pub const POLICY_AUDIT: &str = "starling_policy_audit_total";
/// Connections from outside of the mesh.
pub const PLAINTEXT: &str = "starling_plaintext_connections_total";
/// Calls by the subset that a route chose for them.
pub const ROUTED: &str = "starling_routed_total";
/// Copies of requests.
pub const MIRRORED: &str = "starling_mirrored_total";
/// Calls not tried again because there were too many retries.
pub const RETRIES_REFUSED: &str = "starling_retries_refused_total";
/// Times an instance asked for fewer calls.
pub const SPARED: &str = "starling_instances_spared_total";
/// Requests that wait before an app.
pub const QUEUED: &str = "starling_queued_requests";
/// Health checks of local apps.
pub const HEALTH_CHECKS: &str = "starling_health_checks_total";
/// Whether a local app passes its health check.
pub const SERVICE_HEALTHY: &str = "starling_service_healthy";
/// When a certificate of this node runs out.
pub const SVID_EXPIRY: &str = "starling_svid_expiry_timestamp_seconds";
/// Seconds until a certificate of this node runs out.
pub const SVID_EXPIRES: &str = "starling_svid_expires_seconds";
/// Tries to renew a certificate of this node.
pub const RENEWALS: &str = "starling_renewals_total";
/// Renewals that this issuer refused for coming too early or too often.
pub const RENEWALS_REFUSED: &str = "starling_renewals_refused_total";
/// Requests at the join port.
pub const JOINS: &str = "starling_joins_total";
/// Times the configuration was read again.
pub const RELOADS: &str = "starling_config_reloads_total";
/// Entries of the configuration in force that go without what they need.
pub const CONFIG_ABSENT: &str = "starling_config_absent";
/// When the configuration in force was read.
pub const CONFIG_LOADED: &str = "starling_config_loaded_timestamp_seconds";
/// Documents by what became of them on this node.
pub const DOCUMENTS: &str = "starling_documents";
/// Edges whose calls are counted apart.
pub const EDGES: &str = "starling_edges";
/// What the history of the edges takes.
pub const EDGE_BYTES: &str = "starling_edges_bytes";
/// Latencies of the history that were dropped for want of memory.
pub const EDGE_TIMES_DROPPED: &str = "starling_edge_latencies_dropped_total";
/// Passes that did not hold here.
pub const PASSES_REFUSED: &str = "starling_passes_refused_total";
/// Spans that a collector took.
pub const SPANS_EXPORTED: &str = "starling_spans_exported_total";
/// Spans that none took.
pub const SPANS_DROPPED: &str = "starling_spans_dropped_total";
/// Taps open at this node.
pub const TAPS_OPEN: &str = "starling_taps_open";
/// Taps that began at this node.
pub const TAPS: &str = "starling_taps_total";
/// Calls that taps matched.
pub const TAPPED: &str = "starling_tapped_calls_total";
/// Tasks that ended by panic.
pub const TASK_PANICS: &str = "starling_task_panics_total";
/// What was counted as `other` for want of room.
pub const SWALLOWED: &str = "starling_series_swallowed_total";
/// The version that runs.
pub const BUILD_INFO: &str = "starling_build_info";

/// A call is tried again. `cause` is a reason or a kind of answer.
pub fn retried(callee: &ServiceName, cause: &'static str) {
    counter!(RETRIES, "callee" => callee.to_string(), "reason" => cause).increment(1);
}

/// A call is not tried again because that would be too many retries.
pub(crate) fn retry_refused(callee: &ServiceName) {
    counter!(RETRIES_REFUSED, "callee" => callee.to_string()).increment(1);
}

/// An instance is left out. `cause` is a reason, `5xx` or `success-rate`.
pub(crate) fn ejected(callee: &ServiceName, cause: &'static str) {
    counter!(EJECTIONS, "callee" => callee.to_string(), "reason" => cause).increment(1);
}

/// An instance asked for fewer calls.
pub(crate) fn spared(callee: &ServiceName) {
    counter!(SPARED, "callee" => callee.to_string()).increment(1);
}

/// Requests that wait for their turn at the app of `service`.
pub(crate) fn queued(service: &ServiceName) -> Gauge {
    gauge!(QUEUED, "service" => service.to_string())
}

pub(crate) fn let_through(caller: &str, callee: &str, mode: &'static str, why: &'static str) {
    let labels = [
        ("caller", caller.to_owned()),
        ("callee", callee.to_owned()),
        ("mode", mode.to_owned()),
        ("reason", why.to_owned()),
    ];
    counter!(POLICY_AUDIT, &labels).increment(1);
}

/// Someone came to the plaintext address of `callee`.
pub(crate) fn plaintext(callee: &ServiceName, taken: bool) {
    let outcome = if taken { "taken" } else { "refused" };
    counter!(PLAINTEXT, "callee" => callee.to_string(), "outcome" => outcome).increment(1);
}

/// A route chose `subset` for a call. Subsets are those of routes, so there are few.
pub(crate) fn routed(callee: &ServiceName, subset: &Subset) {
    counter!(ROUTED, "callee" => callee.to_string(), "subset" => subset.to_string()).increment(1);
}

/// A copy of a request was answered, failed, or was skipped because too many were under way.
pub(crate) fn mirrored(callee: &ServiceName, outcome: &'static str) {
    counter!(MIRRORED, "callee" => callee.to_string(), "outcome" => outcome).increment(1);
}

pub(crate) fn health_checked(service: &ServiceName, passed: bool) {
    let outcome = if passed { "passed" } else { "failed" };
    counter!(HEALTH_CHECKS, "service" => service.to_string(), "outcome" => outcome).increment(1);
}

pub(crate) fn health(service: &ServiceName, healthy: bool) {
    gauge!(SERVICE_HEALTHY, "service" => service.to_string()).set(f64::from(u8::from(healthy)));
}

/// The certificate of `identity`, one of this node's own, ends at `not_after` (seconds since 1970).
pub fn svid_expires(identity: &str, not_after: u64) {
    gauge!(SVID_EXPIRY, "identity" => identity.to_owned()).set(not_after as f64);
    let now = SystemTime::now();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = not_after as f64 - now.as_secs_f64();
    gauge!(SVID_EXPIRES, "identity" => identity.to_owned()).set(left);
}

/// A certificate of this node was renewed, or could not be.
pub(crate) fn renewed(is_renewed: bool) {
    let outcome = if is_renewed { "renewed" } else { "failed" };
    counter!(RENEWALS, "outcome" => outcome).increment(1);
}

/// An issuer does not renew a certificate now. `reason` is a word of a closed list.
pub(crate) fn renewal_refused(reason: &'static str) {
    counter!(RENEWALS_REFUSED, "reason" => reason).increment(1);
}

/// A request at the join port was answered.
pub(crate) fn join_answered(outcome: Outcome) {
    counter!(JOINS, "outcome" => outcome.as_str()).increment(1);
}

/// The configuration was read again and taken, or refused.
pub fn reloaded(taken: bool) {
    let outcome = if taken { "taken" } else { "refused" };
    counter!(RELOADS, "outcome" => outcome).increment(1);
    if taken {
        config_loaded();
    }
}

/// So many entries of the configuration go without a certificate, a socket or a place in the announcement.
pub(crate) fn absent(count: usize) {
    gauge!(CONFIG_ABSENT).set(count as f64);
}

/// The configuration in force was read now.
pub fn config_loaded() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    gauge!(CONFIG_LOADED).set(now.as_secs_f64());
}

/// What became of the documents held here.
pub(crate) fn documents(count: &crate::documents::Count) {
    for (state, count) in [
        ("in_force", count.in_force),
        ("not_in_force", count.not_in_force),
        ("held_back", count.held),
        ("lost", count.lost),
    ] {
        gauge!(DOCUMENTS, "state" => state).set(count as f64);
    }
}

/// So many operators look at calls of this node.
pub(crate) fn taps_open(count: usize) {
    gauge!(TAPS_OPEN).set(count as f64);
}

/// An operator looks at calls to `callee`, which runs here or is called from here.
pub(crate) fn tap_begun(callee: &str) {
    counter!(TAPS, "callee" => callee.to_owned()).increment(1);
}

/// What became of calls that an operator wanted to see.
pub(crate) fn tapped(sent: u64, left_out: u64, lost: u64) {
    for (outcome, count) in [("sent", sent), ("left_out", left_out), ("lost", lost)] {
        if count > 0 {
            counter!(TAPPED, "outcome" => outcome).increment(count);
        }
    }
}

/// A pass did not hold here.
pub(crate) fn pass_refused(refusal: PassError) {
    counter!(PASSES_REFUSED, "reason" => refusal.as_str()).increment(1);
}

/// A collector took so many spans.
pub(crate) fn spans_exported(spans: u64) {
    counter!(SPANS_EXPORTED).increment(spans);
}

/// So many spans go nowhere: `queue_full`, `unreachable`, `busy` or `refused`.
pub(crate) fn spans_dropped(why: &'static str, spans: u64) {
    if spans > 0 {
        counter!(SPANS_DROPPED, "reason" => why).increment(spans);
    }
}

/// The task called `task` ended by panic.
pub fn task_panicked(task: &'static str) {
    counter!(TASK_PANICS, "task" => task).increment(1);
}

/// Tells the recorder what each metric of the agent means, those of the other crates included.
pub(super) fn describe() {
    starling_gossip::metrics::describe();
    starling_transport::metrics::describe();
    process::describe();
    quic::describe();
    describe_traffic();
    describe_edges();
    describe_agent();
}

fn describe_traffic() {
    describe_counter!(
        REQUESTS,
        "HTTP requests that ended, at the caller's and at the callee's agent; a retry is not counted again"
    );
    describe_counter!(
        CONNECTIONS,
        "TCP connections that ended, at the caller's and at the callee's agent; those of HTTP are not counted"
    );
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "From the head of a request to the end of its response; TCP connections are not counted"
    );
    describe_counter!(
        TRAFFIC,
        Unit::Bytes,
        "Bytes of bodies and TCP connections as they pass; header fields and what the mesh adds are not counted"
    );
    describe_gauge!(CALLS_OPEN, "Requests and TCP connections under way");
    describe_gauge!(
        CONNECTIONS_OPEN,
        "Connections open from apps (side caller) and to apps (side callee); those between agents are not counted"
    );
    describe_counter!(
        RETRIES,
        "Tries of calls after the first, by what the one before failed for; a reason or a kind of answer"
    );
    describe_counter!(
        RETRIES_REFUSED,
        "Calls not tried again because retries had used up their budget"
    );
    describe_counter!(
        SPARED,
        "Times an instance said that it has too much to do, so that others came first for a while"
    );
    describe_gauge!(
        QUEUED,
        "Requests that wait for their turn at a local app, see limits.concurrent of its service"
    );
    describe_counter!(
        ROUTED,
        "Calls by the subset that a route chose for them; calls that may go to any instance are not counted"
    );
    describe_counter!(
        MIRRORED,
        "Copies that a route wanted of requests, by outcome: answered, failed, or skipped for want of room"
    );
    describe_counter!(
        EJECTIONS,
        "Times this node left an instance out because its calls failed; what its own health check says is not counted"
    );
}

fn describe_edges() {
    describe_gauge!(
        EDGES,
        "Pairs of services whose calls are counted apart in the history of this node, at either end"
    );
    describe_gauge!(
        EDGE_BYTES,
        Unit::Bytes,
        "What the last hour of those calls takes; what is being counted now, 4 KiB each, is not in it"
    );
    describe_counter!(
        EDGE_TIMES_DROPPED,
        "Latencies of an edge and a span of time that were dropped from that history to stay within 4 MiB"
    );
}

fn describe_agent() {
    describe_counter!(
        POLICY_AUDIT,
        "Calls that nothing allows and that the mode of their service, audit or permissive, let through"
    );
    describe_counter!(
        PLAINTEXT,
        "Connections from outside of the mesh to the plaintext address of a permissive service, by outcome"
    );
    describe_counter!(HEALTH_CHECKS, "Health checks of local apps, by outcome");
    describe_gauge!(
        SERVICE_HEALTHY,
        "1 if the local app of this service passes its health check or has none, else 0"
    );
    describe_gauge!(
        SVID_EXPIRY,
        Unit::Seconds,
        "When the certificate of this identity, held by this node, runs out (Unix time)"
    );
    describe_gauge!(
        SVID_EXPIRES,
        Unit::Seconds,
        "Seconds until the certificate of this identity, held by this node, runs out; negative once it has"
    );
    describe_counter!(
        RENEWALS,
        "Tries of this node to renew one of its certificates, by outcome; files that something else replaced are not counted"
    );
    describe_counter!(
        RENEWALS_REFUSED,
        "Renewals that this issuer refused until later, by reason; other refusals are not counted"
    );
    describe_counter!(
        JOINS,
        "Requests at this issuer's join port, by how they ended; connections without a request are not counted"
    );
    describe_counter!(
        RELOADS,
        "Times the configuration was read again, by outcome; the start is not counted"
    );
    describe_gauge!(
        CONFIG_ABSENT,
        "Entries of the configuration in force that go without a certificate, a socket or a place in the announcement"
    );
    describe_gauge!(
        CONFIG_LOADED,
        Unit::Seconds,
        "When the configuration in force was read (Unix time)"
    );
    describe_gauge!(
        DOCUMENTS,
        "Documents by what became of their newest revision on this node; deleted ones are not counted"
    );
    describe_gauge!(
        TAPS_OPEN,
        "Operators who look at live calls of this node now"
    );
    describe_counter!(
        TAPS,
        "Times an operator began to look at live calls of this node to the service; the log says who"
    );
    describe_counter!(
        TAPPED,
        "Calls that an operator wanted to see: sent, left out by the rate, or lost as they came faster than they were fetched"
    );
    describe_counter!(
        PASSES_REFUSED,
        "Passes of operators, for live calls or for a dashboard, that this node refused, by reason"
    );
    describe_counter!(
        SPANS_EXPORTED,
        "Spans that the collector of [trace] took; those of traces that are not sampled are never made"
    );
    describe_counter!(
        SPANS_DROPPED,
        "Spans that the collector of [trace] did not get or did not want, by why"
    );
    describe_counter!(TASK_PANICS, "Tasks of the agent that ended by panic");
    describe_counter!(
        SWALLOWED,
        "What was counted in a series whose names are other, because its metric has all the series that it may have"
    );
    describe_gauge!(BUILD_INFO, "1, with the version that runs as a label");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, Histogram, Key, KeyName, Metadata, Recorder as Record, SharedString,
        with_local_recorder,
    };

    use super::super::cap::CLOSED;
    use super::super::exposition::Format;
    use super::super::recorder::Front;
    use super::*;
    use crate::reason::Reason;

    /// What `work` returned, and the page of what it counted.
    pub(crate) fn recorded<T>(work: impl FnOnce() -> T) -> (T, String) {
        let front = Front::new();
        let recorder = front.recorder();
        let result = with_local_recorder(&front, work);
        (result, recorder.render("", Format::Text))
    }

    /// Notes what is described: name → kind.
    #[derive(Default)]
    struct Notes(Arc<Mutex<BTreeMap<String, &'static str>>>);

    impl Notes {
        fn note(&self, name: KeyName, kind: &'static str, help: &SharedString) {
            let name = name.as_str().to_owned();
            assert!(!help.is_empty(), "{name} has no help");
            assert_eq!(
                self.0.lock().unwrap().insert(name.clone(), kind),
                None,
                "{name} twice"
            );
        }
    }

    impl Record for Notes {
        fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
            self.note(name, "counter", &help);
        }
        fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
            self.note(name, "gauge", &help);
        }
        fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
            self.note(name, "histogram", &help);
        }
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn described() -> BTreeMap<String, &'static str> {
        let notes = Notes::default();
        with_local_recorder(&notes, describe);
        notes.0.lock().unwrap().clone()
    }

    #[test]
    fn every_metric_is_documented_and_nothing_else() {
        let page = include_str!("../../../docs/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut written = BTreeMap::new();
        for row in rows {
            let (name, rest) = row.split_once("` | ").unwrap();
            let kind = rest.split(" | ").next().unwrap();
            assert_eq!(
                written.insert(name.to_owned(), kind),
                None,
                "{name} twice in docs/metrics.md"
            );
        }
        assert_eq!(
            written,
            described(),
            "docs/metrics.md (left) and the code (right) differ"
        );
    }

    /// A label is a name or a word of a closed list, and the page says which.
    #[test]
    fn labels_are_those_of_the_page() {
        let page = include_str!("../../../docs/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let written: BTreeSet<_> = rows
            .filter_map(|row| row.split('|').nth(2))
            .flat_map(|labels| labels.split(','))
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .collect();
        let names = [
            "callee", "caller", "identity", "node", "route", "service", "subset", "version",
        ];
        let known: BTreeSet<_> = names.into_iter().chain(CLOSED).collect();
        assert_eq!(
            written, known,
            "docs/metrics.md (left) and the code (right) differ"
        );
    }

    /// An alert on a metric that does not exist never fires.
    #[test]
    fn alerts_and_dashboards_know_only_metrics_that_exist() {
        let files = [
            include_str!("../../../deploy/prometheus/starling.rules.yml"),
            include_str!("../../../deploy/prometheus/starling.test.yml"),
            include_str!("../../../deploy/grafana/starling.json"),
        ];
        let described = described();
        let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let words = files
            .iter()
            .flat_map(|text| text.split(|c: char| !is_part(c)));
        let names: BTreeSet<_> = words
            .filter(|word| word.starts_with("starling_") || word.starts_with("process_"))
            .map(|word| word.trim_end_matches("_bucket"))
            .collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(described.contains_key(name), "{name}");
        }
    }

    #[test]
    fn names_keep_the_rule() {
        for (name, kind) in described() {
            assert!(
                name.starts_with("starling_") || name.starts_with("process_"),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                kind == "counter",
                "{name} is a {kind}"
            );
        }
    }

    #[test]
    fn the_helpers_count_under_their_names() {
        let orders = ServiceName::parse("orders").unwrap();
        let ((), page) = recorded(|| {
            describe();
            retried(&orders, Reason::ConnectFailed.as_str());
            ejected(&orders, Reason::Timeout.as_str());
            health_checked(&orders, true);
            health(&orders, false);
            svid_expires("spiffe://example.org/svc/orders", 17);
            reloaded(true);
            reloaded(false);
            task_panicked("listener");
        });
        for row in [
            r#"starling_retries_total{callee="orders",reason="connect-failed"} 1"#,
            r#"starling_ejections_total{callee="orders",reason="timeout"} 1"#,
            r#"starling_health_checks_total{service="orders",outcome="passed"} 1"#,
            r#"starling_service_healthy{service="orders"} 0"#,
            r#"starling_svid_expiry_timestamp_seconds{identity="spiffe://example.org/svc/orders"} 17"#,
            r#"starling_config_reloads_total{outcome="refused"} 1"#,
            r#"starling_task_panics_total{task="listener"} 1"#,
            "# HELP starling_ejections_total Times",
            "# TYPE starling_config_loaded_timestamp_seconds gauge",
        ] {
            assert!(page.contains(row), "no {row} in\n{page}");
        }
    }
}
