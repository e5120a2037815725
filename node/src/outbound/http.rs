//! HTTP requests of local apps.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use starling_gossip::Instance;
use starling_transport::DialError;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Route;
use super::attempts::Attempts;
use crate::balance::Pick;
use crate::body::{Body, Call, Closing, Counted, Offered, boxed, full};
use crate::config::Protocol;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Series;
use crate::{headers, inbound};

/// Serves one connection of an app, HTTP/1.1 or HTTP/2 by prior knowledge.
pub(super) async fn serve(route: Arc<Route>, socket: TcpStream) {
    let series = route.series(Protocol::Http);
    let _open = series.open();
    let limits = route.host.config.load().limits.clone();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size((limits.header_bytes as usize).max(HTTP1_BUFFER_BYTES_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_peer)
        .max_header_list_size(limits.header_bytes);
    let drain = route.host.drain.clone();
    let service = service_fn(move |request| {
        let (route, series) = (route.clone(), series.clone());
        // Boxed, so that an idle connection holds no room for a call: hyper keeps as much as one call needs.
        Box::pin(async move { Ok::<_, Infallible>(call(&route, &series, request).await) })
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an app's connection ended");
    }
}

/// One request, from the app's words to the app's answer. The mesh's own errors are answers too.
async fn call(route: &Route, series: &Arc<Series>, request: Request<Incoming>) -> Response<Body> {
    let mut line = AccessLine::request(series, request.method(), request.uri().path());
    match send(route, request, &mut line).await {
        Ok((pick, response)) => {
            line.set_status(response.status());
            let (mut head, body) = response.into_parts();
            // How it came over the mesh is no business of the app's connection.
            head.version = Version::HTTP_11;
            if let Some(reason) = headers::response_from_peer(&mut head.headers) {
                line.fail(reason);
            }
            let call = Call {
                line,
                pick: Some(pick),
                broken: Reason::UpstreamReset,
            };
            Response::from_parts(head, boxed(Closing::new(body, call)))
        }
        Err(reason) => {
            line.fail(reason);
            line.set_status(reason.status());
            line.finish();
            reason.response(route.service.as_str()).map(full)
        }
    }
}

/// Tries instances until one answers, as far as that is safe.
async fn send(
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

/// Why one attempt failed, and whether the app can have seen the request.
struct Failure {
    reason: Reason,
    /// The app cannot have seen it, so it may be sent again whatever its method.
    may_repeat: bool,
}

async fn exchange(
    route: &Route,
    pick: &Pick,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let instance = pick.instance();
    if instance.node == route.host.node {
        return Ok(
            inbound::http(&route.host, &route.caller, route.service.as_str(), request).await,
        );
    }
    let addrs = route.addresses(instance);
    let requester = route
        .host
        .pool
        .get(&route.caller, &route.callee, &addrs)
        .await;
    let requester = requester.map_err(|error| Failure {
        reason: dial_reason(&error),
        may_repeat: true,
    })?;
    let sent = requester.request(request).await;
    sent.map(|response| response.map(boxed)).map_err(|error| {
        tracing::debug!(callee = %route.service, node = %instance.node, %error, "request failed");
        let may_repeat = error.is_unsent();
        Failure {
            reason: if may_repeat {
                Reason::ConnectFailed
            } else {
                Reason::UpstreamReset
            },
            may_repeat,
        }
    })
}

impl Route {
    /// Where to reach the instance's node: the address it prefers, then its others.
    pub(super) fn addresses(&self, instance: &Instance) -> Vec<SocketAddr> {
        let mut addrs = vec![instance.addr];
        if let Some(member) = self
            .host
            .membership
            .catalogue()
            .member(instance.node.as_str())
        {
            addrs.extend(member.addrs.iter().filter(|addr| **addr != instance.addr));
        }
        addrs
    }
}

/// What a failed dial means to the caller.
pub(super) fn dial_reason(error: &DialError) -> Reason {
    tracing::debug!(%error, "dial failed");
    match error {
        DialError::NotOurs { .. } | DialError::Expired { .. } => Reason::NoIdentity,
        DialError::WrongIdentity { .. } => Reason::WrongIdentity,
        _ => Reason::ConnectFailed,
    }
}

fn peer_reason(response: &Response<Body>) -> Option<Reason> {
    Reason::parse(response.headers().get(crate::reason::HEADER)?.as_bytes())
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

/// hyper's smallest.
const HTTP1_BUFFER_BYTES_MIN: usize = 8192;
