//! What the agent tells of its work: logs, one access line per request or connection, metrics, trace ids.

pub mod metrics;
mod process;
pub mod trace;
