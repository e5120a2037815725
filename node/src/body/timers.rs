//! When a body that is on its way takes too long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::telemetry::series::Traffic;

/// The end of a call's time and of its patience with silence. Made only for calls that have one.
#[derive(Debug)]
pub struct Timers {
    until: Option<Pin<Box<Sleep>>>,
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    patience: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Bytes that had passed when it was last looked at.
    seen: u64,
}

/// The time for the answer is over.
#[derive(Debug, thiserror::Error)]
#[error("no answer within the time allowed")]
pub(super) struct Expired;

impl Timers {
    /// `None` where there is nothing to watch.
    pub fn new(until: Option<Instant>, idle: Option<Duration>) -> Option<Box<Self>> {
        if until.is_none() && idle.is_none() {
            return None;
        }
        let idle = idle.map(|patience| Idle {
            patience,
            sleep: Box::pin(tokio::time::sleep(patience)),
            seen: 0,
        });
        Some(Box::new(Self {
            until: until.map(|until| Box::pin(tokio::time::sleep_until(until))),
            idle,
        }))
    }

    /// Whether the time is over. Registers the task for when it will be.
    pub fn poll(&mut self, traffic: &Traffic, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        match &mut self.idle {
            Some(idle) => idle.poll(traffic, cx),
            None => Poll::Pending,
        }
    }
}

impl Idle {
    /// Bytes in either direction are signs of life, also those of a request that is still being sent.
    fn poll(&mut self, traffic: &Traffic, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = traffic.bytes_in() + traffic.bytes_out();
            if now == self.seen {
                return Poll::Ready(());
            }
            self.seen = now;
            self.sleep.as_mut().reset(Instant::now() + self.patience);
        }
        Poll::Pending
    }
}
