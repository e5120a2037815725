//! What the agent tells of its work: logs, one access line per request or connection, metrics, an hour of who called
//! whom, trace ids.

pub mod access;
mod cap;
mod durations;
pub mod edges;
mod exemplar;
mod exposition;
pub mod log;
pub mod metrics;
pub mod otlp;
mod outcomes;
pub(crate) mod process;
pub(crate) mod quic;
mod recorder;
pub mod series;
pub mod trace;

pub use access::{AccessLine, Ended};
pub use exposition::Format;
pub use recorder::Recorder;
pub use series::{Series, Side, Traffic};
