//! Asking another agent.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_gossip::NodeName;
use starling_transport::h3::RequestError;
use starling_transport::{DialError, SpiffeId};
use tokio::time::timeout;

use super::{ANSWER_BUDGET, Refused, collect};
use crate::body::BoxError;
use crate::host::Host;
use crate::said;

/// Asks other agents. Made by [`Host::control`](crate::host::Host::control).
#[derive(Debug, Clone, Copy)]
pub struct Client<'a>(pub(crate) &'a Arc<Host>);

/// Why a question was not answered. Whether the other agent acted on it is certain only with [`ControlError::Refused`]
/// and the errors that say that nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error("no node `{0}` is known here")]
    UnknownNode(NodeName),
    /// Nothing was sent.
    #[error("cannot reach node `{node}`")]
    Dial { node: NodeName, source: DialError },
    #[error("the question did not reach node `{node}`, or its answer did not come back")]
    Lost {
        node: NodeName,
        source: RequestError,
    },
    #[error("node `{node}` broke off its answer")]
    Broken { node: NodeName, source: BoxError },
    #[error("node `{0}` did not answer within {ANSWER_BUDGET:?}")]
    TimedOut(NodeName),
    #[error("node `{node}` refused ({reason}), saying {why}", reason = said::word(&refused.reason), why = said::quoted(&refused.why))]
    Refused { node: NodeName, refused: Refused },
    #[error("node `{node}` answered something else than this version of starling expects")]
    NotUnderstood {
        node: NodeName,
        source: serde_json::Error,
    },
    #[error("the question cannot be written")]
    Unsayable(#[source] serde_json::Error),
}

impl ControlError {
    /// The other agent's answer, if it was a refusal.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused { refused, .. } => Some(refused),
            _ => None,
        }
    }

    /// Why `node` did not answer, for a line that names the node.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Refused { refused, .. } => format!("it says {}", said::quoted(&refused.why)),
            other => said::causes(other),
        }
    }
}

impl Client<'_> {
    /// Asks `node` as this node. Asking ourselves takes no connection. Every text of the answer is one bounded, printable line.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        node: &NodeName,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, ControlError> {
        let caller = self.0.identities.current().node.id().clone();
        self.ask_as(&caller, node, path, question).await
    }

    /// Asks `node` as `caller`, one of the identities that this node holds.
    pub async fn ask_as<T: DeserializeOwned>(
        &self,
        caller: &SpiffeId,
        node: &NodeName,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, ControlError> {
        let answer: serde_json::Value = self.ask_exact_as(caller, node, path, question).await?;
        serde_json::from_value(said::tame(answer)).map_err(|source| ControlError::NotUnderstood {
            node: node.clone(),
            source,
        })
    }

    /// The same as [`ask`](Self::ask), but the answer is as it came. For answers with certificates or pages in them, whose
    /// reader checks every text before it is shown.
    pub async fn ask_exact<T: DeserializeOwned>(
        &self,
        node: &NodeName,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, ControlError> {
        let caller = self.0.identities.current().node.id().clone();
        self.ask_exact_as(&caller, node, path, question).await
    }

    /// The same as `caller`, one of the identities that this node holds.
    pub async fn ask_exact_as<T: DeserializeOwned>(
        &self,
        caller: &SpiffeId,
        node: &NodeName,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(question).map_err(ControlError::Unsayable)?;
        let asked = timeout(
            ANSWER_BUDGET,
            self.exchange(caller, node, path, body.into()),
        );
        let (status, body) = asked
            .await
            .unwrap_or_else(|_elapsed| Err(ControlError::TimedOut(node.clone())))?;
        let not_understood = |source| ControlError::NotUnderstood {
            node: node.clone(),
            source,
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(not_understood);
        }
        let refused = Refused {
            status,
            ..serde_json::from_slice(&body).map_err(not_understood)?
        };
        Err(ControlError::Refused {
            node: node.clone(),
            refused: refused.tame(),
        })
    }

    async fn exchange(
        &self,
        caller: &SpiffeId,
        node: &NodeName,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ControlError> {
        let host = self.0;
        let response = if *node == host.node {
            let question = Request::post(path).body(crate::body::full(body));
            let question = question.expect("a path of ours");
            let identities = host.identities.current();
            let svid = identities.svid(caller).ok_or_else(|| ControlError::Dial {
                node: node.clone(),
                source: DialError::NotOurs {
                    caller: caller.clone(),
                },
            })?;
            super::serve(host, svid.leaf(), question).await
        } else {
            let addrs = self.addresses(node)?;
            let callee = SpiffeId::node(&host.trust_domain, node.as_str())
                .expect("a node name is a valid path segment of a SPIFFE ID");
            let dialled = host.pool.get(caller, &callee, &addrs).await;
            let requester = dialled.map_err(|source| ControlError::Dial {
                node: node.clone(),
                source,
            })?;
            let question = Request::builder()
                .method(Method::POST)
                .uri(format!("https://{}{path}", callee.dns_name()))
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .expect("names and paths of ours");
            let answered = requester.request(question).await;
            let answered = answered.map_err(|source| ControlError::Lost {
                node: node.clone(),
                source,
            })?;
            answered.map(crate::body::boxed)
        };
        let (head, body) = response.into_parts();
        let body = collect(body).await;
        let body = body.map_err(|source| ControlError::Broken {
            node: node.clone(),
            source,
        })?;
        Ok((head.status, body))
    }

    fn addresses(&self, node: &NodeName) -> Result<Vec<SocketAddr>, ControlError> {
        let catalogue = self.0.membership.catalogue();
        let member = catalogue.member(node.as_str());
        let member = member.ok_or_else(|| ControlError::UnknownNode(node.clone()))?;
        Ok(member.addrs.clone())
    }
}

impl Refused {
    fn tame(self) -> Self {
        Self {
            reason: said::line(&self.reason),
            why: said::line(&self.why),
            ..self
        }
    }
}
