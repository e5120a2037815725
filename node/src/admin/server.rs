//! The admin server: small HTTP/1 with limits on everything, read-only but for the unix socket.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, json, nothing, only_reading, text};
use super::events::{Live, STREAMS_MAX};
use super::origin;
use super::page;
use super::post::post;
use super::remote::{Guest, Rules};
use super::scrape;
use super::socket::Socket;
use super::tap;
use super::view::Source;
use crate::pass;
use crate::policy::explain::Question;
use crate::telemetry::edges::Window;

/// Connections answered at a time; more wait to be accepted. A monitoring system needs one or two, a browser with the
/// dashboard two or three.
const CONNECTIONS_MAX: usize = 32;

/// Bytes of a request's head. Browsers and scrapers send under one kilobyte.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of a request.
const FIELDS_MAX: usize = 64;

/// Time for the head of a request, and for the next one on a kept connection.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// Long enough for what is asked once, short enough to notice who is gone.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);

/// Time for answers under way when the agent stops.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Questions of web pages that may make this agent ask others at a time; more wait. A person asks one.
const QUESTIONS_MAX: usize = 4;

/// Where questions come in.
#[derive(Debug)]
pub enum Door {
    /// For commands: `/v1/…`. Whoever may open the file may ask.
    Socket(Socket),
    /// For monitoring and the dashboard, if there is to be one. Whoever reaches the address may read, but no web page
    /// other than our own.
    Http {
        listener: TcpListener,
        dashboard: bool,
    },
    /// For the dashboard, to those who are not on this host.
    Remote {
        listener: TcpListener,
        rules: Arc<Rules>,
    },
}

/// A connection that came.
enum Arrival {
    Plain(Box<dyn Stream>, Asker),
    /// Its handshake is still to be made.
    Tls(TcpStream, SocketAddr, Arc<Rules>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who asks, as far as it matters.
#[derive(Debug, Clone)]
enum Asker {
    Local,
    Tcp { reached: IpAddr, dashboard: bool },
    Remote(Arc<Guest>),
}

impl Asker {
    /// Longest life of a connection, so that a reader that stops reading frees its place. A dashboard comes back by itself;
    /// a command looks for as long as its pass lets it.
    fn patience(&self) -> Duration {
        match self {
            Self::Local => pass::LIFETIME_MAX,
            Self::Tcp { .. } | Self::Remote(_) => CONNECTION_LIFE,
        }
    }

    /// The pass that a request brings. On this host no cookie counts: they are not kept apart by port.
    fn pass(&self, headers: &HeaderMap) -> Option<String> {
        match self {
            Self::Local | Self::Tcp { .. } => tap::pass(headers),
            Self::Remote(_) => Guest::pass(headers),
        }
    }

    /// Resolves when a client may no longer be connected. On this host nothing proves who it is, and nothing ends.
    async fn ended(&self) {
        match self {
            Self::Local | Self::Tcp { .. } => pending().await,
            Self::Remote(guest) => guest.ended().await,
        }
    }

    /// Resolves when the answer to a request with these headers may go on no longer.
    fn refused(&self, headers: &HeaderMap, source: &Arc<dyn Source>) -> BoxFuture<'static, ()> {
        match self {
            Self::Local | Self::Tcp { .. } => Box::pin(pending()),
            Self::Remote(guest) => Box::pin(guest.pass_ended(headers, source.clone())),
        }
    }

    /// Answers a request that is not let through.
    fn stop(&self, request: &Request<Incoming>, source: &dyn Source) -> Option<Answer> {
        match self {
            Self::Local => None,
            Self::Remote(guest) => guest.stop(request, source),
            Self::Tcp { reached, .. }
                if !origin::is_meant_for(request.uri(), request.headers(), *reached) =>
            {
                let why = "ask by address or as localhost, and not from another web page\n";
                Some(text(StatusCode::FORBIDDEN, why))
            }
            Self::Tcp { dashboard, .. } => {
                let is_there = *dashboard || is_for_monitoring(request.uri().path());
                (!is_there).then(nothing)
            }
        }
    }
}

/// What all conversations at one door share.
struct Desk {
    source: Arc<dyn Source>,
    live: Arc<Live>,
    questions: Semaphore,
}

/// Answers at `door` until `drain`, then finishes the answers under way. Dropping it ends them at once.
pub async fn serve(door: Door, source: Arc<dyn Source>, drain: CancellationToken) {
    let desk = Arc::new(Desk {
        live: Live::new(source.clone(), drain.clone()),
        source,
        questions: Semaphore::new(QUESTIONS_MAX),
    });
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let is_full = connections.len() >= CONNECTIONS_MAX;
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            _ = connections.join_next(), if is_full => continue,
            accepted = door.accept(), if !is_full => accepted,
        };
        match accepted {
            Ok(arrival) => {
                connections.spawn(arrive(arrival, desk.clone(), drain.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                drain.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_WAIT, finished).await.is_err() {
        tracing::debug!("admin connections cut off");
    }
}

impl Door {
    /// Cancel-safe, as both kinds of accept are.
    async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Socket(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Arrival::Plain(Box::new(stream), Asker::Local))
            }
            Self::Http {
                listener,
                dashboard,
            } => {
                let (stream, _) = listener.accept().await?;
                let asker = Asker::Tcp {
                    reached: stream.local_addr()?.ip().to_canonical(),
                    dashboard: *dashboard,
                };
                Ok(Arrival::Plain(Box::new(stream), asker))
            }
            Self::Remote { listener, rules } => {
                let (stream, from) = listener.accept().await?;
                Ok(Arrival::Tls(stream, from, rules.clone()))
            }
        }
    }
}

