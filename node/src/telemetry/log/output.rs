//! Standard error, where access lines that follow each other closely are written together: a system call for each would
//! cost a call more than everything else that is told of it.
//!
//! Whatever is no access line is written at once, and those before it with it, so the order of lines is that of events.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::access;

/// Where lines go. Cheap to clone.
#[derive(Debug)]
pub(super) struct Output<W>(Arc<Shared<W>>);

#[derive(Debug)]
struct Shared<W> {
    lines: Mutex<Lines>,
    /// A first line waits.
    begun: Notify,
    /// Held while lines are written, so that they keep their order; not by those who only add one.
    to: Mutex<W>,
}

/// Lines that wait.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    written: Option<Instant>,
}

/// Takes one line.
#[derive(Debug)]
pub(super) struct Line<'o, W> {
    output: &'o Shared<W>,
    can_wait: bool,
}

impl<W> Clone for Output<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write> Output<W> {
    pub(super) fn new(to: W) -> Self {
        Self(Arc::new(Shared {
            lines: Mutex::default(),
            begun: Notify::new(),
            to: Mutex::new(to),
        }))
    }

    /// Sees to it that no line waits for long, nor anybody for lines that do not come. Never ends.
    pub(super) async fn write_often(self) {
        loop {
            self.0.begun.notified().await;
            tokio::time::sleep(WAIT_MAX).await;
            self.flush();
        }
    }

    /// Writes the lines that wait.
    pub(super) fn flush(&self) {
        // Nobody is left to tell that there is nobody to tell.
        let _lost = self.0.write(&mut lock(&self.0.to));
    }
}

impl<W: Write> Shared<W> {
    /// Adds a line, and writes all if there are enough.
    fn add(&self, line: &[u8], can_wait: bool) -> io::Result<()> {
        let (waiting, is_busy) = {
            let mut lines = lock(&self.lines);
            lines.bytes.extend_from_slice(line);
            let is_busy = lines.written.is_some_and(|at| at.elapsed() < WAIT_MAX);
            (lines.bytes.len(), is_busy)
        };
        if can_wait && is_busy && waiting < FULL_BYTES {
            if waiting == line.len() {
                self.begun.notify_one();
            }
            return Ok(());
        }
        // Whoever writes already will take this line along or leave it to the next, but not without end.
        match self.to.try_lock() {
            Ok(mut to) => self.write(&mut to),
            Err(_busy) if can_wait && waiting < WAITING_BYTES_MAX => Ok(()),
            Err(_busy) => self.write(&mut lock(&self.to)),
        }
    }

    fn write(&self, to: &mut W) -> io::Result<()> {
        let mut bytes = {
            let mut lines = lock(&self.lines);
            lines.written = Some(Instant::now());
            std::mem::take(&mut lines.bytes)
        };
        let written = to.write_all(&bytes).and_then(|()| to.flush());
        // Its room is used again.
        bytes.clear();
        let mut lines = lock(&self.lines);
        if lines.bytes.capacity() == 0 && bytes.capacity() <= 2 * FULL_BYTES {
            lines.bytes = bytes;
        }
        written
    }
}

impl<'o, W: Write + 'o> MakeWriter<'o> for Output<W> {
    type Writer = Line<'o, W>;

    fn make_writer(&'o self) -> Line<'o, W> {
        Line {
            output: &self.0,
            can_wait: false,
        }
    }

    fn make_writer_for(&'o self, event: &Metadata<'_>) -> Line<'o, W> {
        Line {
            output: &self.0,
            can_wait: event.target() == access::TARGET,
        }
    }
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.add(line, self.can_wait)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines that are worth a system call: some hundred, so that it costs each next to nothing.
const FULL_BYTES: usize = 32 * 1024;

/// What may wait for a reader that is slow; past it calls wait for the reader, as nothing is dropped.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// How long an access line waits for others at most. One that comes so long after the last does not wait at all.
const WAIT_MAX: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::log::layer;
    use crate::telemetry::log::tests::Sink;

    /// What `work` logged, and how many times something was written.
    fn logged(work: impl FnOnce(&Output<Sink>)) -> Vec<String> {
        let sink = Sink::default();
        let output = Output::new(sink.clone());
        let subscriber =
            tracing_subscriber::registry().with(layer(LogFormat::Text, output.clone()));
        tracing::subscriber::with_default(subscriber, || work(&output));
        output.flush();
        sink.lines()
    }

    fn access(number: usize) {
        tracing::info!(target: access::TARGET, number, "request");
    }

    #[tokio::test(start_paused = true)]
    async fn access_lines_wait_for_others_and_everything_keeps_its_order() {
        let sink = Sink::default();
        let output = Output::new(sink.clone());
        let subscriber =
            tracing_subscriber::registry().with(layer(LogFormat::Text, output.clone()));
        tracing::subscriber::with_default(subscriber, || {
            access(1);
            assert_eq!(sink.lines().len(), 1, "nothing follows it closely");
            access(2);
            assert_eq!(sink.lines().len(), 1);
            tracing::info!("something happened");
            assert_eq!(sink.lines().len(), 3, "what happened, and what was before");
            access(3);
            output.flush();
            access(4);
        });
        let lines = sink.lines();
        let ends = ["number=1", "number=2", "something happened", "number=3"];
        assert_eq!(lines.len(), ends.len());
        assert!(
            lines
                .iter()
                .zip(ends)
                .all(|(line, end)| line.ends_with(end)),
            "{lines:?}"
        );
    }

    #[test]
    fn many_are_written_before_anybody_asks() {
        let lines = logged(|output| {
            (0..2000).for_each(access);
            assert!(lock(&output.0.lines).bytes.len() < FULL_BYTES);
        });
        assert_eq!(lines.len(), 2000);
        assert!(
            lines
                .iter()
                .enumerate()
                .all(|(at, line)| line.ends_with(&format!("number={at}")))
        );
    }
}
