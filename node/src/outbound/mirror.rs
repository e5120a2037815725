//! Copies of requests for another subset or service. The caller never waits for one: a copy that is not taken as fast as
//! the original is given up.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, UPGRADE};
use http::{HeaderValue, Request, request};
use http_body_util::BodyExt;
use tokio::time::{Duration, Instant};

use super::Route;
use super::exchange::exchange;
use crate::balance::Ask;
use crate::body::copy::copied;
use crate::body::{Body, boxed};
use crate::headers::MIRROR;
use crate::reason::Reason;
use crate::route::action::Mirror;
use crate::route::split::{Point, Subset};
use crate::telemetry::metrics;

/// Sends a copy of some requests on their way, in a task of its own; returns the body for the original.
pub(super) fn copy(route: &Arc<Route>, mirror: &Mirror, head: &request::Parts, body: Body) -> Body {
    // What follows an upgrade is a conversation, of which there can be no copy.
    let is_copied = !head.headers.contains_key(UPGRADE)
        && mirror.share.takes(Point::random(&mut fastrand::Rng::new()));
    if !is_copied {
        return body;
    }
    let Ok(permit) = route.host.mirrors.clone().try_acquire_owned() else {
        metrics::mirrored(&route.service, "skipped");
        return body;
    };
    let (body, copy) = copied(body);
    let mut head = head.clone();
    if !mirror.with_credentials {
        for name in [AUTHORIZATION, COOKIE] {
            head.headers.remove(name);
        }
    }
    head.headers.insert(MIRROR, HeaderValue::from_static("1"));
    let request = Request::from_parts(head, boxed(copy));
    let (route, mirror) = (route.clone(), mirror.clone());
    route.host.clone().spawn(async move {
        let to = match &mirror.service {
            Some(service) => route.to(service),
            None => route.clone(),
        };
        let sent = tokio::time::timeout(COPY_TIME_MAX, send(&to, &mirror.to, request)).await;
        let outcome = if matches!(sent, Ok(Ok(()))) {
            "answered"
        } else {
            "failed"
        };
        metrics::mirrored(&route.service, outcome);
        drop(permit);
    });
    body
}

/// One try; what comes back is read, so that the app sees a caller like any other, and dropped.
async fn send(route: &Route, subset: &Subset, request: Request<Body>) -> Result<(), Reason> {
    let ask = Ask {
        skip: &[],
        subset,
        key: None,
    };
    let manner = route.manners.of(route, None);
    let picked = manner
        .lane
        .pick(&ask, Instant::now(), &mut fastrand::Rng::new());
    let mut pick = picked.ok_or(Reason::NoInstance)?;
    let response = exchange(route, &pick, request)
        .await
        .map_err(|failure| failure.reason)?;
    pick.answered(Instant::now());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|_broken| Reason::UpstreamReset)?;
    }
    Ok(())
}

/// Longer than most answers take; it bounds how long a copy holds its place among the others.
const COPY_TIME_MAX: Duration = Duration::from_secs(30);
