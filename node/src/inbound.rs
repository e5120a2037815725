//! Calls from other agents, and from callers on this node: who is it, may they, and on to the app.
//!
//! The caller is whom its certificate proved, the callee the identity that we proved to it. Nothing in a request can
//! change either.

pub(crate) mod bounds;

use std::sync::Arc;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, Request, Response, StatusCode, request};
use starling_transport::h3::{
    ConnectRequest, Exchange, Limits, RecvBody, Responder, TunnelResponder,
};
use starling_transport::{LocalRefusal, LocalSession, Session, SpiffeId};
use tokio::net::TcpStream;

use crate::apps;
use crate::body::{Body, Call, Closing, Counted, Judged, boxed, full};
use crate::config::{Protocol, Service};
use crate::control;
use crate::grpc::Tongue;
use crate::guard::Refusal;
use crate::headers;
use crate::host::Host;
use crate::policy::{Entry, Live, Verdict, Where};
use crate::proxy_protocol::Origin;
use crate::pump::{self, End};
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::{OTHER, Side, Traffic};
use crate::upgrade::{self, Switched};
use bounds::Admitted;

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
    let request = request.map(boxed);
    let (callee, caller) = (session.local(), session.peer());
    if callee.node_name().is_some() {
        let work = control::serve(&host, session.peer_leaf(), request);
        if let Some((response, responder)) = unless_gone(work, responder).await {
            deliver(caller, responder, response).await;
        }
        return;
    }
    let (method, uri) = (request.method(), request.uri());
    let mut live = Live::request(&host.policy, caller, callee, method, uri);
    let work = http(&host, &mut live, request);
    let Some(((response, traffic), responder)) = unless_gone(work, responder).await else {
        return;
    };
    tokio::select! {
        () = deliver(caller, responder, response) => {}
        () = cut(&mut live, &traffic) => {}
    }
}

/// What `work` gives, unless the caller leaves before.
async fn unless_gone<T>(
    work: impl Future<Output = T>,
    mut responder: Responder,
) -> Option<(T, Responder)> {
    tokio::select! {
        answered = work => Some((answered, responder)),
        () = responder.cancelled() => None,
    }
}

/// Resolves when a call may not go on whose response is on its way.
async fn cut(live: &mut Live, traffic: &Traffic) {
    // The access line ends with the body, which ends with this choice.
    traffic.cut(live.cut().await);
}

async fn deliver(caller: &SpiffeId, responder: Responder, response: Response<Body>) {
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
    let (caller, callee) = (session.peer(), session.local());
    let (method, uri) = (request.method(), request.uri());
    let mut live = Live::request(&host.policy, caller, callee, method, uri);
    let work = http(&host, &mut live, request);
    let (mut response, traffic) = tokio::select! {
        answered = work => answered,
        () = responder.cancelled() => return,
    };
    let told = match Switched::take(response.extensions_mut()) {
        Some(side) => match responder.accept(response.into_parts().0.headers).await {
            Ok(tunnel) => {
                let idle = host.config.load().limits.idle;
                return upgrade::with_peer(side, tunnel, idle, live.cut()).await;
            }
            Err(error) => Err(error),
        },
        None => tokio::select! {
            told = responder.refuse(upgrade::refusal(response)) => told,
            () = cut(&mut live, &traffic) => return,
        },
    };
    if let Err(error) = told {
        tracing::debug!(%caller, %error, "the caller did not take the whole response");
    }
}

/// A request of a caller on this node over `session`, answered as one of a peer would be.
pub async fn local(
    host: &Host,
    caller: &SpiffeId,
    callee: &SpiffeId,
    session: LocalSession,
    request: Request<Body>,
) -> Response<Body> {
    let (method, uri) = (request.method(), request.uri());
    let mut live = Live::request(&host.policy, caller, callee, method, uri).over(session);
    let (mut response, traffic) = http(host, &mut live, request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        upgrade::judged(&mut response, live);
        return response;
    }
    response.map(|body| boxed(Judged::new(body, live, traffic)))
}

