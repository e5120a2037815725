//! Requests between agents: `POST /v1/<what>` with JSON both ways, over HTTP/3 to the identity of a node.
//!
//! Who asks is whom the connection proved: mostly a node, for a renewal also a service. What may be asked stands in one
//! table, [`handlers`]; everything is bounded, as any service of the mesh can open such a connection.

mod client;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_transport::{Leaf, SpiffeId};
use tokio::sync::Semaphore;

use crate::agent::{check, explain, policies, readers};
use crate::body::{Body, BoxError, full};
use crate::host::Host;
use crate::issuer;
use crate::scrape;
use crate::survey;
use crate::tap;

pub use client::{Client, ControlError};

/// What the agents of this mesh may ask each other. Each part of the agent adds a line.
pub fn handlers() -> Vec<Handler> {
    let own = [
        Handler::new("/v1/renew", Who::Anyone, issuer::renew),
        Handler::new("/v1/redeem", Who::Node, issuer::redeem),
        Handler::new("/v1/spent", Who::Node, issuer::spent),
        Handler::new("/v1/lines", Who::Node, issuer::lines),
        Handler::new("/v1/invitations", Who::Node, issuer::end_revoked),
        policies::handler(),
        readers::handler(),
        survey::handler(),
        tap::handler(),
        scrape::handler(),
    ];
    own.into_iter()
        .chain(explain::handlers())
        .chain(check::handlers())
        .collect()
}

/// What other agents may ask of this one, and how much of it at a time.
pub struct Control {
    handlers: Vec<Handler>,
    under_way: Semaphore,
}

/// Answers one path.
pub struct Handler {
    path: &'static str,
    who: Who,
    run: Run,
}

type Run = Box<dyn Fn(Arc<Host>, Leaf, Bytes) -> BoxFuture<'static, Answer> + Send + Sync>;
type Answer = Result<Vec<u8>, Refused>;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Any node of the mesh.
    Node,
    /// Any identity of the mesh, for what concerns itself.
    Anyone,
}

/// A question that is not answered. It travels as JSON, with `reason` for programs and `why` for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// One word of a closed list of whoever handles the path.
    pub reason: String,
    /// One line.
    pub why: String,
    /// Milliseconds until the same may be asked with success, for a question that is refused only now. From another agent
    /// it is a claim: the asking side bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip)]
    status: StatusCode,
}

impl Control {
    pub fn new(handlers: Vec<Handler>) -> Self {
        Self {
            handlers,
            under_way: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    fn handler(&self, peer: &SpiffeId, path: &str) -> Result<&Handler, Refused> {
        let mut handlers = self.handlers.iter();
        // One answer for both, so that a service cannot look around.
        let found = handlers.find(|handler| handler.path == path && handler.who.may_be(peer));
        found.ok_or_else(|| {
            let why =
                "nothing of this name may be asked by you here; is one agent of an older version?";
            Refused::new(StatusCode::NOT_FOUND, "unknown_question", why)
        })
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths = self.handlers.iter().map(|handler| handler.path);
        f.debug_list().entries(paths).finish()
    }
}

impl Handler {
    /// `run` gets the certificate of who asks, and what, and gives the answer. Both are JSON on the way.
    pub fn new<Q, A, F>(path: &'static str, who: Who, run: fn(Arc<Host>, Leaf, Q) -> F) -> Self
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Future<Output = Result<A, Refused>> + Send + 'static,
    {
        let run: Run = Box::new(move |host, peer, body| {
            let question = serde_json::from_slice(&body);
            let work = question.map(|question| run(host, peer, question));
            Box::pin(async move {
                let work = work.map_err(|error| Refused::bad_question(error.to_string()))?;
                let answer = serde_json::to_vec(&work.await?);
                answer.map_err(|error| Refused::internal(error.to_string()))
            })
        });
        Self { path, who, run }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {:?}", self.path, self.who)
    }
}

impl Who {
    fn may_be(self, peer: &SpiffeId) -> bool {
        match self {
            Self::Node => peer.node_name().is_some(),
            Self::Anyone => true,
        }
    }
}

impl Refused {
    /// `status` says whose fault it is, in HTTP's words.
    pub fn new(status: StatusCode, reason: &str, why: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            why: why.into(),
            retry_after_ms: None,
            status,
        }
    }

    /// The question comes too early or too often. It may be asked again after `after`, rounded up to milliseconds.
    pub fn not_yet(reason: &str, why: impl Into<String>, after: Duration) -> Self {
        let millis = after.as_nanos().div_ceil(1_000_000);
        Self {
            retry_after_ms: Some(u64::try_from(millis).unwrap_or(u64::MAX)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, reason, why)
        }
    }

    /// When to ask again, if nothing else is wrong with the question than its time.
    pub fn retry_after(&self) -> Option<Duration> {
        let is_not_yet = self.status == StatusCode::TOO_MANY_REQUESTS;
        let after = self.retry_after_ms.filter(|_| is_not_yet);
        after.map(Duration::from_millis)
    }

    /// The question is not what the handler expects.
    pub fn bad_question(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_question", why)
    }

    /// Something is wrong here, not with the question.
    pub fn internal(why: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", why)
    }

    /// The status it travels with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Ask again later.
    pub fn busy() -> Self {
        let why = "too many questions at a time; ask again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why)
    }
}

/// Answers one request that came on a connection on which we proved to be the node.
pub async fn serve(host: &Arc<Host>, peer: &Leaf, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let answered = match host.control.under_way.try_acquire() {
        Ok(_permit) => {
            let work = read_and_answer(host, peer, &path, request);
            let timed = tokio::time::timeout(ANSWER_BUDGET, work).await;
            timed.unwrap_or_else(|_elapsed| Err(Refused::busy()))
        }
        Err(_full) => Err(Refused::busy()),
    };
    if let Err(refused) = &answered {
        tracing::debug!(peer = %peer.id, path, reason = refused.reason, error = refused.why, "question refused");
    }
    response(answered)
}

async fn read_and_answer(
    host: &Arc<Host>,
    peer: &Leaf,
    path: &str,
    request: Request<Body>,
) -> Answer {
    if request.method() != Method::POST {
        let why = "questions between agents are POST";
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method", why));
    }
    let body = collect(request.into_body()).await;
    let body = body.map_err(|error| Refused::bad_question(error.to_string()))?;
    let handler = host.control.handler(&peer.id, path)?;
    let answer = (handler.run)(host.clone(), peer.clone(), body).await?;
    if answer.len() > BODY_BYTES_MAX {
        return Err(Refused::internal(
            "the answer is larger than an answer may be",
        ));
    }
    Ok(answer)
}

fn response(answered: Answer) -> Response<Body> {
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(refused) => (
            refused.status,
            serde_json::to_vec(&refused).unwrap_or_default(),
        ),
    };
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The whole of a body that is no larger than it may be.
async fn collect(mut body: Body) -> Result<Bytes, BoxError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > BODY_BYTES_MAX {
            return Err(format!("more than {BODY_BYTES_MAX} bytes").into());
        }
    }
    Ok(bytes.into())
}

/// Questions answered at a time, over all peers: they are rare, and 64 with full bodies are 8 MiB.
const UNDER_WAY_MAX: usize = 64;

/// Bytes of a question or an answer. A document of 64 KiB in base64 is the largest.
pub(crate) const BODY_BYTES_MAX: usize = 128 * 1024;

/// A question is answered from memory or a small file; what takes longer is stuck.
const ANSWER_BUDGET: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
