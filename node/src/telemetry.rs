//! What the agent tells of its work: logs, one access line per request or connection, metrics, an hour of who called
//! whom, trace ids.

pub mod access;
pub mod edges;
pub mod log;
pub mod metrics;
mod process;
pub mod series;
pub mod trace;

pub use access::{AccessLine, Ended};
pub use series::{Series, Side, Traffic};