/// Judges and answers one HTTP request. It is judged again until the response begins; from then on that is up to whoever
/// carries the response.
async fn http(
    host: &Host,
    live: &mut Live,
    mut request: Request<Body>,
) -> (Response<Body>, Arc<Traffic>) {
    let entry = host.policy.current().entry(live.callee()).cloned();
    let tongue = Tongue::of(request.headers());
    let mut line = line(host, live, entry.as_deref(), Protocol::Http, Some(&request));
    line.trace(request.headers_mut(), host.traces.current().as_ref());
    let traffic = line.traffic().clone();
    let judged = judge(host, live, entry.as_deref(), Protocol::Http);
    let outcome = match judged {
        Ok((entry, verdict)) => {
            let caller = live.caller().clone();
            let work = forward(host, entry, &verdict, &caller, request, &mut line);
            tokio::select! {
                outcome = work => outcome,
                reason = live.cut() => Err(reason.into()),
            }
        }
        Err(refused) => Err(refused.note(&mut line).into()),
    };
    let response = match outcome {
        Ok((response, admitted)) => {
            line.set_status(response.status());
            line.note(response.headers());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return (upgrade::with_line(response, line), traffic);
            }
            let (head, body) = response.into_parts();
            let call = Call {
                line,
                pick: None,
                broken: Reason::AppBroken,
                timers: admitted.timers(),
                held: admitted.held,
            };
            Response::from_parts(head, boxed(Closing::new(body, call)))
        }
        Err(refusal) => {
            line.fail(refusal.reason);
            line.set_status(refusal.reason.status());
            line.finish();
            refusal.response(tongue, live.callee()).map(full)
        }
    };
    (response, traffic)
}

async fn forward(
    host: &Host,
    entry: &Entry,
    verdict: &Verdict<'_>,
    caller: &SpiffeId,
    request: Request<Body>,
    line: &mut AccessLine,
) -> Result<(Response<Body>, Admitted), Refusal> {
    let service = &entry.service;
    let admitted = bounds::admit(host, service, caller.as_str(), request.headers()).await?;
    let (mut head, body) = request.into_parts();
    prepare(entry, verdict, caller, &mut head)?;
    admitted.tell_app(&mut head.headers);
    let traffic = line.traffic();
    let asked = async {
        if head.headers.contains_key(UPGRADE) {
            return Box::pin(upgrade::ask_app(host, service, head)).await;
        }
        let body = boxed(Counted::new(body, traffic));
        let sent = host.apps.request(service, Request::from_parts(head, body));
        Ok(sent.await?.map(boxed))
    };
    let mut response = admitted.within(asked).await?;
    headers::response_from_app(response.headers_mut());
    bounds::mark_vain(host, service, &mut response);
    Ok((response, admitted))
}

/// Makes of a request that was let through what the app gets.
pub(crate) fn prepare(
    entry: &Entry,
    verdict: &Verdict<'_>,
    caller: &SpiffeId,
    head: &mut request::Parts,
) -> Result<(), Reason> {
    entry.conform(verdict, head)?;
    headers::request_from_peer(head, caller.as_str())?;
    headers::remove_untrusted(&mut head.headers, &entry.service.trust_headers);
    served(&entry.service, head)
}

/// Whether the service serves the authority that a cleaned request names. Apps that tell virtual hosts apart would otherwise
/// be reached by way of a service that is not theirs.
pub(crate) fn served(service: &Service, head: &request::Parts) -> Result<(), Reason> {
    match head
        .uri
        .authority()
        .is_some_and(|named| service.hosts.admit(named))
    {
        true => Ok(()),
        false => Err(Reason::WrongHost),
    }
}

