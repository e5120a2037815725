//! Requests at the join port.

use std::sync::Arc;

use starling_transport::join::{JoinListener, Visitor};
use tokio::task::JoinSet;

use super::pass::decide;
use crate::host::{Host, PanicCount};
use crate::telemetry::metrics;

/// Answers joiners at the join port, until it is closed. Dropping it ends the answers under way.
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

/// An issuer that cannot sign gives no answer, so that the joiner asks the next one.
async fn answer(host: &Arc<Host>, visitor: Visitor) {
    let Some(role) = host.issuer.load_full() else {
        tracing::debug!(peer.addr = %visitor.from, "join request dropped: this node is no issuer any more");
        return;
    };
    let from = visitor.from.to_string();
    match decide(host, role, &visitor.request, visitor.binding, from).await {
        Ok(decided) => {
            metrics::join_answered(decided.outcome);
            visitor.answer(&decided.answer).await;
        }
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::error!(error, peer.addr = %visitor.from, "join request dropped: the answer cannot be signed");
        }
    }
}

/// Requests judged at a time; each takes some milliseconds, most of them the disk's.
const ANSWERING_MAX: usize = 64;
