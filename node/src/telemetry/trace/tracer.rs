//! Which traces are sampled here, and the queue between the calls and the exporter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Closed;
use super::sampler::Sampler;
use crate::config::Trace;
use crate::telemetry::metrics;
use crate::telemetry::otlp::{Exporter, Place};

/// Samples traces and takes in spans, for as long as one setting of `[trace]` is in force. Nobody ever waits for it.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Box<Closed>>,
    /// Wakes the exporter before its time.
    hurry: Arc<Notify>,
}

/// The tracer in force, and the exporters that still have something to say.
#[derive(Debug)]
pub struct Traces {
    place: Place,
    current: ArcSwapOption<Tracer>,
    setting: Mutex<Trace>,
    exporters: Mutex<JoinSet<()>>,
    closing: CancellationToken,
}

impl Tracer {
    pub(super) fn new(per_second: u32) -> (Self, Inbox) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let hurry = Arc::<Notify>::default();
        let tracer = Self {
            sampler: Sampler::new(per_second, Instant::now()),
            queue,
            hurry: hurry.clone(),
        };
        (tracer, Inbox { spans, hurry })
    }

    /// Whether a trace that begins here is sampled.
    pub(super) fn samples(&self) -> bool {
        self.sampler.samples(Instant::now())
    }

    /// Has a span exported, if there is room.
    pub(super) fn take(&self, span: Box<Closed>) {
        match self.queue.try_send(span) {
            Ok(()) if self.queue.capacity() < QUEUE_MAX - BATCH_MAX => self.hurry.notify_one(),
            Ok(()) => {}
            Err(_full_or_over) => metrics::spans_dropped("queue_full", 1),
        }
    }
}

/// The exporter's end of the queue.
#[derive(Debug)]
pub struct Inbox {
    spans: mpsc::Receiver<Box<Closed>>,
    hurry: Arc<Notify>,
}

impl Inbox {
    /// Waits until it is time to look: now and then, or when a batch is full. It is not woken by each span, which would
    /// take a turn of the runtime from the calls.
    pub async fn ripen(&self) {
        let _looks = tokio::time::timeout(EVERY, self.hurry.notified()).await;
    }

    /// What there is, up to a batch.
    pub fn batch(&mut self) -> Vec<Box<Closed>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.spans.is_closed() && self.spans.is_empty()
    }

    /// Spans that are left.
    pub fn left(&self) -> usize {
        self.spans.len()
    }
}

impl Traces {
    /// None are exported yet.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            current: ArcSwapOption::empty(),
            setting: Mutex::default(),
            exporters: Mutex::default(),
            closing: CancellationToken::new(),
        }
    }

    /// None while no spans are exported.
    pub fn current(&self) -> Guard<Option<Arc<Tracer>>> {
        self.current.load()
    }

    /// Puts `[trace]` in force. Spans of calls that began before go where they would have gone. In a runtime.
    pub fn configure(&self, setting: &Trace) {
        let mut before = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == *setting {
            return;
        }
        *before = setting.clone();
        let tracer = setting.collector.as_ref().map(|collector| {
            let (tracer, inbox) = Tracer::new(setting.sample);
            let exporter = Exporter::new(collector, self.place.clone(), inbox);
            let mut exporters = self
                .exporters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            while exporters.try_join_next().is_some() {}
            exporters.spawn(exporter.run(self.closing.clone()));
            Arc::new(tracer)
        });
        self.current.store(tracer);
    }

    /// Exports what is left, if that can be done in this time. No call is under way any more.
    pub async fn close(&self, within: Duration) {
        self.closing.cancel();
        let mut exporters = {
            let mut exporters = self
                .exporters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *exporters)
        };
        let all = async { while exporters.join_next().await.is_some() {} };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("the last spans are lost: the collector did not take them in time");
        }
    }
}

/// Spans that wait to be exported; past it they are dropped and counted. About 1 MiB as calls are, at most 4 MiB with
/// the longest paths and names.
const QUEUE_MAX: usize = 2048;

/// Spans in one message: some 500 KiB, an eighth of what servers of gRPC take unless told otherwise.
const BATCH_MAX: usize = 512;

/// How long a span waits for others at most.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::telemetry::access::AccessLine;
    use crate::telemetry::metrics::tests::recorded;
    use crate::telemetry::series::{Series, Side};

    /// What a slow collector costs: a queue of so much, and no time.
    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let ((), page) = recorded(|| {
            let (tracer, mut inbox) = Tracer::new(u32::MAX);
            let tracer = Arc::new(tracer);
            let series = Series::new(
                Side::Caller,
                "web",
                "orders",
                Protocol::Http,
                Arc::default(),
            );
            for _ in 0..QUEUE_MAX + 3 {
                let mut line = AccessLine::request(&series, &http::Method::GET, "/");
                line.trace(&mut http::HeaderMap::new(), Some(&tracer));
                line.finish();
            }
            assert_eq!(inbox.left(), QUEUE_MAX);
            assert_eq!(inbox.batch().len(), BATCH_MAX);
            assert!(!inbox.is_over());
            drop(tracer);
            while !inbox.batch().is_empty() {}
            assert!(inbox.is_over());
        });
        let row = r#"starling_spans_dropped_total{reason="queue_full"} 3"#;
        assert!(page.contains(row), "{page}");
    }
}
