//! Connections to the local apps behind our services.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::body::Body;
use crate::config::{HttpVersion, Service};
use crate::headers;
use crate::proxy_protocol::{self, Origin};
use crate::reason::Reason;

/// Calls apps, keeping connections to them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Apps {
    http1: Client<HttpConnector, Body>,
    http2: Client<HttpConnector, Body>,
}

impl Apps {
    /// `connect` bounds how long a connection to an app may take, `header_bytes` the fields of an answer in HTTP/2.
    pub fn new(connect: Duration, header_bytes: u32) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(connect));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .set_host(false);
        Self {
            http1: builder.build(connector.clone()),
            http2: builder
                .http2_only(true)
                .http2_max_header_list_size(header_bytes)
                .build(connector),
        }
    }

    /// Sends a request, cleaned by [`headers::request_from_peer`], to the app of `service`.
    pub async fn request(
        &self,
        service: &Service,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Reason> {
        let (mut head, body) = request.into_parts();
        let client = match service.http {
            HttpVersion::H1 => {
                headers::into_http1(&mut head)?;
                &self.http1
            }
            HttpVersion::H2 | HttpVersion::Grpc => {
                head.version = http::Version::HTTP_2;
                &self.http2
            }
        };
        head.uri = at(service.address, &head.uri)?;
        let sent = client.request(Request::from_parts(head, body)).await;
        let response = sent.map_err(|error| {
            tracing::debug!(service = %service.name, %error, "the app did not answer");
            if error.is_connect() {
                Reason::AppUnreachable
            } else {
                Reason::AppBroken
            }
        })?;
        // Nobody asked for another protocol here; hyper gives such a connection up. Nor is there a sixth class of status
        // (RFC 9110 §15).
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || status.as_u16() > STATUS_MAX {
            return Err(Reason::AppBroken);
        }
        Ok(response)
    }
}

/// Opens a connection to the app of a tcp service, and tells the app who calls if it wants to know.
pub async fn open(
    service: &Service,
    budget: Duration,
    origin: Origin<'_>,
) -> Result<TcpStream, Reason> {
    let mut socket = connect(service, budget).await?;
    if service.is_told {
        let header = proxy_protocol::header(origin, service.address);
        let told = tokio::time::timeout(budget, socket.write_all(&header)).await;
        told.map_err(|_elapsed| Reason::AppUnreachable)?
            .map_err(|_error| Reason::AppUnreachable)?;
    }
    Ok(socket)
}

/// Opens a connection to an app.
pub async fn connect(service: &Service, budget: Duration) -> Result<TcpStream, Reason> {
    let connected = tokio::time::timeout(budget, TcpStream::connect(service.address)).await;
    let socket = connected
        .map_err(|_elapsed| Reason::AppUnreachable)?
        .map_err(|_error| Reason::AppUnreachable)?;
    let _best_effort = socket.set_nodelay(true);
    Ok(socket)
}

/// The path of `uri` at the app's own address: which host the caller asked for travels in `Host`.
fn at(address: SocketAddr, uri: &Uri) -> Result<Uri, Reason> {
    let authority =
        Authority::try_from(address.to_string()).map_err(|_invalid| Reason::Internal)?;
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts
        .path_and_query
        .get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)
}

/// The last status of the fifth class; `http` takes up to 999.
pub(crate) const STATUS_MAX: u16 = 599;

/// Shorter than the keep-alive of common servers (nginx 75 s), so that we close first and no request meets a close.
const POOL_IDLE: Duration = Duration::from_secs(30);
