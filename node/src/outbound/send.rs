//! One request and its attempts: which failures may be repeated, and how often.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::direct::Directed;
use super::exchange::{Failure, ask, reach};
use super::manner::Manner;
use super::verdict::Verdict;
use super::{Route, mirror, origin};
use crate::balance::Pick;
use crate::body::{Body, Counted, Offered, Timers, boxed, full};
use crate::deadline::{self, Deadline};
use crate::guard::{self, Refusal};
use crate::headers;
use crate::reason::{HEADER, Reason};
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Traffic;

/// What came of a request.
pub(super) struct Sent {
    /// None where the agent answered by itself.
    pub(super) pick: Option<Pick>,
    pub(super) response: Response<Body>,
    pub(super) directed: Directed,
    /// Its place among the requests under way.
    pub(super) counted: Option<guard::Counted>,
    /// What the rest of the answer is held to.
    pub(super) timers: Option<Box<Timers>>,
}

/// Does what the route says of the request, and tries instances until one answers, as far as that is safe.
pub(super) async fn send(
    route: &Arc<Route>,
    source: IpAddr,
    request: Request<Incoming>,
    began: Instant,
    line: &mut AccessLine,
) -> Result<Sent, Refusal> {
    let (mut head, body) = request.into_parts();
    let claimed = deadline::claimed(&head.headers);
    headers::request_from_app(&mut head, route.service.as_str())?;
    if !origin::is_let_in(&route.hosts.load(), &head) {
        return Err(Reason::WrongHost.into());
    }
    let (directed, answer) = Directed::request(route, &mut head)?;
    if let Some(rule) = &directed.rule {
        line.set_route(rule.clone());
    }
    let answer = match directed.harm(route).await {
        Some(failure) => Some(failure),
        None => answer,
    };
    if let Some(answer) = answer {
        return Ok(Sent {
            pick: None,
            response: answer.map(full),
            directed,
            counted: None,
            timers: None,
        });
    }
    let manner = route.manners.of(route, directed.rule.as_ref());
    let settings = manner.settings();
    let counted = manner.admit(&head.headers, source, Instant::now())?;
    let deadline = Deadline::new(claimed, settings.timeout.request, began);
    let body = Counted::new(body, line.traffic());
    let broken = body.broken();
    let body = directed.capped(&head, boxed(body))?;
    let over = body.over();
    let mut body = boxed(body);
    if let Some(mirror) = directed
        .forward()
        .and_then(|forward| forward.mirror.as_ref())
    {
        body = mirror::copy(route, mirror, &head, body);
    }
    let kept = if settings.retry.is_declared {
        KEPT_BYTES_MAX
    } else {
        0
    };
    let body = Offered::new(body, kept);
    let mut attempts =
        Attempts::new(route, &directed, &manner, began, deadline).keyed(&head.headers, source);
    let mut pick = attempts.next().await?;
    loop {
        line.set_instance(&pick.instance().node);
        if let Some(deadline) = deadline {
            deadline::tell(&mut head.headers, deadline.at, Instant::now());
        }
        let request = Request::from_parts(head.clone(), boxed(body.offer()));
        let bounds = Bounds::new(&manner, deadline, line.traffic());
        let outcome = try_once(route, &pick, request, bounds).await;
        if over.is_over() {
            // Whatever came of it came of that: the app got half a request.
            return Err(Reason::BodyTooLarge.into());
        }
        let is_failure = |response: &Response<Body>| response.headers().contains_key(HEADER);
        if broken.is_broken() && outcome.as_ref().map_or(true, is_failure) {
            // No instance is to blame for what the app here sent.
            return Err(Reason::BadRequest.into());
        }
        let verdict = match &outcome {
            Ok(response) => Verdict::of(response),
            Err(_) if deadline.is_some_and(|deadline| deadline.is_over()) => Verdict::late(),
            Err(failure) => Verdict::failed(failure),
        };
        attempts.note(&mut pick, &verdict);
        if body.is_whole() && attempts.may_repeat(&verdict, &head.method) {
            let over = Instant::now();
            if let Some(another) = attempts.another(&verdict).await {
                let status = outcome.as_ref().ok().map(Response::status);
                line.try_again(over, status, verdict.reason, &mut head.headers);
                pick = another;
                continue;
            }
        }
        let response = outcome.map_err(|_failure| attempts.reason())?;
        return Ok(Sent {
            pick: Some(pick),
            response,
            timers: Timers::new(deadline.map(|deadline| deadline.at), settings.timeout.idle),
            directed,
            counted,
        });
    }
}

/// How long one try may take to begin an answer.
struct Bounds<'a> {
    timers: Option<Box<Timers>>,
    traffic: &'a Arc<Traffic>,
}

impl<'a> Bounds<'a> {
    fn new(manner: &Manner, deadline: Option<Deadline>, traffic: &'a Arc<Traffic>) -> Self {
        let timeout = &manner.settings().timeout;
        let per_try = timeout.per_try.map(|time| Instant::now() + time);
        let until = per_try
            .into_iter()
            .chain(deadline.map(|deadline| deadline.at))
            .min();
        Self {
            timers: Timers::new(until, timeout.idle),
            traffic,
        }
    }

    /// Fails when the time is over; `may_repeat` says whether the app cannot have seen anything by then.
    async fn hold<T>(
        &mut self,
        may_repeat: bool,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(timers) = &mut self.timers else {
            return work.await;
        };
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = poll_fn(|cx| timers.poll(self.traffic, cx)) => Err(Failure {
                reason: Reason::Timeout,
                may_repeat,
            }),
        }
    }
}

async fn try_once(
    route: &Route,
    pick: &Pick,
    request: Request<Body>,
    mut bounds: Bounds<'_>,
) -> Result<Response<Body>, Failure> {
    let way = bounds.hold(true, reach(route, pick)).await?;
    bounds.hold(false, ask(route, pick, way, request)).await
}

/// What is kept of a body, so that it can be sent again, where somebody wrote that calls are repeated.
const KEPT_BYTES_MAX: usize = 64 * 1024;
