//! Connections that become another protocol's: WebSocket and whatever else HTTP/1.1's `Upgrade` names.
//!
//! Up to the answer an upgrade is a request like any other, judged, routed and logged as the GET that it is. An app that
//! agrees says 101; from there on its connection and the caller's carry bytes, and neither is used for HTTP again. Not a
//! byte passes before that: what a caller sends early waits, and after a refusal it is read as the caller's next request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request,
};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use starling_transport::h3::Tunnel;
use tokio::net::TcpStream;

use crate::balance::Pick;
use crate::body::{Body, boxed, full};
use crate::config::{HttpVersion, Service};
use crate::guard::Held;
use crate::host::Host;
use crate::policy::Live;
use crate::pump::{self, End, Socket};
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::{apps, headers};

/// What an app agreed to: its side of the connection, waiting for the other side. Travels in a response's extensions.
#[derive(Debug, Clone)]
pub struct Switched(Arc<Mutex<Option<Side>>>);

/// One side of a connection that has become another protocol's.
#[derive(Debug)]
pub struct Side {
    protocol: HeaderValue,
    way: Way,
    /// Of a callee on this node, whose line ends with the connection.
    line: Option<AccessLine>,
    /// The same call, for as long as it may go on.
    live: Option<Live>,
}

#[derive(Debug)]
enum Way {
    Tunnel(Box<Tunnel>),
    App(Socket),
}

impl Switched {
    fn put(response: &mut Response<Body>, protocol: HeaderValue, way: Way) {
        let side = Side {
            protocol,
            way,
            line: None,
            live: None,
        };
        Self::put_back(response, side);
    }

    fn put_back(response: &mut Response<Body>, side: Side) {
        let switched = Self(Arc::new(Mutex::new(Some(side))));
        response.extensions_mut().insert(switched);
    }

    /// The side that an answer brings, if it is a 101. There is one taker.
    pub fn take(extensions: &mut Extensions) -> Option<Side> {
        let switched = extensions.remove::<Self>()?;
        let mut side = switched.0.lock().unwrap_or_else(PoisonError::into_inner);
        side.take()
    }
}

/// The same answer, with the side it brings ending `line`.
pub fn with_line(mut response: Response<Body>, line: AccessLine) -> Response<Body> {
    match Switched::take(response.extensions_mut()) {
        Some(side) => {
            let line = Some(line);
            Switched::put_back(&mut response, Side { line, ..side });
        }
        None => line.finish(),
    }
    response
}

/// Has the side that an answer brings last no longer than the call may, for a caller on this node.
pub fn judged(response: &mut Response<Body>, live: Live) {
    if let Some(side) = Switched::take(response.extensions_mut()) {
        let live = Some(live);
        Switched::put_back(response, Side { live, ..side });
    }
}

/// Callee's agent: asks the app of `service`, on a connection of its own that never gets to the pool. `head` was cleaned by
/// [`headers::request_from_peer`].
pub async fn ask_app(
    host: &Host,
    service: &Service,
    mut head: request::Parts,
) -> Result<Response<Body>, Reason> {
    if service.http != HttpVersion::H1 {
        return Err(Reason::NotSupported);
    }
    let protocol = head.headers.get(UPGRADE).cloned();
    let protocol = protocol.ok_or(Reason::Internal)?;
    headers::into_http1(&mut head)?;
    let limits = host.config.load().limits.clone();
    let stream = apps::connect(service, limits.connect).await?;
    let broken = |error: hyper::Error| {
        tracing::debug!(service = %service.name, %error, "the app did not answer an upgrade");
        Reason::AppBroken
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    host.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an app's connection ended");
        }
    });
    let request = Request::from_parts(head, full(Bytes::new()));
    let mut response = sender.send_request(request).await.map_err(broken)?;
    if response.status().as_u16() > apps::STATUS_MAX {
        return Err(Reason::AppBroken);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(boxed));
    }
    let chosen = response.headers().get(UPGRADE).map(HeaderValue::as_bytes);
    if !chosen.is_some_and(|chosen| chosen.eq_ignore_ascii_case(protocol.as_bytes())) {
        return Err(Reason::AppBroken);
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(broken)?;
    let socket = socket(upgraded).ok_or(Reason::Internal)?;
    let mut response = response.map(|_none| full(Bytes::new()));
    Switched::put(&mut response, protocol, Way::App(socket));
    Ok(response)
}

/// Caller's agent: the answer of a peer that agreed, as the app would have given it.
pub fn agreed(fields: HeaderMap, protocol: HeaderValue, tunnel: Tunnel) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = fields;
    Switched::put(&mut response, protocol, Way::Tunnel(Box::new(tunnel)));
    response
}

