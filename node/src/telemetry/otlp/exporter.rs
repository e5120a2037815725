//! Takes spans out of the queue and brings them to the collector. What it cannot bring in time it drops and counts: no
//! call ever waits for it, and nothing grows.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Place};
use super::collector::{Collector, Failure, Taken};
use crate::config;
use crate::host::PanicCount;
use crate::telemetry::metrics;
use crate::telemetry::trace::{Closed, Inbox};

/// Brings spans to one collector.
#[derive(Debug)]
pub struct Exporter {
    collector: Collector,
    place: Place,
    inbox: Inbox,
    /// Whether the last message failed, so that trouble is told once and not each second.
    is_in_trouble: bool,
}

impl Exporter {
    pub fn new(collector: &config::Collector, place: Place, inbox: Inbox) -> Self {
        Self {
            collector: Collector::new(collector),
            place,
            inbox,
            is_in_trouble: false,
        }
    }

    /// Runs until nothing more can come. Once `closing`, brings what is left with one try each.
    pub async fn run(mut self, closing: CancellationToken) {
        let _counted = PanicCount("trace exporter");
        while !self.inbox.is_over() {
            closing.run_until_cancelled(self.inbox.ripen()).await;
            loop {
                let spans = self.inbox.batch();
                if spans.is_empty() {
                    break;
                }
                self.export(&spans, &closing).await;
            }
            if closing.is_cancelled() {
                return;
            }
        }
    }

    async fn export(&mut self, spans: &[Box<Closed>], closing: &CancellationToken) {
        let count = spans.len() as u64;
        let message = Bytes::from(batch::encode(spans, &self.place));
        match self.bring(&message, closing).await {
            Ok(taken) => {
                if !taken.message.is_empty() {
                    let (rejected, said) = (taken.rejected, &*taken.message);
                    tracing::warn!(rejected, said, "the collector did not want all spans");
                }
                let rejected = taken.rejected.min(count);
                metrics::spans_dropped("refused", rejected);
                metrics::spans_exported(count - rejected);
                if std::mem::take(&mut self.is_in_trouble) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(failure) => {
                metrics::spans_dropped(reason(&failure), count);
                if !std::mem::replace(&mut self.is_in_trouble, true) {
                    let error: &(dyn std::error::Error + 'static) = &failure;
                    tracing::warn!(error, "spans are not exported, and dropped meanwhile");
                }
            }
        }
    }

    /// Tries until the message is taken, refused, or too old to be worth it.
    async fn bring(&self, message: &Bytes, closing: &CancellationToken) -> Result<Taken, Failure> {
        let mut tries = 0;
        loop {
            let failure = match self.collector.send(message).await {
                Ok(taken) => return Ok(taken),
                Err(failure) => failure,
            };
            tries += 1;
            let Some(pause) = pause(&failure, tries) else {
                return Err(failure);
            };
            let pause = pause.mul_f64(1.0 - fastrand::f64() / 2.0);
            let rest = tokio::time::sleep(pause);
            if closing.run_until_cancelled(rest).await.is_none() {
                return Err(failure);
            }
        }
    }
}

/// How long to wait before the next try, if there is to be one.
fn pause(failure: &Failure, tries: u32) -> Option<Duration> {
    let backoff = PAUSE * 2_u32.pow(tries - 1);
    let pause = match failure {
        Failure::Refused(_) => return None,
        Failure::Unreachable(_) | Failure::Busy(_, None) => backoff,
        Failure::Busy(_, Some(asked)) => backoff.max(*asked),
    };
    (tries < TRIES_MAX && pause <= PAUSE_MAX).then_some(pause)
}

fn reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::Unreachable(_) => "unreachable",
        Failure::Busy(..) => "busy",
        Failure::Refused(_) => "refused",
    }
}

/// Tries for one message. Those of a collector that restarts are done within its pauses; for longer the queue, not the
/// message, is where spans wait.
const TRIES_MAX: u32 = 4;

/// Before the second try; doubled before each further one, and shortened by up to half at random.
const PAUSE: Duration = Duration::from_secs(1);

/// A collector that wants to be left alone for longer gets the next message, not this one.
const PAUSE_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_few_and_further_and_further_apart() {
        let gone = Failure::Unreachable(String::new());
        let seconds = |failure: &Failure, tries| pause(failure, tries).map(|pause| pause.as_secs());
        assert_eq!(
            [1, 2, 3, 4].map(|tries| seconds(&gone, tries)),
            [Some(1), Some(2), Some(4), None]
        );
        let asks = |after| Failure::Busy(String::new(), Some(Duration::from_secs(after)));
        assert_eq!(seconds(&asks(7), 1), Some(7));
        assert_eq!(seconds(&asks(600), 1), None);
        assert_eq!(seconds(&Failure::Refused(String::new()), 1), None);
    }
}
