//! TCP connections of local apps.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use starling_transport::h3::{RequestErrorKind, Tunnel};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Route;
use super::attempts::Attempts;
use super::direct::Directed;
use super::exchange::{Failure, dial_reason};
use super::verdict::Verdict;
use crate::balance::Pick;
use crate::config::Protocol;
use crate::guard::Counted;
use crate::inbound::AUTHORITY_PORT;
use crate::policy::Live;
use crate::pump::{self, End};
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::{headers, inbound};

/// How a connection reaches its callee.
enum Way {
    Tunnel(Box<Tunnel>),
    Local(TcpStream, Box<Live>),
}

/// Carries one connection to an instance.
/// `waiting`: since when the app has waited already.
pub(super) async fn serve(route: Arc<Route>, socket: TcpStream, waiting: Option<Instant>) {
    let series = route.series(Protocol::Tcp);
    let _open = series.open();
    let began = waiting.unwrap_or_else(Instant::now);
    let mut line = AccessLine::connection(&series);
    line.since(began);
    let ended = match open(&route, &socket, began, &mut line).await {
        Ok(opened) => {
            let idle = opened.idle;
            match opened.way {
                Way::Tunnel(tunnel) => {
                    // The callee's agent cuts what it no longer allows.
                    let (socket, never) = (socket.into(), std::future::pending());
                    pump::tunnel(socket, *tunnel, End::Caller, idle, line.traffic(), never).await
                }
                Way::Local(callee, mut live) => {
                    let (socket, callee) = (socket.into(), callee.into());
                    pump::sockets(socket, callee, idle, &[line.traffic()], live.cut()).await
                }
            }
        }
        Err(reason) => {
            pump::reset(&socket);
            Err(reason)
        }
    };
    if let Err(reason) = ended {
        line.fail(reason);
    }
    line.finish();
}

/// A connection that may carry bytes, and what it holds meanwhile.
struct Opened {
    way: Way,
    idle: Duration,
    _pick: Pick,
    _counted: Option<Counted>,
}

async fn open(
    route: &Route,
    socket: &TcpStream,
    began: Instant,
    line: &mut AccessLine,
) -> Result<Opened, Reason> {
    let source = socket.peer_addr().map_err(|_gone| Reason::CallerGone)?.ip();
    let directed = Directed::connection(route);
    if let Some(rule) = &directed.rule {
        line.set_route(rule.clone());
    }
    if directed.harm(route).await.is_some() {
        return Err(Reason::Fault);
    }
    let manner = route.manners.of(route, directed.rule.as_ref());
    let counted = manner
        .admit_connection(source, Instant::now())
        .map_err(|refusal| refusal.reason)?;
    let timeout = manner.settings().timeout;
    let mut attempts =
        Attempts::new(route, &directed, &manner, began, None).keyed(&HeaderMap::new(), source);
    loop {
        let mut pick = attempts.next().await?;
        line.set_instance(&pick.instance().node);
        let tried = within(timeout.per_try, way(route, &pick)).await;
        let verdict = match &tried {
            Ok(_) => Verdict::good(),
            // No byte of the app's left yet.
            Err(reason) => Verdict::failed(&Failure {
                reason: *reason,
                may_repeat: reason.is_unsent() || *reason == Reason::Timeout,
            }),
        };
        attempts.note(&mut pick, &verdict);
        match tried {
            Ok(way) => {
                let idle = route.host.config.load().limits.idle;
                return Ok(Opened {
                    way,
                    idle: timeout.idle.unwrap_or(idle),
                    _pick: pick,
                    _counted: counted,
                });
            }
            Err(reason) if !verdict.is_unsent => return Err(reason),
            Err(_) => attempts.goes_on(&verdict),
        }
    }
}

async fn within<T>(
    time: Option<Duration>,
    work: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    match time {
        Some(time) => {
            let ended = tokio::time::timeout(time, work).await;
            ended.map_err(|_elapsed| Reason::Timeout)?
        }
        None => work.await,
    }
}

async fn way(route: &Route, pick: &Pick) -> Result<Way, Reason> {
    let instance = pick.instance();
    if instance.node == route.host.node {
        let (socket, live) =
            inbound::local_socket(&route.host, &route.caller, &route.callee).await?;
        return Ok(Way::Local(socket, Box::new(live)));
    }
    let addrs = route.addresses(instance);
    let requester = route
        .host
        .pool
        .get(&route.caller, &route.callee, &addrs)
        .await;
    let requester = requester.map_err(|error| dial_reason(&error))?;
    let authority = format!("{}:{}", route.service, AUTHORITY_PORT);
    match requester.connect(&authority, HeaderMap::new()).await {
        Ok((_response, tunnel)) => Ok(Way::Tunnel(Box::new(tunnel))),
        Err(error) => Err(match error.response() {
            Some(response) if error.kind() == RequestErrorKind::Refused => {
                let mut fields = response.headers().clone();
                headers::response_from_peer(&mut fields).unwrap_or(Reason::UpstreamReset)
            }
            // No byte of the app's left yet, so the call may go elsewhere whatever happened.
            _ => Reason::ConnectFailed,
        }),
    }
}
