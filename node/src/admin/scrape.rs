//! Metrics over HTTP: this node's, other nodes', and the list of all for Prometheus.

use http::header::HOST;
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, json, text, whole};
use super::view::Source;
use crate::telemetry::Format;

/// The node that `path` wants the metrics of.
pub(super) fn node(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/nodes/")?.strip_suffix("/metrics")
}

pub(super) fn own(headers: &HeaderMap, source: &dyn Source) -> Answer {
    let format = Format::wanted(headers);
    page(format, source.metrics(format))
}

pub(super) async fn of(node: &str, headers: &HeaderMap, source: &dyn Source) -> Answer {
    let format = Format::wanted(headers);
    match source.metrics_of(node.to_owned(), format).await {
        Ok(metrics) => page(format, metrics),
        Err(why) => text(StatusCode::BAD_GATEWAY, format!("{why}\n")),
    }
}

/// What Prometheus' HTTP service discovery expects. It reaches us at the address that it asked at.
pub(super) fn targets(headers: &HeaderMap, source: &dyn Source) -> Answer {
    let address = headers.get(HOST).and_then(|host| host.to_str().ok());
    json(&source.scraped(address.unwrap_or_default()))
}

fn page(format: Format, metrics: String) -> Answer {
    whole(StatusCode::OK, format.content_type(), metrics)
}