async fn arrive(arrival: Arrival, desk: Arc<Desk>, drain: CancellationToken) {
    match arrival {
        Arrival::Plain(stream, asker) => converse(stream, asker, desk, drain).await,
        Arrival::Tls(stream, from, rules) => match greet(stream, from, rules).await {
            Ok((stream, guest)) => {
                converse(stream, Asker::Remote(Arc::new(guest)), desk, drain).await;
            }
            Err(error) => tracing::debug!(peer.addr = %from, %error, "no handshake"),
        },
    }
}

/// Shakes hands with somebody from elsewhere.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    rules: Arc<Rules>,
) -> io::Result<(Box<dyn Stream>, Guest)> {
    let reached = stream.local_addr()?.ip();
    let (stream, credential) = timeout(HEAD_WAIT, rules.tls.accept(stream)).await??;
    let guest = Guest::new(rules, from, reached, credential);
    Ok((Box::new(stream), guest))
}

async fn converse(
    stream: Box<dyn Stream>,
    asker: Asker,
    desk: Arc<Desk>,
    drain: CancellationToken,
) {
    let (patience, client) = (asker.patience(), asker.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (desk, asker) = (desk.clone(), asker.clone());
        async move { Ok::<_, Infallible>(take(request, &asker, &desk).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let conversation = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    let conversation = async {
        tokio::select! {
            ended = conversation => ended,
            // Dropped as it is: what is under way must not be finished.
            () = client.ended() => Ok(()),
        }
    };
    match timeout(patience, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
        Err(_elapsed) => tracing::debug!("admin connection outlived its time"),
    }
}

async fn take(request: Request<Incoming>, asker: &Asker, desk: &Desk) -> Answer {
    if let Some(answer) = asker.stop(&request, &*desk.source) {
        return answer;
    }
    let path = request.uri().path();
    match (request.method(), asker) {
        (&Method::POST, Asker::Local) => {
            let path = path.to_owned();
            post(&path, request.into_body(), &*desk.source).await
        }
        (&Method::GET, Asker::Local) if path == "/v1/check" => check(desk).await,
        (&Method::GET, _) if path == "/v1/explain" => explain(request.uri(), desk).await,
        (&Method::GET, _) if path == "/v1/policy" => policy(request.uri(), desk).await,
        (&Method::GET, _) if path == "/v1/edges" => edges(request.uri(), desk).await,
        (&Method::GET, asker) if path == "/v1/events" => {
            let refused = asker.refused(request.headers(), &desk.source);
            events(&desk.live, refused)
        }
        (&Method::GET, _) if path == "/v1/sd" => scrape::targets(request.headers(), &*desk.source),
        (&Method::GET | &Method::HEAD, _) if path == "/metrics" => {
            scrape::own(request.headers(), &*desk.source)
        }
        (&Method::GET, _) if scrape::node(path).is_some() => {
            let node = scrape::node(path).unwrap_or_default();
            scrape::of(node, request.headers(), &*desk.source).await
        }
        (&Method::GET, _) if path == "/v1/tap" => {
            let pass = asker.pass(request.headers());
            tap::tap(&request, pass, &*desk.source)
        }
        (&Method::GET | &Method::HEAD, asker) => answer(path, asker, &*desk.source),
        _ => only_reading(),
    }
}

fn answer(path: &str, asker: &Asker, source: &dyn Source) -> Answer {
    match (path, asker) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) => match source.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        ("/v1/status", Asker::Local) => json(&source.status()),
        ("/v1/nodes", Asker::Local) => json(&source.nodes()),
        ("/v1/services", Asker::Local) => json(&source.services()),
        ("/v1/routes", Asker::Local) => json(&source.routes()),
        ("/v1/documents", Asker::Local) => json(&source.documents()),
        ("/v1/operators", Asker::Local) => json(&source.operators()),
        (path, asker) => match (path.strip_prefix(DOCUMENT).map(str::parse), asker) {
            (Some(Ok(key)), _) => json(&source.document(&key)),
            (None, Asker::Tcp { .. } | Asker::Remote(_)) => {
                page::file(path).unwrap_or_else(nothing)
            }
            _ => nothing(),
        },
    }
}

/// What would become of a call, which other nodes may have to say.
async fn explain(uri: &Uri, desk: &Desk) -> Answer {
    let Some((question, from)) = Question::from_query(uri.query().unwrap_or_default()) else {
        return text(
            StatusCode::BAD_REQUEST,
            "ask with caller=NAME&callee=NAME and, for requests, method and path\n",
        );
    };
    // It is never closed, and an error would only mean that nobody holds us back.
    let _turn = desk.questions.acquire().await;
    match desk.source.explain(question, from).await {
        Ok(explained) => json(&explained),
        Err(why) => text(StatusCode::BAD_GATEWAY, format!("{why}\n")),
    }
}

/// Who may call a service, which the nodes that run it have to say.
async fn policy(uri: &Uri, desk: &Desk) -> Answer {
    let named = uri.query().and_then(|query| query.strip_prefix("service="));
    let Some(service) = named else {
        return text(StatusCode::BAD_REQUEST, "ask with service=NAME\n");
    };
    let _turn = desk.questions.acquire().await;
    match desk.source.policy(service.to_owned()).await {
        Ok(policies) => json(&policies),
        Err(why) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
    }
}

/// Who calls whom, which the other nodes are asked for.
async fn edges(uri: &Uri, desk: &Desk) -> Answer {
    let query = uri.query().unwrap_or("window=1m");
    let Some(window) = query.strip_prefix("window=").and_then(Window::parse) else {
        return text(StatusCode::BAD_REQUEST, "ask with window=1m, 10m or 1h\n");
    };
    let _turn = desk.questions.acquire().await;
    json(&desk.source.survey(window).await)
}

/// What is wrong, which other nodes are asked about too.
async fn check(desk: &Desk) -> Answer {
    let _turn = desk.questions.acquire().await;
    json(&desk.source.check().await)
}

fn events(live: &Arc<Live>, refused: BoxFuture<'static, ()>) -> Answer {
    live.answer(refused).unwrap_or_else(|| {
        let why = format!("{STREAMS_MAX} dashboards are open already; close one\n");
        text(StatusCode::SERVICE_UNAVAILABLE, why)
    })
}

/// One document with its history: `/v1/documents/KIND/NAME`.
const DOCUMENT: &str = "/v1/documents/";

/// What is there without a dashboard too.
fn is_for_monitoring(path: &str) -> bool {
    ["/metrics", "/healthz", "/readyz", "/v1/sd"].contains(&path) || scrape::node(path).is_some()
}

#[cfg(test)]
mod tests;
