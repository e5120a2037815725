//! The two text formats of `/metrics`: Prometheus' own, and OpenMetrics for those who ask for it.

use std::fmt::{self, Display, Formatter};
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::header::ACCEPT;
use metrics::Key;
use serde::{Deserialize, Serialize};

use super::exemplar::Exemplar;

/// How a page of metrics is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0: the same, with exemplars.
    OpenMetrics,
}

impl Format {
    /// What a request wants. Prometheus asks for OpenMetrics; people and older collectors get text.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let mut ranges = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        if ranges.any(is_open_metrics) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whether one media range of `Accept` names OpenMetrics in a version that we write, and does not refuse it.
fn is_open_metrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_named = parts
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
    is_named
        && parts.all(|part| match part.split_once('=') {
            Some(("version", version)) => version == "1.0.0",
            Some(("q", weight)) => weight.parse::<f32>().is_ok_and(|weight| weight > 0.0),
            _ => true,
        })
}

/// The labels of `key` as they stand between braces.
pub(super) fn labels(key: &Key) -> String {
    let labels = key
        .labels()
        .map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value())));
    labels.collect::<Vec<_>>().join(",")
}

/// As it follows a bucket in OpenMetrics.
impl Display for Exemplar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (trace, value, at) = (&self.trace, self.value, at.as_secs_f64());
        write!(f, "# {{trace_id=\"{trace}\"}} {value} {at:.3}")
    }
}

/// A page in Prometheus' format as one of OpenMetrics, still without its end: there a counter's family is called without
/// `_total`, and no line is empty.
pub(super) fn opened(page: &str) -> String {
    let mut opened = String::with_capacity(page.len());
    for line in page.lines().filter(|line| !line.is_empty()) {
        let family = ["# HELP ", "# TYPE "].into_iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            Some([kind, name.strip_suffix("_total")?, " ", rest])
        });
        match family {
            Some(parts) => opened.extend(parts),
            None => opened.push_str(line),
        }
        opened.push('\n');
    }
    opened
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use metrics::Label;

    use super::*;

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        for (accept, wanted) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;q=0.7, Application/OpenMetrics-text; version=1.0.0; charset=utf-8; q=0.6",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0, text/plain", Format::Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Format::wanted(&headers), wanted, "{accept}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn families_of_counters_have_no_total() {
        let page = "# HELP a_total all of a_total\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\n# TYPE b gauge\nb 1\n\n";
        let opened = opened(page);
        assert_eq!(
            opened,
            "# HELP a all of a_total\n# TYPE a counter\na_total{x=\"1\"} 2\n# TYPE b gauge\nb 1\n"
        );
    }

    #[test]
    fn labels_are_escaped() {
        let label = Label::new("a", "x\"\\\n");
        let key = Key::from_parts("m", vec![label, Label::new("b", "y")]);
        assert_eq!(labels(&key), "a=\"x\\\"\\\\\\n\",b=\"y\"");
    }
}
