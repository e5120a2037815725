//! Callers without the mesh, while a service is permissive: its `plaintext` address is open, and who still comes there is
//! counted and shown. In every other mode it is closed, and while the service's own certificate is not good: a service that
//! is revoked must not be reached by this address instead.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use starling_gossip::ServiceName;
use starling_transport::credential;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Call, Closing, Counted, boxed, full};
use crate::config::{Mode, Protocol, Service};
use crate::grpc::Tongue;
use crate::guard::Refusal;
use crate::host::Host;
use crate::inbound::bounds::{self, Admitted};
use crate::inbound::served;
use crate::policy::Entry;
use crate::proxy_protocol::Origin;
use crate::reason::Reason;
use crate::telemetry::access::AccessLine;
use crate::telemetry::metrics;
use crate::telemetry::series::{OTHER, Side};
use crate::upgrade::{self, Switched};
use crate::{apps, conversation, headers, pump};

/// Who came without the mesh, and how many of them are served at a time.
#[derive(Debug)]
pub struct Plaintext {
    seen: Mutex<HashMap<(ServiceName, IpAddr), Seen>>,
    connections: Arc<Semaphore>,
}

/// One address that came to one service.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub connections: u64,
    pub last: Instant,
}

impl Default for Plaintext {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

impl Plaintext {
    /// Who came to which service, the latest first.
    pub fn seen(&self) -> Vec<(ServiceName, IpAddr, Seen)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = seen
            .iter()
            .map(|((service, ip), seen)| (service.clone(), *ip, *seen))
            .collect();
        all.sort_by_key(|(.., seen)| std::cmp::Reverse(seen.last));
        all
    }

    /// Notes a visit. Past the bound the address that was quiet for longest is forgotten. Whether it is a first one.
    fn note(&self, service: &ServiceName, ip: IpAddr) -> bool {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), ip);
        let is_new = !seen.contains_key(&key);
        if is_new && seen.len() >= ADDRESSES_MAX {
            let oldest = seen.iter().min_by_key(|(_, seen)| seen.last);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.map(|key| seen.remove(&key));
        }
        let entry = seen.entry(key).or_insert(Seen {
            connections: 0,
            last: now,
        });
        entry.connections += 1;
        entry.last = now;
        is_new
    }
}

type Key = (ServiceName, SocketAddr);

/// Keeps the plaintext addresses open that policy wants open and certificates allow, and no others. Never ends.
pub async fn follow(host: Arc<Host>) {
    let mut changes = host.policy.changes();
    let mut identities = host.identities.changes();
    let mut open: HashMap<Key, CancellationToken> = HashMap::new();
    let mut failed: HashSet<Key> = HashSet::new();
    loop {
        identities.mark_unchanged();
        let Wanted { keys: wanted, ends } = Wanted::now(&host);
        open.retain(|key, closed| {
            let is_wanted = wanted.contains(key);
            if !is_wanted {
                closed.cancel();
                tracing::info!(service = %key.0, "plaintext address closed");
            }
            is_wanted
        });
        failed.retain(|key| wanted.contains(key));
        for key in wanted {
            if open.contains_key(&key) {
                continue;
            }
            match TcpListener::bind(key.1).await {
                Ok(listener) => {
                    tracing::warn!(service = %key.0, listen = %key.1, "plaintext address open: callers there prove nothing");
                    let closed = CancellationToken::new();
                    let serving = serve(host.clone(), listener, key.0.clone(), closed.clone());
                    host.spawn(serving);
                    failed.remove(&key);
                    open.insert(key, closed);
                }
                Err(error) => {
                    if failed.insert(key.clone()) {
                        tracing::error!(service = %key.0, listen = %key.1, %error, "cannot open the plaintext address");
                    }
                }
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = credential::wait(&mut identities, ends) => {}
            () = tokio::time::sleep(RETRY_EVERY), if !failed.is_empty() => {}
        }
    }
}

/// The addresses that are to be open.
struct Wanted {
    keys: HashSet<Key>,
    /// When a certificate ends and one of them has to be closed.
    ends: SystemTime,
}

impl Wanted {
    fn now(host: &Host) -> Self {
        let mut keys = HashSet::new();
        let mut ends = SystemTime::now() + RETRY_EVERY;
        for entry in host.policy.current().entries() {
            let Some(address) = entry.service.plaintext else {
                continue;
            };
            let name = &entry.service.name;
            if entry.mode == Mode::Permissive
                && let Ok(end) = host.identities.judge_own(&host.service_id(name))
            {
                keys.insert((name.clone(), address));
                ends = ends.min(end);
            }
        }
        Self { keys, ends }
    }
}

/// Takes connections until `closed`, which cuts those under way, or until the host drains.
async fn serve(
    host: Arc<Host>,
    listener: TcpListener,
    service: ServiceName,
    closed: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
            () = host.drain.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%service, %error, "cannot take a plaintext connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = host.plaintext.connections.clone().try_acquire_owned().ok();
        let entry = host.policy.current().entry(service.as_str()).cloned();
        metrics::plaintext(&service, permit.is_some());
        if let (Some(entry), Some(permit)) = (entry, permit) {
            let ip = peer.ip().to_canonical();
            if host.plaintext.note(&service, ip) {
                tracing::warn!(%service, peer.addr = %ip, "called in plaintext");
            }
            let (work, closed) = (host.clone(), closed.clone());
            host.spawn(async move {
                let _best_effort = socket.set_nodelay(true);
                connection(work, entry, socket, ip, closed).await;
                drop(permit);
            });
        }
    }
}

