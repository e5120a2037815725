//! One request and its attempts: which failures may be repeated, and how often.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::direct::Directed;
use super::exchange::{Failure, exchange};
use super::{Route, mirror};
use crate::balance::Pick;
use crate::body::{Body, Counted, Offered, boxed, full};
use crate::headers;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;

/// What came of a request.
pub(super) struct Sent {
    /// None where the agent answered by itself.
    pub(super) pick: Option<Pick>,
    pub(super) response: Response<Body>,
    pub(super) directed: Directed,
}

/// Does what the route says of the request, and tries instances until one answers, as far as that is safe.
pub(super) async fn send(
    route: &Arc<Route>,
    request: Request<Incoming>,
    line: &mut AccessLine,
) -> Result<Sent, Reason> {
    let (mut head, body) = request.into_parts();
    line.set_trace(headers::request_from_app(
        &mut head,
        route.service.as_str(),
    )?);
    let (directed, answer) = Directed::request(route, &mut head)?;
    let answer = match directed.harm(route).await {
        Some(failure) => Some(failure),
        None => answer,
    };
    if let Some(answer) = answer {
        return Ok(Sent {
            pick: None,
            response: answer.map(full),
            directed,
        });
    }
    let body = directed.capped(&head, boxed(Counted::new(body, line.traffic())))?;
    let over = body.over();
    let mut body = boxed(body);
    if let Some(mirror) = directed
        .forward()
        .and_then(|forward| forward.mirror.as_ref())
    {
        body = mirror::copy(route, mirror, &head, body);
    }
    let body = Offered::new(body);
    let mut attempts = Attempts::new(route, &directed);
    let mut is_repeated = false;
    loop {
        let mut pick = attempts.next().await?;
        line.set_instance(&pick.instance().node);
        let request = Request::from_parts(head.clone(), boxed(body.clone()));
        let sent = exchange(route, &pick, request).await;
        if over.is_over() {
            // Whatever came of it came of that: the app got half a request.
            return Err(Reason::BodyTooLarge);
        }
        let failure = match sent {
            Ok(response) => match peer_reason(&response) {
                // The callee's agent gave up before its app saw anything.
                Some(reason) if reason.is_unsent() && body.is_whole() => Failure {
                    reason,
                    may_repeat: true,
                },
                reason => {
                    if reason.is_none() {
                        pick.answered(Instant::now());
                    }
                    let pick = Some(pick);
                    return Ok(Sent {
                        pick,
                        response,
                        directed,
                    });
                }
            },
            Err(failure) => failure,
        };
        let once_more = is_idempotent(&head.method)
            && !std::mem::replace(&mut is_repeated, !failure.may_repeat);
        attempts.failed(pick, failure.reason);
        if !(body.is_whole() && (failure.may_repeat || once_more)) {
            return Err(failure.reason);
        }
    }
}

fn peer_reason(response: &Response<Body>) -> Option<Reason> {
    Reason::parse(response.headers().get(crate::reason::HEADER)?.as_bytes())
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}
