//! Which trace a call belongs to, and the span that this agent adds to it.
//!
//! A trace is sampled or not, and whoever began it decides that for all: apps by `traceparent` (W3C Trace Context) or the
//! fields of B3, else the first agent, within the rate of `[trace]`. In a sampled trace each agent makes a span of the
//! call and writes its id into `traceparent`, so that what happens behind it is that span's child. In any other trace,
//! and on a host that exports none, `traceparent` passes as it came: a parent that nobody ever sees would tear the trace
//! apart. A call without a trace gets one that is not sampled, so that the access lines of both ends share its id.
//!
//! Fields of B3 pass untouched. Agents behind this one read `traceparent`, which it always writes.

mod b3;
mod context;
mod id;
mod sampler;
mod span;
mod tracer;

pub use context::{TRACEPARENT, TRACESTATE};
pub use id::{SpanId, TraceId};
pub use span::{Closed, Span};
pub use tracer::{Inbox, Tracer, Traces};

use std::sync::Arc;

use http::HeaderMap;

use context::Context;

/// The trace of a call.
#[derive(Debug)]
pub struct Traced {
    pub trace: TraceId,
    /// If it is sampled and exported from here: what this agent tells of the call.
    pub span: Option<Box<Span>>,
}

/// Finds the trace of the request with these fields, or begins one. The request leaves with exactly one valid
/// `traceparent`. An invalid or repeated one goes, and `tracestate` with it, as the standard demands.
pub fn begin(
    headers: &mut HeaderMap,
    tracer: Option<&Arc<Tracer>>,
    rng: &mut fastrand::Rng,
) -> Traced {
    let came = Context::read(headers);
    let told = came.or_else(|| b3::read(headers)).unwrap_or_default();
    let is_sampled = |tracer: &&Arc<Tracer>| told.is_sampled.unwrap_or_else(|| tracer.samples());
    let tracer = tracer.filter(is_sampled);
    if came.is_none() {
        headers.remove(TRACESTATE);
    }
    let (trace, parent) = told.ids.unzip();
    let trace = trace.unwrap_or_else(|| TraceId::random(rng));
    match tracer {
        Some(tracer) => {
            let span = Span::begin(tracer, trace, parent, headers, rng);
            context::write(headers, trace, span.id(), true);
            let span = Some(Box::new(span));
            Traced { trace, span }
        }
        None => {
            if came.is_none() {
                let parent = parent.unwrap_or_else(|| SpanId::random(rng));
                context::write(headers, trace, parent, told.is_sampled == Some(true));
            }
            Traced { trace, span: None }
        }
    }
}

/// Has a request of the agent's own belong to a trace that nobody records.
pub fn silence(headers: &mut HeaderMap) {
    let mut rng = fastrand::Rng::new();
    let (trace, parent) = (TraceId::random(&mut rng), SpanId::random(&mut rng));
    context::write(headers, trace, parent, false);
}

#[cfg(test)]
mod tests;