async fn connection(
    host: Arc<Host>,
    entry: Arc<Entry>,
    socket: TcpStream,
    ip: IpAddr,
    closed: CancellationToken,
) {
    match entry.service.protocol {
        Protocol::Tcp => tcp(&host, &entry, socket, ip, &closed).await,
        Protocol::Http => Box::pin(http(host, entry, socket, ip, closed)).await,
    }
}

async fn tcp(
    host: &Host,
    entry: &Entry,
    socket: TcpStream,
    ip: IpAddr,
    closed: &CancellationToken,
) {
    let limits = host.config.load().limits.clone();
    let series = host.series(
        Side::Callee,
        OTHER,
        entry.service.name.as_str(),
        Protocol::Tcp,
    );
    let mut line = AccessLine::connection(&series);
    begin(&mut line, host, ip);
    let origin = Origin {
        from: Some(SocketAddr::new(ip, 0)),
        caller: None,
    };
    let ended = match apps::open(&entry.service, limits.connect, origin).await {
        Ok(app) => {
            let (socket, app) = (socket.into(), app.into());
            let traffic = [&**line.traffic()];
            pump::sockets(socket, app, limits.idle, &traffic, denied(closed)).await
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

/// Not as bytes: whatever in the requests claims an identity has to go.
async fn http(
    host: Arc<Host>,
    entry: Arc<Entry>,
    socket: TcpStream,
    ip: IpAddr,
    closed: CancellationToken,
) {
    let limits = host.config.load().limits.clone();
    let drain = host.drain.clone();
    let next = Arc::<upgrade::Next>::default();
    let leave = next.clone();
    let service = service_fn(move |request| {
        let (host, entry, next) = (host.clone(), entry.clone(), leave.clone());
        // Boxed, so that an idle connection holds no room for a call.
        Box::pin(async move { Ok::<_, Infallible>(call(&host, &entry, ip, &next, request).await) })
    });
    let conversation = conversation::serve(socket, service, &limits, &drain);
    if closed.run_until_cancelled(conversation).await.is_some() {
        next.run(limits.idle, denied(&closed)).await;
    }
}

/// Resolves when the address is closed.
async fn denied(closed: &CancellationToken) -> Reason {
    closed.cancelled().await;
    Reason::Denied
}

async fn call(
    host: &Host,
    entry: &Entry,
    ip: IpAddr,
    next: &upgrade::Next,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let service = &entry.service;
    let series = host.series(Side::Callee, OTHER, service.name.as_str(), Protocol::Http);
    let mut line = AccessLine::request(&series, request.method(), request.uri().path());
    line.see(request.headers());
    begin(&mut line, host, ip);
    line.trace(request.headers_mut(), host.traces.current().as_ref());
    let (tongue, version) = (Tongue::of(request.headers()), request.version());
    let connection = hyper::upgrade::on(&mut request);
    match ask(host, service, ip, request, &mut line).await {
        Ok((response, admitted)) => {
            line.set_status(response.status());
            line.note(response.headers());
            let (mut head, body) = response.into_parts();
            headers::response_from_app(&mut head.headers);
            head.version = http::Version::HTTP_11;
            if let Some(side) = Switched::take(&mut head.extensions) {
                next.switch(
                    &mut head.headers,
                    connection,
                    side,
                    line,
                    None,
                    admitted.held,
                );
                return Response::from_parts(head, body);
            }
            let call = Call {
                line,
                pick: None,
                broken: Reason::AppBroken,
                timers: admitted.timers(),
                held: admitted.held,
            };
            Response::from_parts(
                head,
                tongue.ending(Closing::new(body, call), Reason::AppBroken),
            )
        }
        Err(refusal) => {
            line.fail(refusal.reason);
            line.set_status(refusal.reason.status());
            line.finish();
            let name = service.name.as_str();
            let mut answer = refusal.response(tongue, name).map(full);
            headers::end_if_in_doubt(refusal.reason, version, answer.headers_mut());
            answer
        }
    }
}

async fn ask(
    host: &Host,
    service: &Service,
    ip: IpAddr,
    request: Request<Incoming>,
    line: &mut AccessLine,
) -> Result<(Response<Body>, Admitted), Refusal> {
    let admitted = bounds::admit(host, service, &caller(ip), request.headers()).await?;
    let (mut head, body) = request.into_parts();
    // A caller without identity is cleaned like an app of this host, and `starling-caller` stays away.
    headers::request_from_app(&mut head, service.name.as_str())?;
    headers::remove_untrusted(&mut head.headers, &service.trust_headers);
    served(service, &head)?;
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
    let response = admitted.within(asked).await?;
    Ok((response, admitted))
}

fn begin(line: &mut AccessLine, host: &Host, ip: IpAddr) {
    line.set_caller(&caller(ip));
    line.set_instance(&host.node);
}

fn caller(ip: IpAddr) -> String {
    format!("plaintext:{ip}")
}

/// Connections in plaintext at a time, over all services: two file descriptors each. Apps of this host have their own.
const CONNECTIONS_MAX: usize = 1024;

/// Addresses remembered, over all services: about 100 bytes each.
const ADDRESSES_MAX: usize = 256;

/// How often an address that could not be opened is tried again, and certificates are looked at that may be good by now.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// How long the accept loop rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
