//! What stands before an app that can do only so much at a time: a bounded queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Tally;

/// Lets so many in and has a few wait, in the order in which they came.
#[derive(Debug)]
pub struct Gate {
    concurrent: u32,
    inside: Arc<Semaphore>,
    waiting: Tally,
}

/// Somebody's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(concurrent: u32) -> Arc<Self> {
        Arc::new(Self {
            concurrent,
            inside: Arc::new(Semaphore::new(concurrent as usize)),
            waiting: Tally::default(),
        })
    }

    /// How many it lets in.
    pub fn concurrent(&self) -> u32 {
        self.concurrent
    }

    /// Waits for a turn: at most `wait`, and with at most `queue` that wait. `None` is a refusal. What `waits` makes is kept
    /// while it does wait.
    pub async fn enter<W>(
        &self,
        queue: u32,
        wait: Duration,
        waits: impl FnOnce() -> W,
    ) -> Option<Turn> {
        let permit = match self.inside.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_full) => {
                let _waiting = (self.waiting.enter(queue)?, waits());
                let turn = self.inside.clone().acquire_owned();
                tokio::time::timeout(wait, turn).await.ok()?.ok()?
            }
        };
        Some(Turn { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn some_are_let_in_some_wait_and_the_rest_is_refused() {
        let gate = Gate::new(2);
        let inside = [
            gate.enter(1, SECOND, || ()).await,
            gate.enter(1, SECOND, || ()).await,
        ];
        assert!(inside.iter().all(Option::is_some));
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(1, SECOND, || ()).await }
        });
        tokio::task::yield_now().await;
        assert!(
            gate.enter(1, SECOND, || ()).await.is_none(),
            "the queue is full"
        );
        drop(inside);
        assert!(waiting.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let gate = Gate::new(1);
        let _inside = gate.enter(1, SECOND, || ()).await.unwrap();
        assert!(gate.enter(1, SECOND, || ()).await.is_none());
        assert_eq!(gate.waiting.count(), 0);
        assert!(gate.enter(0, SECOND, || ()).await.is_none());
    }
}
