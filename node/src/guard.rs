//! What keeps calls within bounds: how many at a time, how fast, how often again.

mod book;
mod budget;
mod gate;
pub(crate) mod rate;
mod tally;
mod usage;

pub use book::Guards;
pub use budget::RetryBudget;
pub use gate::{Gate, Turn};
pub use rate::Rates;
pub use tally::{Counted, Tally};
pub use usage::Usage;

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{HeaderValue, RETRY_AFTER};

use crate::grpc::Tongue;
use crate::reason::Reason;

/// Why a call goes no further, and when it may be tried again if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub after: Option<Duration>,
}

/// What a call holds for as long as it lasts.
#[derive(Debug, Default)]
pub struct Held {
    _counted: Option<Counted>,
    _turn: Option<Turn>,
}

impl Held {
    /// At the caller: a place among the requests under way.
    pub fn counted(counted: Option<Counted>) -> Self {
        Self {
            _counted: counted,
            _turn: None,
        }
    }

    /// At the callee: a turn at the app.
    pub fn turn(turn: Option<Turn>) -> Self {
        Self {
            _counted: None,
            _turn: turn,
        }
    }
}

impl Refusal {
    /// For want of room. It is only known that it will not be at once.
    pub fn overloaded() -> Self {
        Self {
            reason: Reason::Overloaded,
            after: Some(Duration::from_secs(1)),
        }
    }

    /// A call that came `early`.
    pub fn too_fast(early: Duration) -> Self {
        Self {
            reason: Reason::RateLimited,
            after: Some(early),
        }
    }

    /// The response that says so to a caller of this tongue.
    pub fn response(self, tongue: Tongue, service: &str) -> Response<Bytes> {
        let mut response = tongue.failure(self.reason, service);
        if let Some(after) = self.after {
            // Whole seconds, and never less than it takes.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            after: None,
        }
    }
}
