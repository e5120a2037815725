//! Who decides on a request to join: this issuer, or the one that made the invitation.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use starling_gossip::{Caps, Liveness, NodeName, State};

use super::{Moment, Role, turned};
use crate::control::ControlError;
use crate::enrol::{Asked, Joined, Outcome, Turned};
use crate::host::Host;
use crate::token::InviteId;

/// A request that came to another issuer's join port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    pub(super) asked: Asked,
    /// Of the connection that it came on, base64. The asking node may lie; then the signature does not fit.
    pub(super) binding: String,
    /// Where it came from, for the record.
    pub(super) from: String,
}

/// That an invitation of the asking node is spent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spent {
    pub(super) invite: String,
}

/// Decides on what came to the join port.
pub(super) async fn decide(
    host: &Arc<Host>,
    role: Arc<Role>,
    asked: Asked,
    binding: [u8; 32],
    from: String,
) -> Result<Joined, Turned> {
    let wish = asked.wish()?;
    let home = NodeName::parse(&wish.home);
    let home = home.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
    if home == host.node {
        return here(host, role, asked, binding, from).await;
    }
    let passed = Passed {
        asked,
        binding: STANDARD.encode(binding),
        from,
    };
    let decided = host.control().ask(&home, "/v1/redeem", &passed).await;
    let id = wish.id()?;
    decided.map_err(|error| match error {
        ControlError::Refused { refused, .. } => {
            turned(Outcome::parse(&refused.reason), refused.why)
        }
        _ if role.is_spent(&home, id) => {
            turned(Outcome::Spent, "a host joined with this token before")
        }
        error => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, "a request to join cannot be passed on");
            let why = format!(
                "node `{home}`, which made the token, cannot be reached from node `{}`",
                host.node
            );
            turned(Outcome::HomeUnreachable, why)
        }
    })
}

/// Decides as the issuer that made the invitation.
pub(super) async fn here(
    host: &Arc<Host>,
    role: Arc<Role>,
    asked: Asked,
    binding: [u8; 32],
    from: String,
) -> Result<Joined, Turned> {
    let wish = asked.wish()?;
    let (id, moment, services) = (
        wish.id()?,
        moment(host, &wish.node),
        wish.services.join(", "),
    );
    let peer = from.clone();
    // It waits for the disk, and calls must not wait with it.
    let redeemed =
        tokio::task::spawn_blocking(move || role.redeem(&asked, &binding, &peer, &moment));
    let redeemed = redeemed.await.map_err(|error| {
        tracing::error!(%error, "a request to join was not judged");
        turned(Outcome::Internal, "the issuer failed")
    })?;
    if redeemed.is_ok() {
        tracing::info!(node = wish.node, services, peer.addr = from, invite = %id, "a host joins");
        host.spawn(tell_spent(host.clone(), id));
    }
    redeemed
}

fn moment(host: &Host, node: &str) -> Moment {
    let catalogue = host.membership.catalogue();
    let alive = |state, liveness| state != State::Left && liveness == Liveness::Alive;
    let member = catalogue.member(node);
    let ours = catalogue.member(host.node.as_str()).into_iter();
    let others = catalogue.members.values();
    let others =
        others.filter(|other| other.name != host.node && alive(other.state, other.liveness));
    let seeds = ours.chain(others).filter_map(|member| member.addrs.first());
    Moment {
        now: SystemTime::now(),
        lifetime: host.config.load().issuer.lifetime,
        is_alive: member.is_some_and(|member| alive(member.state, member.liveness)),
        seeds: seeds.take(SEEDS_MAX).map(ToString::to_string).collect(),
        revocations: host.identities.current().trust.revocations().clone(),
    }
}

/// Tells the other issuers, so that they know it even when they cannot reach this one.
async fn tell_spent(host: Arc<Host>, id: InviteId) {
    let catalogue = host.membership.catalogue();
    let issuers = catalogue.members.values();
    let issuers =
        issuers.filter(|member| member.caps.has(Caps::ISSUER) && member.name != host.node);
    let spent = Spent {
        invite: id.to_string(),
    };
    for issuer in issuers.take(ISSUERS_MAX) {
        if let Err(error) = host
            .control()
            .ask::<()>(&issuer.name, "/v1/spent", &spent)
            .await
        {
            tracing::debug!(%error, "an issuer was not told of a spent invitation");
        }
    }
}

/// A new host remembers whom it meets; these are to begin with.
const SEEDS_MAX: usize = 4;

/// Issuers that are told of a spent invitation. A mesh has two or three.
const ISSUERS_MAX: usize = 16;
