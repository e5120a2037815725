//! Ends the invitations of a revoked name at every issuer that can be reached.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use starling_gossip::{Caps, Liveness, NodeName};
use tokio::time::{Instant, sleep, timeout_at};

use super::explain::causes;
use crate::admin::view::{EndedInvitations, Gap, RevokedName};
use crate::host::Host;
use crate::issuer::{BUSY, Ended, NOT_IN_FORCE};

/// Asks this node, if it is an issuer, and all others that are known.
pub(super) async fn end(host: Arc<Host>, name: RevokedName) -> EndedInvitations {
    let catalogue = host.membership.catalogue();
    let others = catalogue.members.values();
    let others = others.filter(|member| member.caps.has(Caps::ISSUER) && member.name != host.node);
    let mut issuers: Vec<_> = others
        .map(|member| (member.name.clone(), member.liveness == Liveness::Alive))
        .collect();
    if host.issuer.load().is_some() {
        issuers.insert(0, (host.node.clone(), true));
    }
    let deadline = Instant::now() + BUDGET;
    let asked = stream::iter(issuers).map(|(issuer, is_alive)| {
        let (host, name) = (&host, &name);
        async move {
            let ended = match is_alive {
                true => ask(host, &issuer, name, deadline).await,
                false => Err("it is not alive".to_owned()),
            };
            (issuer, ended)
        }
    });
    let mut all = EndedInvitations::default();
    for (issuer, ended) in asked.buffered(ASKED_AT_ONCE).collect::<Vec<_>>().await {
        match ended {
            Ok(ended) => {
                all.left_out += ended.left_out;
                all.invitations.extend(ended.invitations);
            }
            Err(why) => all.not_asked.push(Gap {
                node: issuer.to_string(),
                why,
                age_s: None,
            }),
        }
    }
    all
}

/// Asks until the issuer has heard of the revocation, which takes some hundred milliseconds.
async fn ask(
    host: &Arc<Host>,
    issuer: &NodeName,
    name: &RevokedName,
    deadline: Instant,
) -> Result<Ended, String> {
    let mut last = format!("it did not answer within {BUDGET:?}");
    loop {
        let control = host.control();
        let asked = control.ask::<Ended>(issuer, "/v1/invitations", name);
        let Ok(answered) = timeout_at(deadline, asked).await else {
            return Err(last);
        };
        match answered {
            Ok(ended) => return Ok(ended),
            Err(error) => match error.refused() {
                Some(refused) if [NOT_IN_FORCE, BUSY].contains(&refused.reason.as_str()) => {
                    last.clone_from(&refused.why);
                }
                Some(refused) => return Err(refused.why.clone()),
                None => return Err(causes(&error)),
            },
        }
        sleep(PAUSE).await;
    }
}

/// Less than the command waits for this agent.
const BUDGET: Duration = Duration::from_secs(4);

const PAUSE: Duration = Duration::from_millis(200);

/// A mesh has two or three issuers; those that do not answer cost seconds each.
const ASKED_AT_ONCE: usize = 16;