/// One tunnel of a peer.
async fn carry(host: Arc<Host>, session: &Session, request: ConnectRequest) {
    let callee = called(session);
    let mut live = Live::connection(&host.policy, session.peer(), session.local());
    let entry = host.policy.current().entry(callee).cloned();
    let entry = entry.as_deref();
    let config = host.config.load_full();
    let mut line = line(&host, &live, entry, Protocol::Tcp, None);
    let (named, port) = request.authority.rsplit_once(':').unwrap_or_default();
    let is_named = named == callee || named == session.local().dns_name();
    // Only who may call learns which port the service has.
    let opened = if !is_named {
        Err(Reason::WrongService)
    } else {
        match judge(&host, &live, entry, Protocol::Tcp) {
            Ok((entry, _)) if !is_port_of(&entry.service, port) => Err(Reason::BadRequest),
            Ok((entry, _)) => {
                let origin = Origin {
                    from: Some(session.peer_addr()),
                    caller: Some(session.peer().as_str()),
                };
                apps::open(&entry.service, config.limits.connect, origin).await
            }
            Err(refused) => Err(refused.note(&mut line)),
        }
    };
    let socket = match opened {
        Ok(socket) => socket,
        Err(reason) => {
            line.fail(reason);
            let _gone = request.refuse(reason.response(callee)).await;
            return line.finish();
        }
    };
    match request.accept(HeaderMap::new()).await {
        Ok(tunnel) => {
            let (idle, traffic) = (config.limits.idle, line.traffic().clone());
            let (socket, cut) = (socket.into(), live.cut());
            let ended = pump::tunnel(socket, tunnel, End::Callee, idle, &traffic, cut).await;
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

/// The port in the authority of a CONNECT between agents (RFC 9110 §9.3.6 wants one): services of the mesh have none.
pub(crate) const AUTHORITY_PORT: u16 = 443;

/// Whether the port of a CONNECT (RFC 9110 §9.3.6) is one that stands for the service: 443, as agents say it, or the app's.
fn is_port_of(service: &Service, port: &str) -> bool {
    let port = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse::<u16>());
    matches!(port, Some(Ok(port)) if port == AUTHORITY_PORT || port == service.address.port())
}

/// A tunnel of a caller on this node: the same judgement, and a socket to the app for as long as that holds.
pub async fn local_socket(
    host: &Host,
    caller: &SpiffeId,
    callee: &SpiffeId,
) -> Result<(TcpStream, Live), Reason> {
    let session = open_local(host, caller, callee)?;
    let live = Live::connection(&host.policy, caller, callee).over(session);
    let connect = host.config.load().limits.connect;
    let entry = host.policy.current().entry(live.callee()).cloned();
    let judged = judge(host, &live, entry.as_deref(), Protocol::Tcp);
    let (entry, _) = judged.map_err(|refused| refused.reason)?;
    let origin = Origin {
        from: None,
        caller: Some(caller.as_str()),
    };
    Ok((apps::open(&entry.service, connect, origin).await?, live))
}

/// What a handshake would prove if the two apps were on different hosts.
pub fn open_local(
    host: &Host,
    caller: &SpiffeId,
    callee: &SpiffeId,
) -> Result<LocalSession, Reason> {
    LocalSession::open(&host.identities, caller, callee).map_err(|refusal| {
        let error: &(dyn std::error::Error + 'static) = &refusal;
        tracing::debug!(%caller, %callee, error, "call within this host refused");
        match refusal {
            LocalRefusal::Caller(_) => Reason::NoIdentity,
            LocalRefusal::Callee(_) => Reason::WrongIdentity,
        }
    })
}

/// A call that goes no further.
pub(crate) struct Refused<'e> {
    pub(crate) reason: Reason,
    pub(crate) rule: Option<&'e Where>,
}

impl Refused<'_> {
    /// The reason, with the rule noted in the access line.
    fn note(self, line: &mut AccessLine) -> Reason {
        if let Some(rule) = self.rule {
            line.set_rule(&rule.to_string());
        }
        self.reason
    }
}

impl From<Reason> for Refused<'_> {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

/// May the call go on? What only the mode lets through is told to the audit.
fn judge<'e>(
    host: &Host,
    live: &Live,
    entry: Option<&'e Entry>,
    protocol: Protocol,
) -> Result<(&'e Entry, Verdict<'e>), Refused<'e>> {
    let (entry, verdict) = decide(live, entry, protocol)?;
    if !verdict.is_granted() {
        let audit = &host.policy.audit;
        audit.let_through(entry, live.caller(), &verdict);
    }
    Ok((entry, verdict))
}

/// May the call go on? Pure.
pub(crate) fn decide<'e>(
    live: &Live,
    entry: Option<&'e Entry>,
    protocol: Protocol,
) -> Result<(&'e Entry, Verdict<'e>), Refused<'e>> {
    let entry = entry.ok_or(Reason::WrongService)?;
    let verdict = entry.judge(live.caller(), live.subject());
    if let Some(reason) = verdict.refusal() {
        let rule = verdict.rule;
        return Err(Refused { reason, rule });
    }
    // Told only to those who may call: what a service speaks is nobody else's business.
    if entry.service.takes(protocol) {
        Ok((entry, verdict))
    } else {
        Err(Reason::WrongProtocol.into())
    }
}

/// The service that we proved to be on this connection; a node's own identity serves nothing.
fn called(session: &Session) -> &str {
    session.local().service_name().unwrap_or_default()
}

fn line(
    host: &Host,
    live: &Live,
    entry: Option<&Entry>,
    protocol: Protocol,
    request: Option<&Request<Body>>,
) -> AccessLine {
    let known = live.caller().service_name();
    let known = known.filter(|name| entry.is_some_and(|entry| entry.names(name)));
    let series = host.series(
        Side::Callee,
        known.unwrap_or(OTHER),
        entry.map_or(OTHER, |entry| entry.service.name.as_str()),
        protocol,
    );
    let mut line = match request {
        Some(request) => {
            let path = request.uri().path();
            let mut line = AccessLine::request(&series, request.method(), path);
            line.see(request.headers());
            line
        }
        None => AccessLine::connection(&series),
    };
    if known.is_none() {
        line.set_caller(live.caller().as_str());
    }
    line.set_instance(&host.node);
    line
}
