//! What other nodes may ask: how this one is, whether it reaches them, whether it reaches a third.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::Leaf;
use tokio::time::{Instant, timeout};

use super::look::{back, heard_ms, now_ms};
use super::{digest, liveness, newest_s};
use crate::check::peers::{Back, Pong, Sees};
use crate::control::{Handler, Refused, Who};
use crate::host::Host;
use crate::said::causes;

/// How are you, and what do you see of this node; of the one that asks, if none is named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) about: Option<String>,
}

/// Dial me, from a port that you never used too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Afresh {
    pub(super) afresh: bool,
}

pub(crate) fn handlers() -> [Handler; 3] {
    [
        Handler::new(PING, Who::Node, pong),
        Handler::new(DIAL_BACK, Who::Node, dial_back),
        Handler::new(SECOND_OPINION, Who::Node, second_opinion),
    ]
}

async fn pong(host: Arc<Host>, asker: Leaf, About { about }: About) -> Result<Pong, Refused> {
    let about = match &about {
        Some(about) => about.as_str(),
        None => asker.id.node_name().unwrap_or_default(),
    };
    let catalogue = host.membership.catalogue();
    let member = catalogue.member(about);
    let documents = host.membership.documents();
    Ok(Pong {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: now_ms(),
        sees: member.map(|member| Sees {
            liveness: liveness(member).to_owned(),
            generation: member.generation,
            sequence: member.sequence,
        }),
        heard_ms: member.and_then(|member| heard_ms(&host, member.addrs[0])),
        documents: digest(&documents),
        newest_document_s: newest_s(&documents),
    })
}

/// Only ever the address that the asker's own signed record announces: nobody can make an agent dial somebody else.
async fn dial_back(
    host: Arc<Host>,
    asker: Leaf,
    Afresh { afresh }: Afresh,
) -> Result<Back, Refused> {
    let name = asker.id.node_name().unwrap_or_default();
    let _turn = turn(&host, name)?;
    let catalogue = host.membership.catalogue();
    let addr = catalogue.member(name).map(|member| member.addrs[0]);
    let addr = addr.ok_or_else(|| {
        let why = "this node does not know you yet";
        Refused::new(StatusCode::NOT_FOUND, "unknown_node", why)
    })?;
    Ok(back(&host, &asker.id, addr, afresh).await)
}

/// One node is asked for another one, once, and only how it is.
async fn second_opinion(
    host: Arc<Host>,
    asker: Leaf,
    About { about }: About,
) -> Result<Pong, Refused> {
    let name = asker.id.node_name().unwrap_or_default();
    let _turn = turn(&host, name)?;
    let node = NodeName::parse(about.as_deref().unwrap_or_default());
    let node = node.map_err(|error| Refused::bad_question(error.to_string()))?;
    let question = About {
        about: Some(name.to_owned()),
    };
    let control = host.control();
    let asked = timeout(OPINION_BUDGET, control.ask(&node, PING, &question)).await;
    let why = match asked {
        Ok(Ok(pong)) => return Ok(pong),
        Ok(Err(error)) => causes(&error),
        Err(_elapsed) => format!("node `{node}` did not answer"),
    };
    Err(Refused::new(StatusCode::BAD_GATEWAY, NO_ANSWER, why))
}

fn turn<'a>(host: &'a Host, name: &str) -> Result<tokio::sync::SemaphorePermit<'a>, Refused> {
    host.looks.take(name, Instant::now()).ok_or_else(|| {
        let why = "this node was asked to look at paths too often; ask again";
        Refused::new(StatusCode::TOO_MANY_REQUESTS, "too_often", why)
    })
}

pub(super) const PING: &str = "/v1/ping";
pub(super) const DIAL_BACK: &str = "/v1/dial-back";
pub(super) const SECOND_OPINION: &str = "/v1/second-opinion";

/// The node that was asked for did not answer; any other refusal says nothing of it.
pub(super) const NO_ANSWER: &str = "no_answer";

/// Within what the asker waits for.
const OPINION_BUDGET: Duration = Duration::from_millis(4_000);
