//! Requests at the join port.

use std::sync::Arc;

use starling_transport::join::{JoinListener, Visitor};
use tokio::task::JoinSet;

use super::pass::decide;
use super::turned;
use crate::enrol::{Outcome, Reply, Turned};
use crate::host::{Host, PanicCount};
use crate::telemetry::metrics;

/// Answers whoever comes to the join port, until it is closed. Dropping it ends the answers under way.
pub async fn serve(host: Arc<Host>, listener: JoinListener) {
    let mut answering = JoinSet::new();
    while let Some(visitor) = listener.accept().await {
        while answering.try_join_next().is_some() {}
        if answering.len() >= ANSWERING_MAX {
            answering.join_next().await;
        }
        let host = host.clone();
        answering.spawn(async move {
            let _counted = PanicCount("join");
            answer(&host, visitor).await;
        });
    }
}

async fn answer(host: &Arc<Host>, visitor: Visitor) {
    let decided = judge(host, &visitor).await;
    let (outcome, reply) = match decided {
        Ok(reply) => (Outcome::Joined, reply),
        Err(turned) => {
            tracing::warn!(peer.addr = %visitor.from, reason = turned.outcome.as_str(), "a host is not let in");
            (turned.outcome, Reply::Refused(turned))
        }
    };
    metrics::join_answered(outcome);
    let reply = serde_json::to_vec(&reply).expect("strings can be written");
    visitor.answer(&reply).await;
}

async fn judge(host: &Arc<Host>, visitor: &Visitor) -> Result<Reply, Turned> {
    let role = host.issuer.load_full();
    let role = role.ok_or_else(|| turned(Outcome::Internal, "this node is no issuer any more"))?;
    let asked = serde_json::from_slice(&visitor.request);
    let asked = asked.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
    let from = visitor.from.to_string();
    decide(host, role, asked, visitor.binding, from)
        .await
        .map(Reply::Joined)
}

/// Requests judged at a time; each takes some milliseconds, most of them the disk's.
const ANSWERING_MAX: usize = 64;
