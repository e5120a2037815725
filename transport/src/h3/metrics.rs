//! What this crate counts of HTTP/3.

use metrics::{Unit, counter, describe_counter};

use super::guard::Reason;

/// Messages, streams and connections of peers that were refused, by `reason`.
pub const REFUSED_TOTAL: &str = "starling_h3_refused_total";

/// Gives the recorder the help texts. Call once it is installed.
pub fn describe() {
    describe_counter!(
        REFUSED_TOTAL,
        Unit::Count,
        "HTTP/3 messages and streams of peers refused as malformed or excessive, by reason; not what policy denied"
    );
}

/// Counts one refusal.
pub(super) fn refused(reason: Reason) {
    counter!(REFUSED_TOTAL, "reason" => reason.label()).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ::metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    };

    use super::*;
    use crate::h3::testing::{GET, closed, headers, pair, soon, taken};
    use crate::h3::{Acceptor, Limits};

    /// Keeps what was counted, as `name reason`.
    #[derive(Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    struct Line(String, Arc<Mutex<Vec<String>>>);

    impl CounterFn for Line {
        fn increment(&self, _by: u64) {
            self.1.lock().unwrap().push(self.0.clone());
        }

        fn absolute(&self, _value: u64) {}
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
            let line = format!("{} {}", key.name(), labels.join(" "));
            Counter::from_arc(Arc::new(Line(line, self.0.clone())))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test]
    async fn each_refusal_is_counted_once_and_reaches_nobody() {
        let kept = Kept::default();
        let lines = kept.0.clone();
        let _here = ::metrics::set_default_local_recorder(&kept);
        let pair = pair().await;
        let mut acceptor = Acceptor::start(pair.server.clone(), Limits::default())
            .await
            .unwrap();
        let serving = tokio::spawn(async move { acceptor.next().await.is_none() });
        for bytes in [headers(&GET[1..]), headers(&[("connection", "close")])] {
            let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            taken(&pair.client, &mut recv).await;
        }
        let mut control = pair.client.open_uni().await.unwrap();
        control.write_all(&[0, 0, 0]).await.unwrap();
        closed(&pair.client).await;
        assert!(
            soon(serving).await.unwrap(),
            "a malformed request was served"
        );
        let expected = ["pseudo_header", "connection_field", "settings"];
        let expected = expected.map(|reason| format!("{REFUSED_TOTAL} {reason}"));
        assert_eq!(*lines.lock().unwrap(), expected);
    }
}
