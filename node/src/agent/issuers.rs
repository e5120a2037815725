//! Questions that go to every issuer of the mesh.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use starling_gossip::{Caps, Liveness, NodeName};

use crate::admin::view::Gap;
use crate::host::Host;

/// Asks this node, if it is an issuer, and all others that are known, several at a time. Returns the answers, and who gave none.
pub(super) async fn ask_all<T>(
    host: &Arc<Host>,
    ask: impl Fn(NodeName) -> BoxFuture<'static, Result<T, String>>,
) -> (Vec<T>, Vec<Gap>) {
    let catalogue = host.membership.catalogue();
    let others = catalogue.members.values();
    let others = others.filter(|member| member.caps.has(Caps::ISSUER) && member.name != host.node);
    let mut issuers: Vec<_> = others
        .map(|member| (member.name.clone(), member.liveness == Liveness::Alive))
        .collect();
    if host.issuer.load().is_some() {
        issuers.insert(0, (host.node.clone(), true));
    }
    let asked = stream::iter(issuers).map(|(issuer, is_alive)| {
        let asked = is_alive.then(|| ask(issuer.clone()));
        async move {
            let answer = match asked {
                Some(asked) => asked.await,
                None => Err("it is not alive".to_owned()),
            };
            (issuer, answer)
        }
    });
    let (mut answers, mut gaps) = (Vec::new(), Vec::new());
    for (issuer, answer) in asked.buffered(ASKED_AT_ONCE).collect::<Vec<_>>().await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(why) => gaps.push(Gap {
                node: issuer.to_string(),
                why,
                age_s: None,
            }),
        }
    }
    (answers, gaps)
}

/// A mesh has two or three issuers; those that do not answer cost seconds each.
const ASKED_AT_ONCE: usize = 16;
