//! Live calls of the whole mesh, for whoever has an operator's pass ([`crate::pass`]).
//!
//! The agent that is asked ([`Tap`]) asks in turn every node that runs or calls the service. Each of them checks the pass
//! by itself, writes into its log who looks at what, and has calls that end go by a [`Filter`] into a bounded queue of that
//! tap ([`Taps`]), which is fetched by questions that wait for a moment. While nobody looks, a call costs one load.

mod call;
mod collect;
mod fields;
mod filter;
mod serve;
mod targets;
mod watch;

use serde::{Deserialize, Serialize};

pub use call::{Call, Field};
pub use collect::{Ask, Asked, News, Tap};
pub use filter::{Filter, FilterError, Wanted};
pub(crate) use serve::handler;
pub use watch::Taps;

/// What a node is asked, again and again, by the agent that collects.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question {
    pass: String,
    /// Names the tap among those of the node that asks: 32 hexadecimal digits.
    tap: String,
    wanted: Wanted,
    /// Nobody looks any more.
    #[serde(default)]
    done: bool,
}

/// What it answers: the calls that ended since it was asked before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Batch {
    calls: Vec<Call>,
    /// Calls that the rate left out.
    left_out: u64,
    /// Calls that came faster than they were fetched.
    lost: u64,
}

/// Where it is asked.
const PATH: &str = "/v1/tap";

#[cfg(test)]
mod tests;
