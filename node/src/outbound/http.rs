//! HTTP requests of local apps.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;

use super::Route;
use super::send::send;
use crate::body::{Body, Call, Closing, boxed, full};
use crate::config::Protocol;
use crate::headers;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Series;

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

/// hyper's smallest.
const HTTP1_BUFFER_BYTES_MIN: usize = 8192;
