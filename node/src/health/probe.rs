//! One check of one app.

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Target;
use super::{exec, grpc};
use crate::config::{HealthKind, HttpVersion};

/// Bytes of a response's head that are read; its body is not.
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(super) const AGENT: &str = concat!("starling-health/", env!("CARGO_PKG_VERSION"));

/// Why a check did not pass. Its text is what the operator reads, so it tells the cause too.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("no connection to {address}: {source}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("the path is not one that can be asked for")]
    Path(#[source] http::Error),
    #[error("no HTTP answer: {0}")]
    Http(#[source] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it answered with gRPC status {0}")]
    GrpcStatus(String),
    #[error("no answer of gRPC's health protocol")]
    NotGrpc,
    #[error("it says that it is {0}")]
    NotServing(&'static str),
    #[error("{program} cannot be run: {source}")]
    Run { program: String, source: io::Error },
    #[error("{program} ended with {status}: {said}")]
    Ended {
        program: String,
        status: ExitStatus,
        said: String,
    },
}

/// Passes if the app accepts a connection (`tcp`), answers 2xx or 3xx (`http`; a redirect is not followed) or SERVING
/// (`grpc`), or if the program ends with success (`exec`).
pub(super) async fn probe(target: &Target) -> Result<(), Problem> {
    let limit = target.health.timeout;
    timeout(limit, attempt(target))
        .await
        .unwrap_or(Err(Problem::Slow(limit)))
}

async fn attempt(target: &Target) -> Result<(), Problem> {
    match &target.health.kind {
        HealthKind::Tcp => connect(target).await.map(drop),
        HealthKind::Http { path } => ask_http(target, path).await,
        HealthKind::Grpc { service } => grpc::ask(connect(target).await?, service).await,
        HealthKind::Exec { command } => exec::run(command, target.address).await,
    }
}

async fn connect(target: &Target) -> Result<TokioIo<TcpStream>, Problem> {
    let address = target.address;
    let connected = TcpStream::connect(address).await;
    connected
        .map(TokioIo::new)
        .map_err(|source| Problem::Connect { address, source })
}

async fn ask_http(target: &Target, path: &str) -> Result<(), Problem> {
    let stream = connect(target).await?;
    let status = match target.http {
        HttpVersion::H1 => ask_http1(stream, request(target, path)?).await,
        HttpVersion::H2 | HttpVersion::Grpc => ask_http2(stream, request(target, path)?).await,
    };
    match status.map_err(Problem::Http)? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(Problem::Status(status)),
    }
}

fn request(target: &Target, path: &str) -> Result<Request<Empty<Bytes>>, Problem> {
    let request = Request::get(path).header(USER_AGENT, AGENT);
    let request = match target.http {
        HttpVersion::H1 => request
            .header(HOST, target.address.to_string())
            .header(CONNECTION, "close"),
        HttpVersion::H2 | HttpVersion::Grpc => request
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", target.address)),
    };
    request.body(Empty::new()).map_err(Problem::Path)
}

/// The status of the answer. The connection lives no longer than this: it is driven here and then dropped.
async fn ask_http1(
    stream: TokioIo<TcpStream>,
    request: Request<Empty<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(stream)
        .await?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer.map(|answer| answer.status()),
        ended = &mut connection => ended?,
    }
    answer.await.map(|answer| answer.status())
}

async fn ask_http2(
    stream: TokioIo<TcpStream>,
    request: Request<Empty<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(stream)
        .await?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer.map(|answer| answer.status()),
        ended = &mut connection => ended?,
    }
    answer.await.map(|answer| answer.status())
}
