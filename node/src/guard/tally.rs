//! How many there are of something.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts what is under way; who counts says how many there may be.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<AtomicU32>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicU32>);

impl Tally {
    /// One more, unless there are `most` already.
    pub fn enter(&self, most: u32) -> Option<Counted> {
        let room = |count: u32| (count < most).then_some(count + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()
            .map(|_before| Counted(self.0.clone()))
    }

    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound() {
        let tally = Tally::default();
        let held: Vec<_> = (0..5).filter_map(|_| tally.enter(3)).collect();
        assert_eq!((held.len(), tally.count()), (3, 3));
        drop(held);
        assert_eq!(tally.count(), 0);
        assert!(tally.enter(0).is_none());
    }
}