/// Callee's agent: an app's answer other than 101. An app may ignore `Upgrade` and answer with success, which for the mesh
/// would mean that it agreed, so that is said otherwise.
pub fn refusal<B>(mut response: Response<B>) -> Response<B> {
    let status = response.status();
    if status.is_success() {
        let told = HeaderValue::from(status.as_u16());
        response.headers_mut().insert(STATUS, told);
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    response
}

/// Caller's agent: the opposite of [`refusal`].
pub fn refused<B>(mut response: Response<B>) -> Response<B> {
    let told = response.headers_mut().remove(STATUS);
    let status = told.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    if let Some(status) = status
        && status.is_success()
    {
        *response.status_mut() = status;
    }
    response
}

/// Callee's agent: carries bytes between the app that agreed and the peer that asked, until both are done or `cut`
/// resolves.
pub async fn with_peer(
    side: Side,
    tunnel: Tunnel,
    idle: Duration,
    cut: impl Future<Output = Reason>,
) {
    let (Way::App(socket), Some(line)) = (side.way, side.line) else {
        return;
    };
    let traffic = line.traffic().clone();
    let ended = pump::tunnel(socket, tunnel, End::Callee, idle, &traffic, cut).await;
    end(line, ended);
}

/// Where a caller's connection leaves what becomes of it after HTTP.
#[derive(Debug, Default)]
pub struct Next(Mutex<Option<Switch>>);

/// Both sides of an upgrade, about to be joined.
#[derive(Debug)]
struct Switch {
    app: OnUpgrade,
    side: Side,
    line: AccessLine,
    /// The instance, which counts the call as in flight; none for callers without the mesh.
    _pick: Option<Pick>,
    /// What others wait for.
    _held: Held,
}

impl Next {
    /// Notes that the connection goes on as another protocol's, and makes `fields` those of the 101 that says so.
    pub fn switch(
        &self,
        fields: &mut HeaderMap,
        app: OnUpgrade,
        side: Side,
        line: AccessLine,
        pick: Option<Pick>,
        held: Held,
    ) {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, side.protocol.clone());
        let switch = Switch {
            app,
            side,
            line,
            _pick: pick,
            _held: held,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(switch);
    }

    /// Carries bytes if the connection has become another protocol's, until both sides are done or `closed` resolves.
    pub async fn run(&self, idle: Duration, closed: impl Future<Output = Reason>) {
        let switch = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(switch) = switch {
            Box::pin(switch.run(idle, closed)).await;
        }
    }
}

impl Switch {
    async fn run(self, idle: Duration, closed: impl Future<Output = Reason>) {
        let Some(app) = self.app.await.ok().and_then(socket) else {
            end(self.line, Err(Reason::CallerGone));
            return;
        };
        let Side {
            way,
            line: theirs,
            mut live,
            ..
        } = self.side;
        let ended = match way {
            // The callee's agent cuts what it no longer allows.
            Way::Tunnel(tunnel) => {
                let traffic = self.line.traffic();
                pump::tunnel(app, *tunnel, End::Caller, idle, traffic, closed).await
            }
            Way::App(callee) => {
                let lines = [Some(&self.line), theirs.as_ref()];
                let traffic: Vec<_> = lines
                    .into_iter()
                    .flatten()
                    .map(|line| &**line.traffic())
                    .collect();
                let cut = async {
                    match &mut live {
                        Some(live) => live.cut().await,
                        None => closed.await,
                    }
                };
                pump::sockets(app, callee, idle, &traffic, cut).await
            }
        };
        if let Some(line) = theirs {
            end(line, ended);
        }
        end(self.line, ended);
    }
}

fn end(mut line: AccessLine, ended: Result<(), Reason>) {
    if let Err(reason) = ended {
        line.fail(reason);
    }
    line.finish();
}

/// The app's socket under hyper, and what it sent after the head that hyper read.
fn socket(upgraded: Upgraded) -> Option<Socket> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(Socket::new(parts.io.into_inner(), parts.read_buf))
}

/// Between agents: the status of an app that answered an upgrade with success.
const STATUS: HeaderName = HeaderName::from_static("starling-status");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_that_is_no_agreement_arrives_as_it_was() {
        for status in [200, 204, 299] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let told = refusal(response);
            assert_eq!(told.status(), StatusCode::NOT_IMPLEMENTED);
            let got = refused(told);
            assert_eq!(got.status(), status);
            assert!(got.headers().is_empty());
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        assert_eq!(refused(refusal(response)).status(), 401);
    }

    #[test]
    fn a_peer_cannot_make_up_a_status() {
        for told in ["101", "99", "500", "x", ""] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            response.headers_mut().insert(STATUS, told.parse().unwrap());
            assert_eq!(refused(response).status(), 501, "{told}");
        }
    }
}
