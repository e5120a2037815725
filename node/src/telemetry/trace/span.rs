//! One call as this agent tells it to a trace: open while the call is under way, then closed and on its way to a
//! collector. Each try of a caller's call is a span of its own, as OpenTelemetry's conventions want.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use starling_gossip::NodeName;

use super::{SpanId, TraceId, Tracer, context};
use crate::grpc::{self, Tongue};
use crate::reason::Reason;
use crate::telemetry::access::Ended;
use crate::telemetry::series::Series;

/// A call of a sampled trace, or one try of it, under way.
#[derive(Debug)]
pub struct Span {
    tracer: Arc<Tracer>,
    trace: TraceId,
    parent: Option<SpanId>,
    id: SpanId,
    /// Of the call.
    began: SystemTime,
    /// From then to the begin of this try.
    since: Duration,
    /// Tries before this one.
    resends: u32,
    tongue: Tongue,
    grpc_status: Option<u16>,
}

/// What there is to tell of a call, or a try, that is over.
#[derive(Debug)]
pub struct Closed {
    pub trace: TraceId,
    pub parent: Option<SpanId>,
    pub id: SpanId,
    pub series: Arc<Series>,
    pub caller: Box<str>,
    pub instance: Option<NodeName>,
    pub method: Option<Method>,
    pub path: Option<Box<str>>,
    pub status: Option<StatusCode>,
    pub reason: Option<Reason>,
    pub rule: Option<Box<str>>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub resends: u32,
    pub tongue: Tongue,
    /// Of gRPC only, where the app told it.
    pub grpc_status: Option<u16>,
}

impl Span {
    pub(super) fn begin(
        tracer: &Arc<Tracer>,
        trace: TraceId,
        parent: Option<SpanId>,
        headers: &HeaderMap,
        rng: &mut fastrand::Rng,
    ) -> Self {
        Self {
            tracer: tracer.clone(),
            trace,
            parent,
            id: SpanId::random(rng),
            began: SystemTime::now(),
            since: Duration::ZERO,
            resends: 0,
            tongue: Tongue::of(headers),
            grpc_status: None,
        }
    }

    pub fn id(&self) -> SpanId {
        self.id
    }

    /// Begins the next try, `since` the begin of the call. What it asks of others is its child.
    pub fn again(&mut self, since: Duration, headers: &mut HeaderMap, rng: &mut fastrand::Rng) {
        self.id = SpanId::random(rng);
        self.since = since;
        self.resends += 1;
        self.grpc_status = None;
        context::write(headers, self.trace, self.id, true);
    }

    /// Looks at the fields or trailers of an answer for what they say of its end.
    pub fn note(&mut self, fields: &HeaderMap) {
        if self.tongue == Tongue::Grpc {
            self.grpc_status = grpc::told_status(fields).or(self.grpc_status);
        }
    }

    /// Tells of the try that ended as `call` did.
    pub fn close(&self, call: &Ended<'_>) {
        self.tracer.take(Box::new(Closed {
            trace: self.trace,
            parent: self.parent,
            id: self.id,
            series: call.series.clone(),
            caller: call.caller.into(),
            instance: call.instance.cloned(),
            method: call.method.cloned(),
            path: call.path.map(Into::into),
            status: call.status,
            reason: call.reason,
            rule: call.denied_by.map(Into::into),
            bytes_in: call.bytes_in,
            bytes_out: call.bytes_out,
            began: self.began + self.since,
            ended: self.began + call.took.max(self.since),
            resends: self.resends,
            tongue: self.tongue,
            grpc_status: self.grpc_status,
        }));
    }
}
