//! Spans on their way to a collector of OpenTelemetry, by OTLP over HTTP or gRPC.

mod attributes;
mod batch;
mod collector;
mod exporter;
mod proto;

pub use batch::Place;
pub use exporter::Exporter;
