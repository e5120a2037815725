//! Who may call a service: only the nodes that run it know, so they are asked.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::Leaf;

use crate::admin::view::{NodePolicy, Policy};
use crate::control::{Handler, Refused, Who};
use crate::host::Host;

/// What other nodes may ask.
pub(crate) fn handler() -> Handler {
    Handler::new(POLICY, Who::Node, tell)
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    service: String,
}

async fn tell(host: Arc<Host>, _asker: Leaf, question: Question) -> Result<Policy, Refused> {
    own(&host, &question.service)
        .map_err(|why| Refused::new(StatusCode::NOT_FOUND, "not_here", why))
}

fn own(host: &Host, service: &str) -> Result<Policy, String> {
    let policy = host.policy.current();
    let entry = policy.entry(service);
    let entry = entry.ok_or_else(|| format!("`{service}` does not run on this node"))?;
    Ok(entry.show(&host.policy.audit))
}

/// What the nodes that run `service` say, as far as this one knows them. An error is for people.
pub(super) async fn of(host: &Arc<Host>, service: &str) -> Result<Vec<NodePolicy>, String> {
    let catalogue = host.membership.catalogue();
    let instances = catalogue.instances(service);
    if instances.is_empty() {
        return Err(format!("no node is known to run `{service}`"));
    }
    let nodes: Vec<_> = instances
        .iter()
        .take(NODES_MAX)
        .map(|one| one.node.clone())
        .collect();
    let asked = stream::iter(nodes).map(|node| ask(host, node, service));
    Ok(asked.buffered(ASKED_AT_ONCE).collect().await)
}

async fn ask(host: &Arc<Host>, node: NodeName, service: &str) -> NodePolicy {
    let answer = if node == host.node {
        own(host, service)
    } else {
        let question = Question {
            service: service.to_owned(),
        };
        let asked = host.control().ask(&node, POLICY, &question).await;
        asked.map(Policy::of_another).map_err(|error| error.told())
    };
    let (policy, problem) = match answer {
        Ok(policy) => (Some(policy), None),
        Err(problem) => (None, Some(problem)),
    };
    NodePolicy {
        node: node.to_string(),
        policy,
        problem,
    }
}

const POLICY: &str = "/v1/policy";

/// Nodes that are asked for one question: their policies are mostly the same.
const NODES_MAX: usize = 32;

/// Nodes asked at a time: those that do not answer cost seconds each.
const ASKED_AT_ONCE: usize = 16;
