//! Ends the invitations of a revoked name at every issuer that can be reached.

use std::sync::Arc;
use std::time::Duration;

use starling_gossip::NodeName;
use tokio::time::{Instant, sleep, timeout_at};

use super::issuers;
use crate::admin::view::{EndedInvitation, EndedInvitations, RevokedName};
use crate::host::Host;
use crate::issuer::{BUSY, Ended, NOT_IN_FORCE};

/// Asks this node, if it is an issuer, and all others that are known.
pub(super) async fn end(host: Arc<Host>, name: RevokedName) -> EndedInvitations {
    let deadline = Instant::now() + BUDGET;
    let (answers, not_asked) = issuers::ask_all(&host, |issuer| {
        let (host, name) = (host.clone(), name.clone());
        Box::pin(async move { ask(&host, &issuer, &name, deadline).await })
    })
    .await;
    let mut all = EndedInvitations {
        not_asked,
        ..EndedInvitations::default()
    };
    for ended in answers {
        all.left_out = all.left_out.saturating_add(ended.left_out);
        let marked = ended.invitations.into_iter();
        all.invitations
            .extend(marked.map(EndedInvitation::of_another));
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
                    last = error.told();
                }
                _ => return Err(error.told()),
            },
        }
        sleep(PAUSE).await;
    }
}

/// Less than the command waits for this agent.
const BUDGET: Duration = Duration::from_secs(4);

const PAUSE: Duration = Duration::from_millis(200);
