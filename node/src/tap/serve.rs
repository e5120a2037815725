//! The end that is asked: is there a pass, and what ended here?

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use starling_gossip::NodeName;
use starling_transport::Leaf;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::filter::Filter;
use super::watch::Watcher;
use super::{Batch, PATH, Question};
use crate::control::{Handler, Refused, Who};
use crate::host::Host;
use crate::pass::{self, Admitted, PassError, Wish};
use crate::telemetry::metrics;

/// What other nodes may ask, if they bring a pass.
pub(crate) fn handler() -> Handler {
    Handler::new(PATH, Who::Node, answer)
}

async fn answer(host: Arc<Host>, peer: Leaf, question: Question) -> Result<Batch, Refused> {
    let asker = peer.id.node_name();
    let asker = asker.and_then(|name| NodeName::parse(name).ok());
    let asker = asker.ok_or_else(|| Refused::bad_question("only a node can ask"))?;
    if !is_id(&question.tap) {
        return Err(Refused::bad_question(
            "a tap is named by 32 hexadecimal digits",
        ));
    }
    if question.done {
        host.taps.close(&asker, &question.tap);
        return Ok(Batch::default());
    }
    let filter = Filter::parse(&question.wanted);
    let filter = filter.map_err(|error| Refused::bad_question(error.to_string()))?;
    let (callee, headers) = (filter.callee.clone(), filter.show.clone());
    let wish = Wish::Tap {
        callee: &callee,
        headers: &headers,
    };
    let changes = host.identities.changes();
    // Each time anew: an operator may be revoked meanwhile.
    let admitted = match pass::admit(&host, &question.pass, &asker, wish) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            host.taps.close(&asker, &question.tap);
            return Err(refuse(&host, &asker, &question, refusal));
        }
    };
    if !is_here(&host, &filter) {
        let why = format!(
            "`{}` neither runs here nor is called from here",
            filter.callee
        );
        return Err(Refused::new(StatusCode::NOT_FOUND, NOT_HERE, why));
    }
    let opened = host
        .taps
        .open(&asker, &question.tap, &question.wanted, filter);
    let (watcher, is_new) = opened.map_err(|_full| {
        let why = "as many taps as there may be are open on this node";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "full", why)
    })?;
    if is_new {
        begin(&host, &watcher, &admitted);
        // At once, so that whoever looks sees who answers.
        return Ok(Batch::default());
    }
    if watcher.wanted != question.wanted {
        return Err(Refused::bad_question("this tap shows something else"));
    }
    // A revocation that comes meanwhile is in force for this answer already.
    let batch = tokio::select! {
        biased;
        refusal = revoked(&host, changes, &question.pass, &asker, wish) => {
            host.taps.close(&asker, &question.tap);
            return Err(refuse(&host, &asker, &question, refusal));
        }
        batch = watcher.fetch() => batch,
    };
    batch.ok_or_else(|| Refused::bad_question("this tap is being asked already"))
}

/// Resolves when a change of trust or revocations ends a pass that was admitted before.
async fn revoked(
    host: &Host,
    mut changes: watch::Receiver<u64>,
    pass: &str,
    asker: &NodeName,
    wish: Wish<'_>,
) -> PassError {
    while changes.changed().await.is_ok() {
        if let Err(refusal) = pass::admit(host, pass, asker, wish) {
            return refusal;
        }
    }
    std::future::pending().await
}

/// Writes down who looks at what, and keeps the tap until nobody asks for it any more.
fn begin(host: &Arc<Host>, watcher: &Arc<Watcher>, admitted: &Admitted) {
    metrics::tap_begun(&watcher.wanted.callee);
    tracing::info!(
        operator = %admitted.operator,
        pass = %admitted.pass.serial,
        peer = %watcher.asker,
        callee = watcher.wanted.callee,
        filter = %watcher.wanted,
        "live calls are looked at"
    );
    let operator = admitted.operator.clone();
    let (on, watcher) = (host.clone(), watcher.clone());
    host.spawn(async move {
        until_over(&on, &watcher).await;
        on.taps.close(&watcher.asker, &watcher.tap);
        tracing::info!(
            %operator,
            peer = %watcher.asker,
            callee = watcher.wanted.callee,
            calls = watcher.sent.load(Ordering::Relaxed),
            "live calls are no longer looked at"
        );
    });
}

async fn until_over(host: &Host, watcher: &Watcher) {
    loop {
        let end = watcher.abandoned_at();
        if end <= Instant::now() {
            return;
        }
        tokio::select! {
            () = sleep_until(end) => {}
            () = watcher.closed.cancelled() => return,
            () = host.drain.cancelled() => return,
        }
    }
}

/// A refusal is written down as well, though not each one of a flood.
fn refuse(host: &Host, asker: &NodeName, question: &Question, refusal: PassError) -> Refused {
    if host.taps.told.admit(None, Instant::now()).is_ok() {
        tracing::warn!(
            peer = %asker,
            callee = question.wanted.callee,
            reason = refusal.as_str(),
            "a look at live calls was refused"
        );
    }
    let why = format!("{refusal}; {}", refusal.hint());
    Refused::new(StatusCode::FORBIDDEN, refusal.as_str(), why)
}

/// Whether calls to the service are seen here at all. It bounds the names in metrics too.
fn is_here(host: &Host, filter: &Filter) -> bool {
    let config = host.config.load();
    let mut services = config.services.iter();
    let mut upstreams = config.upstreams.iter();
    services.any(|service| service.name == filter.callee)
        || upstreams.any(|upstream| upstream.service == filter.callee)
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The word for a node that has nothing to show.
pub(super) const NOT_HERE: &str = "not_here";
