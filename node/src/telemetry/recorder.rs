//! The recorder of this process: counters and gauges are the exporter's, histograms our own, and all of them bounded.

use std::fmt;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata,
    SharedString, Unit, gauge, set_global_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::cap::Cap;
use super::durations::Histograms;
use super::exposition::{Format, opened};
use super::{metrics as names, process};

/// Shows what this process counts. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    exporter: PrometheusHandle,
    histograms: Arc<Histograms>,
}

/// Another recorder is installed in this process.
#[derive(Debug, thiserror::Error)]
#[error("metrics are already being recorded")]
pub struct AlreadyInstalled;

/// Takes what is counted.
pub(super) struct Front {
    exporter: PrometheusRecorder,
    histograms: Arc<Histograms>,
    cap: Cap,
}

/// A series for all names that came when there was no room for more.
struct Shared<H> {
    series: H,
    swallowed: Counter,
}

impl Recorder {
    /// Makes this process record what it counts. Once per process, before any handle is fetched.
    pub fn install() -> Result<Self, AlreadyInstalled> {
        let front = Front::new();
        let recorder = front.recorder();
        set_global_recorder(front).map_err(|_refused| AlreadyInstalled)?;
        names::describe();
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(recorder)
    }

    /// Shows what nobody counts.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Front::new().recorder()
    }

    /// All metrics, those of the process as of now. `more` is what others write of theirs, as text.
    pub fn render(&self, more: &str, format: Format) -> String {
        process::record();
        let page = self.exporter.render() + &process::cpu() + more;
        let written = match format {
            Format::Text => self.with_histograms(page, format),
            Format::OpenMetrics => self
                .with_histograms(opened(&page), format)
                .map(|page| page + "# EOF\n"),
        };
        written.expect("text can be written")
    }

    fn with_histograms(&self, mut page: String, format: Format) -> Result<String, fmt::Error> {
        self.histograms.write(&mut page, format)?;
        Ok(page)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Front {
    pub(super) fn new() -> Self {
        Self {
            exporter: PrometheusBuilder::new().build_recorder(),
            histograms: Arc::default(),
            cap: Cap::default(),
        }
    }

    pub(super) fn recorder(&self) -> Recorder {
        Recorder {
            exporter: self.exporter.handle(),
            histograms: self.histograms.clone(),
        }
    }

    /// Counts what is counted under another name than its own.
    fn swallowed(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let metric = Label::new("metric", key.name().to_owned());
        let key = Key::from_parts(names::SWALLOWED, vec![metric]);
        metrics::Recorder::register_counter(&self.exporter, &key, metadata)
    }
}

impl metrics::Recorder for Front {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.exporter.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.exporter.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.histograms.describe(&name, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let Some(other) = self.cap.instead_of(key) else {
            return self.exporter.register_counter(key, metadata);
        };
        Counter::from_arc(Arc::new(Shared {
            series: self.exporter.register_counter(&other, metadata),
            swallowed: self.swallowed(key, metadata),
        }))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let Some(other) = self.cap.instead_of(key) else {
            return self.exporter.register_gauge(key, metadata);
        };
        Gauge::from_arc(Arc::new(Shared {
            series: self.exporter.register_gauge(&other, metadata),
            swallowed: self.swallowed(key, metadata),
        }))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let Some(other) = self.cap.instead_of(key) else {
            return Histogram::from_arc(self.histograms.get(key));
        };
        Histogram::from_arc(Arc::new(Shared {
            series: Histogram::from_arc(self.histograms.get(&other)),
            swallowed: self.swallowed(key, metadata),
        }))
    }
}

impl CounterFn for Shared<Counter> {
    fn increment(&self, value: u64) {
        self.series.increment(value);
        self.swallowed.increment(1);
    }

    /// The level of one says nothing of all.
    fn absolute(&self, _: u64) {
        self.swallowed.increment(1);
    }
}

impl GaugeFn for Shared<Gauge> {
    fn increment(&self, value: f64) {
        self.series.increment(value);
        self.swallowed.increment(1);
    }

    fn decrement(&self, value: f64) {
        self.series.decrement(value);
        self.swallowed.increment(1);
    }

    /// The level of one says nothing of all.
    fn set(&self, _: f64) {
        self.swallowed.increment(1);
    }
}

impl HistogramFn for Shared<Histogram> {
    fn record(&self, value: f64) {
        self.series.record(value);
        self.swallowed.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};

    use super::super::cap::SERIES_MAX;
    use super::*;

    fn page(format: Format, work: impl FnOnce()) -> String {
        let front = Front::new();
        let recorder = front.recorder();
        with_local_recorder(&front, || {
            names::describe();
            work();
        });
        recorder.render("", format)
    }

    #[test]
    fn names_without_end_make_series_with_an_end() {
        let page = page(Format::Text, || {
            for name in 0..SERIES_MAX + 500 {
                let labels = [
                    ("callee", name.to_string()),
                    ("reason", "denied".to_owned()),
                ];
                let retries = counter!(names::RETRIES, &labels);
                retries.increment(3);
                gauge!(names::CALLS_OPEN, &labels).increment(1.0);
                histogram!(names::REQUEST_DURATION, &labels).record(0.1);
            }
            gauge!(names::CALLS_OPEN, "callee" => "late").set(77.0);
        });
        let count = |start: &str| page.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("starling_retries_total{"), SERIES_MAX + 1);
        assert_eq!(
            count("starling_request_duration_seconds_count{"),
            SERIES_MAX + 1
        );
        for row in [
            r#"starling_retries_total{callee="other",reason="denied"} 1500"#,
            r#"starling_calls_open{callee="other",reason="denied"} 500"#,
            r#"starling_calls_open{callee="other"} 0"#,
            r#"starling_request_duration_seconds_count{callee="other",reason="denied"} 500"#,
            r#"starling_series_swallowed_total{metric="starling_retries_total"} 500"#,
            r#"starling_series_swallowed_total{metric="starling_calls_open"} 501"#,
        ] {
            assert!(page.contains(row), "no {row}");
        }
    }

    #[test]
    fn open_metrics_ends_where_it_says_and_has_no_empty_line() {
        let page = page(Format::OpenMetrics, || {
            counter!(names::RETRIES, "callee" => "orders").increment(1);
        });
        assert!(
            page.ends_with("\n# EOF\n") && !page.contains("\n\n"),
            "{page}"
        );
        for row in [
            "# TYPE starling_retries counter\n",
            "starling_retries_total{callee=\"orders\"} 1\n",
            "# TYPE process_cpu_seconds counter\n",
        ] {
            assert!(page.contains(row), "no {row} in\n{page}");
        }
    }
}
