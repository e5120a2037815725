//! Histograms of durations with exemplars, which the exporter's have not.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{HistogramFn, Key, KeyName, SharedString};

use super::exemplar::{self, Exemplar};
use super::exposition::{self, Format};

/// Upper bounds in seconds: a step of 2 to 2.5 from half a millisecond, which the mesh alone takes, to half a minute,
/// where callers have given up.
const BOUNDS_S: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// All histograms: by metric, then by labels as they are shown.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    series: Mutex<BTreeMap<String, BTreeMap<String, Arc<Durations>>>>,
    help: Mutex<BTreeMap<String, SharedString>>,
}

/// One series. Written without waiting for anybody.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [Bucket; BOUNDS_S.len() + 1],
    nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    exemplar: Mutex<Option<Exemplar>>,
}

impl Histograms {
    pub(super) fn describe(&self, name: &KeyName, help: SharedString) {
        let mut all = self.help.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.as_str().to_owned(), help);
    }

    /// The series of `key`, new if it has none.
    pub(super) fn get(&self, key: &Key) -> Arc<Durations> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let by_labels = series.entry(key.name().to_owned()).or_default();
        by_labels
            .entry(exposition::labels(key))
            .or_default()
            .clone()
    }

    pub(super) fn write(&self, page: &mut String, format: Format) -> fmt::Result {
        let help = self
            .help
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let series = self
            .series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (name, by_labels) in series {
            if let Some(help) = help.get(&name) {
                writeln!(page, "# HELP {name} {help}")?;
            }
            writeln!(page, "# TYPE {name} histogram")?;
            for (labels, durations) in by_labels {
                durations.write(page, &name, &labels, format)?;
            }
        }
        Ok(())
    }
}

impl Durations {
    fn write(&self, page: &mut String, name: &str, labels: &str, format: Format) -> fmt::Result {
        let bounds = BOUNDS_S.iter().map(ToString::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.count.load(Ordering::Relaxed);
            write!(
                page,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
            )?;
            if let (Format::OpenMetrics, Some(exemplar)) = (format, bucket.exemplar()) {
                write!(page, " {exemplar}")?;
            }
            page.push('\n');
        }
        let sum = self.nanos.load(Ordering::Relaxed) as f64 / NANOS_PER_S;
        writeln!(page, "{name}_sum{{{labels}}} {sum}")?;
        writeln!(page, "{name}_count{{{labels}}} {count}")
    }
}

impl HistogramFn for Durations {
    fn record(&self, seconds: f64) {
        let bucket = &self.buckets[BOUNDS_S.partition_point(|bound| *bound < seconds)];
        bucket.count.fetch_add(1, Ordering::Relaxed);
        let nanos = (seconds * NANOS_PER_S) as u64;
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(exemplar) = exemplar::of_current(seconds) {
            bucket.show(exemplar);
        }
    }
}

impl Bucket {
    /// Whoever finds another at it leaves it at that.
    fn show(&self, exemplar: Exemplar) {
        let Ok(mut shown) = self.exemplar.try_lock() else {
            return;
        };
        if shown
            .as_ref()
            .is_none_or(|shown| shown.yields_to(&exemplar))
        {
            *shown = Some(exemplar);
        }
    }

    fn exemplar(&self) -> Option<Exemplar> {
        let shown = self.exemplar.lock();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const NANOS_PER_S: f64 = 1e9;

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;
    use crate::telemetry::trace::TraceId;

    fn page(histograms: &Histograms, format: Format) -> String {
        let mut page = String::new();
        histograms.write(&mut page, format).unwrap();
        page
    }

    #[test]
    fn buckets_add_up_and_show_one_call_to_those_who_ask() {
        let histograms = Histograms::default();
        let name = KeyName::from("a_seconds");
        histograms.describe(&name, "how long".into());
        let key = Key::from_parts(name, vec![Label::new("callee", "orders")]);
        let trace = TraceId::parse(b"4bf92f3577b34da6a3ce929d0e0e4736");
        let durations = histograms.get(&key);
        exemplar::of(trace, false, || durations.record(0.0005));
        durations.record(0.7);
        histograms.get(&key).record(60.0);

        let text = page(&histograms, Format::Text);
        for row in [
            "# HELP a_seconds how long\n# TYPE a_seconds histogram\n",
            "a_seconds_bucket{callee=\"orders\",le=\"0.0005\"} 1\n",
            "a_seconds_bucket{callee=\"orders\",le=\"0.5\"} 1\n",
            "a_seconds_bucket{callee=\"orders\",le=\"1\"} 2\n",
            "a_seconds_bucket{callee=\"orders\",le=\"+Inf\"} 3\n",
            "a_seconds_sum{callee=\"orders\"} 60.7005\n",
            "a_seconds_count{callee=\"orders\"} 3\n",
        ] {
            assert!(text.contains(row), "no {row} in\n{text}");
        }
        assert!(!text.contains("trace_id"), "{text}");
        let open = page(&histograms, Format::OpenMetrics);
        let row = r#"le="0.0005"} 1 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.0005 "#;
        assert!(open.contains(row), "no {row} in\n{open}");
        assert_eq!(open.matches("trace_id").count(), 1, "{open}");
    }

    #[test]
    fn a_bucket_keeps_its_example_for_a_while() {
        let bucket = Bucket::default();
        let then = std::time::SystemTime::now();
        let shown = |value, is_sampled, after_ms| {
            bucket.show(Exemplar {
                trace: TraceId::parse(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
                is_sampled,
                value,
                at: then + std::time::Duration::from_millis(after_ms),
            });
            bucket.exemplar().unwrap().value
        };
        assert_eq!(shown(1.0, false, 0), 1.0);
        assert_eq!(shown(2.0, false, 10), 1.0);
        assert_eq!(shown(3.0, false, 10_000), 3.0);
        // A clock that was set back.
        assert_eq!(shown(4.0, false, 0), 4.0);
        // One that a collector has is worth more, for a while.
        assert_eq!(shown(5.0, true, 10), 5.0);
        assert_eq!(shown(6.0, false, 20_000), 5.0);
        assert_eq!(shown(7.0, true, 20_000), 7.0);
        assert_eq!(shown(8.0, false, 90_000), 8.0);
    }
}
