//! What the calls of one caller to one service share, however they are routed.

use tokio::time::Instant;

use super::{RetryBudget, Tally};
use crate::config::Budget;

/// The use that one caller of this node makes of one service.
#[derive(Debug)]
pub struct Usage {
    pub retries: RetryBudget,
    /// TCP connections open.
    pub connections: Tally,
    /// Calls that wait for an instance.
    pub pending: Tally,
    /// Requests under way.
    pub concurrent: Tally,
}

impl Usage {
    pub fn new(budget: &Budget, now: Instant) -> Self {
        Self {
            retries: RetryBudget::new(budget, now),
            connections: Tally::default(),
            pending: Tally::default(),
            concurrent: Tally::default(),
        }
    }
}
