//! Calls from other agents, and from callers on this node: who is it, may they, and on to the app.
//!
//! The caller is whom its certificate proved, the callee the identity that we proved to it. Nothing in a request can
//! change either.

use std::sync::Arc;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, Request, Response, StatusCode};
use starling_transport::h3::{
    ConnectRequest, Exchange, Limits, RecvBody, Responder, TunnelResponder,
};
use starling_transport::{IdentityKind, Session, SpiffeId};
use tokio::net::TcpStream;

use crate::apps;
use crate::body::{Body, Call, Closing, Counted, boxed, full};
use crate::config::{Protocol, Service};
use crate::control;
use crate::headers;
use crate::host::Host;
use crate::pump::{self, End};
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::{OTHER, Side};
use crate::telemetry::trace;
use crate::upgrade::{self, Switched};

/// Serves one connection from another agent until it ends or the host drains.
pub async fn serve(host: Arc<Host>, session: Session, limits: Limits) {
    let mut acceptor = match session.serve(limits).await {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::debug!(peer.addr = %session.peer_addr(), %error, "no http/3 on this connection");
            return;
        }
    };
    loop {
        let exchange = tokio::select! {
            exchange = acceptor.next() => exchange,
            () = host.drain.cancelled() => break,
        };
        match exchange {
            Some(exchange) => accept(&host, &session, exchange),
            None => return,
        }
    }
    acceptor.goaway().await;
    // Requests that crossed our GOAWAY are refused by the acceptor as safe to send elsewhere.
    while let Some(exchange) = acceptor.next().await {
        accept(&host, &session, exchange);
    }
}

fn accept(host: &Arc<Host>, session: &Session, exchange: Exchange) {
    let (host, session) = (host.clone(), session.clone());
    let on = host.clone();
    // A task of its own kind for each, so that a request does not hold room for a tunnel.
    match exchange {
        Exchange::Request(request, responder) => {
            on.spawn(async move { answer(host, &session, request, responder).await })
        }
        Exchange::Connect(request) => on.spawn(async move { carry(host, &session, request).await }),
        Exchange::Upgrade(request, responder) => {
            on.spawn(async move { switch(host, &session, request, responder).await })
        }
    }
}

/// One HTTP request of a peer: to a service that we proved to be, or a question to this node.
async fn answer(
    host: Arc<Host>,
    session: &Session,
    request: Request<RecvBody>,
    responder: Responder,
) {
    let (caller, request) = (session.peer(), request.map(boxed));
    if session.local().node_name().is_some() {
        deliver(
            caller,
            responder,
            control::serve(&host, session.peer_leaf(), request),
        )
        .await;
    } else {
        let work = http(&host, caller, called(session), request);
        deliver(caller, responder, work).await;
    }
}

async fn deliver(
    caller: &SpiffeId,
    mut responder: Responder,
    work: impl Future<Output = Response<Body>>,
) {
    let response = tokio::select! {
        response = work => response,
        () = responder.cancelled() => return,
    };
    if let Err(error) = responder.respond(response).await {
        tracing::debug!(%caller, %error, "the caller did not take the whole response");
    }
}

/// One upgrade that a peer asks for: judged and answered as the GET that it is.
async fn switch(
    host: Arc<Host>,
    session: &Session,
    request: Request<()>,
    mut responder: TunnelResponder,
) {
    let request = request.map(|()| full(Bytes::new()));
    let work = http(&host, session.peer(), called(session), request);
    let mut response = tokio::select! {
        response = work => response,
        () = responder.cancelled() => return,
    };
    let told = match Switched::take(response.extensions_mut()) {
        Some(side) => match responder.accept(response.into_parts().0.headers).await {
            Ok(tunnel) => {
                let idle = host.config.load().limits.idle;
                return upgrade::with_peer(side, tunnel, idle).await;
            }
            Err(error) => Err(error),
        },
        None => responder.refuse(upgrade::refusal(response)).await,
    };
    if let Err(error) = told {
        tracing::debug!(caller = %session.peer(), %error, "the caller did not take the whole response");
    }
}

/// Judges and answers one HTTP request, of a peer or of a caller on this node.
pub async fn http(
    host: &Host,
    caller: &SpiffeId,
    callee: &str,
    request: Request<Body>,
) -> Response<Body> {
    let config = host.config.load();
    let service = config
        .services
        .iter()
        .find(|service| service.name.as_str() == callee);
    let mut line = line(host, caller, callee, Protocol::Http, Some(&request));
    if let Some(trace) = trace::present(request.headers()) {
        line.set_trace(trace);
    }
    let outcome = match judge(caller, service, Protocol::Http) {
        Ok(service) => forward(host, service, caller, request, &mut line).await,
        Err(reason) => Err(reason),
    };
    match outcome {
        Ok(response) => {
            line.set_status(response.status());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return upgrade::with_line(response, line);
            }
            let (head, body) = response.into_parts();
            let call = Call {
                line,
                pick: None,
                broken: Reason::AppBroken,
            };
            Response::from_parts(head, boxed(Closing::new(body, call)))
        }
        Err(reason) => {
            line.fail(reason);
            line.set_status(reason.status());
            line.finish();
            reason.response(callee).map(full)
        }
    }
}

