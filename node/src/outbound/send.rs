//! One request and its attempts: which failures may be repeated, and how often.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Route;
use super::attempts::Attempts;
use super::exchange::{Failure, exchange};
use crate::balance::Pick;
use crate::body::{Body, Counted, Offered, boxed};
use crate::headers;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;

/// Tries instances until one answers, as far as that is safe.
pub(super) async fn send(
    route: &Route,
    request: Request<Incoming>,
    line: &mut AccessLine,
) -> Result<(Pick, Response<Body>), Reason> {
    let (mut head, body) = request.into_parts();
    line.set_trace(headers::request_from_app(
        &mut head,
        route.service.as_str(),
    )?);
    let body = Offered::new(boxed(Counted::new(body, line.traffic())));
    let mut attempts = Attempts::new(route);
    let mut is_repeated = false;
    loop {
        let mut pick = attempts.next().await?;
        line.set_instance(&pick.instance().node);
        let request = Request::from_parts(head.clone(), boxed(body.clone()));
        let failure = match exchange(route, &pick, request).await {
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
                    return Ok((pick, response));
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
