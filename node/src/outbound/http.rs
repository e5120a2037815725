//! HTTP requests of local apps.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use ::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Route;
use super::send::send;
use crate::body::{Body, Call, Closing, full};
use crate::config::Protocol;
use crate::conversation;
use crate::grpc::Tongue;
use crate::guard::Held;
use crate::headers;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Series;
use crate::upgrade::{self, Switched};

/// Serves one connection of an app. `waiting`: since when its first request has waited already.
pub(super) async fn serve(route: Arc<Route>, socket: TcpStream, waiting: Option<Instant>) {
    let series = route.series(Protocol::Http);
    let _open = series.open();
    let limits = route.host.config.load().limits.clone();
    let drain = route.host.drain.clone();
    let next = Arc::<upgrade::Next>::default();
    let Ok(source) = socket.peer_addr() else {
        return;
    };
    let leave = next.clone();
    let waiting = Cell::new(waiting);
    let service = service_fn(move |request| {
        let began = waiting.take().unwrap_or_else(Instant::now);
        let (route, series, next) = (route.clone(), series.clone(), leave.clone());
        // Boxed, so that an idle connection holds no room for a call: hyper keeps as much as one call needs.
        let call = async move { call(&route, &series, &next, source.ip(), began, request).await };
        Box::pin(async move { Ok::<_, Infallible>(call.await) })
    });
    conversation::serve(socket, service, &limits, &drain).await;
    next.run(limits.idle, std::future::pending()).await;
}

/// One request, from the app's words to the app's answer. The mesh's own errors are answers too.
async fn call(
    route: &Arc<Route>,
    series: &Arc<Series>,
    next: &upgrade::Next,
    source: IpAddr,
    began: Instant,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut line = AccessLine::request(series, request.method(), request.uri().path());
    line.since(began);
    let tracer = route.host.traces.current();
    line.trace(request.headers_mut(), tracer.as_ref());
    drop(tracer);
    line.see(request.headers());
    let (tongue, version) = (Tongue::of(request.headers()), request.version());
    let connection = hyper::upgrade::on(&mut request);
    match send(route, source, request, began, &mut line).await {
        Ok(sent) => {
            line.set_status(sent.response.status());
            line.note(sent.response.headers());
            let (mut head, body) = sent.response.into_parts();
            // How it came over the mesh is no business of the app's connection.
            head.version = Version::HTTP_11;
            if let Some(reason) = headers::response_from_peer(&mut head.headers) {
                line.fail(reason);
                line.set_status(reason.status());
            }
            sent.directed.answer(&mut head.headers);
            if let Some(side) = Switched::take(&mut head.extensions) {
                let held = Held::counted(sent.counted);
                next.switch(&mut head.headers, connection, side, line, sent.pick, held);
                return Response::from_parts(head, body);
            }
            let call = Call {
                line,
                pick: sent.pick,
                broken: Reason::UpstreamReset,
                held: Held::counted(sent.counted),
                timers: sent.timers,
            };
            let broken = Reason::UpstreamReset;
            Response::from_parts(head, tongue.ending(Closing::new(body, call), broken))
        }
        Err(refusal) => {
            line.fail(refusal.reason);
            line.set_status(refusal.reason.status());
            line.finish();
            let name = route.service.as_str();
            let mut answer = refusal.response(tongue, name).map(full);
            headers::end_if_in_doubt(refusal.reason, version, answer.headers_mut());
            answer
        }
    }
}