async fn forward(
    host: &Host,
    service: &Service,
    caller: &SpiffeId,
    request: Request<Body>,
    line: &mut AccessLine,
) -> Result<Response<Body>, Reason> {
    let (mut head, body) = request.into_parts();
    line.set_trace(headers::request_from_peer(&mut head, caller.as_str())?);
    let mut response = if head.headers.contains_key(UPGRADE) {
        Box::pin(upgrade::ask_app(host, service, head)).await?
    } else {
        let body = boxed(Counted::new(body, line.traffic()));
        let sent = host.apps.request(service, Request::from_parts(head, body));
        sent.await?.map(boxed)
    };
    headers::response_from_app(response.headers_mut());
    Ok(response)
}

/// One tunnel of a peer.
async fn carry(host: Arc<Host>, session: &Session, request: ConnectRequest) {
    let callee = called(session);
    let config = host.config.load_full();
    let mut line = line(&host, session.peer(), callee, Protocol::Tcp, None);
    let opened = async {
        let named = request.authority.split(':').next().unwrap_or_default();
        if named != callee && named != session.local().dns_name() {
            return Err(Reason::WrongService);
        }
        let service = config
            .services
            .iter()
            .find(|service| service.name.as_str() == callee);
        let service = judge(session.peer(), service, Protocol::Tcp)?;
        apps::connect(service, config.limits.connect).await
    };
    let socket = match opened.await {
        Ok(socket) => socket,
        Err(reason) => {
            line.fail(reason);
            let _gone = request.refuse(reason.response(callee)).await;
            return line.finish();
        }
    };
    match request.accept(HeaderMap::new()).await {
        Ok(tunnel) => {
            let idle = config.limits.idle;
            let ended =
                pump::tunnel(socket.into(), tunnel, End::Callee, idle, line.traffic()).await;
            if let Err(reason) = ended {
                line.fail(reason);
            }
            line.finish();
        }
        Err(error) => {
            tracing::debug!(caller = %session.peer(), %error, "the caller left before its tunnel")
        }
    }
}

/// A tunnel of a caller on this node: the same judgement, and a socket to the app.
pub async fn local_socket(
    host: &Host,
    caller: &SpiffeId,
    callee: &str,
) -> Result<TcpStream, Reason> {
    let config = host.config.load_full();
    let service = config
        .services
        .iter()
        .find(|service| service.name.as_str() == callee);
    let service = judge(caller, service, Protocol::Tcp)?;
    apps::connect(service, config.limits.connect).await
}

/// May `caller` use `service` by `protocol`? Denied unless a grant says otherwise; nodes are never granted anything.
fn judge<'a>(
    caller: &SpiffeId,
    service: Option<&'a Service>,
    protocol: Protocol,
) -> Result<&'a Service, Reason> {
    let service = service.ok_or(Reason::WrongService)?;
    let IdentityKind::Service(name) = caller.kind() else {
        return Err(Reason::Denied);
    };
    if !service.allow.iter().any(|allowed| allowed.as_str() == name) {
        return Err(Reason::Denied);
    }
    // Told only to those who may call: what a service speaks is nobody else's business.
    if service.protocol == protocol {
        Ok(service)
    } else {
        Err(Reason::WrongProtocol)
    }
}

/// The service that we proved to be on this connection; a node's own identity serves nothing.
fn called(session: &Session) -> &str {
    session.local().service_name().unwrap_or_default()
}

fn line(
    host: &Host,
    caller: &SpiffeId,
    callee: &str,
    protocol: Protocol,
    request: Option<&Request<Body>>,
) -> AccessLine {
    let config = host.config.load();
    let service = config
        .services
        .iter()
        .find(|service| service.name.as_str() == callee);
    let known = caller.service_name().filter(|name| {
        service.is_some_and(|service| service.allow.iter().any(|a| a.as_str() == *name))
    });
    let series = host.series(
        Side::Callee,
        known.unwrap_or(OTHER),
        if service.is_some() { callee } else { OTHER },
        protocol,
    );
    let mut line = match request {
        Some(request) => AccessLine::request(&series, request.method(), request.uri().path()),
        None => AccessLine::connection(&series),
    };
    if known.is_none() {
        line.set_caller(caller.as_str());
    }
    line.set_instance(&host.node);
    line
}
