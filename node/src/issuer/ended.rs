//! Invitations that end with a revocation of their name.

use std::sync::{Arc, TryLockError};
use std::time::SystemTime;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::{IdentityError, Leaf, Revocations, SpiffeId, TrustDomain};

use super::questions::role;
use super::{Role, identities};
use crate::admin::view::{EndedInvitation, GoodFrom, Invited, RevokedName};
use crate::control::Refused;
use crate::host::Host;
use crate::invites::{End, Invites, InvitesError, Listed};
use crate::mesh::unix_s;

/// What one issuer ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub invitations: Vec<EndedInvitation>,
    /// So many more than are listed.
    pub left_out: usize,
}

/// `/v1/invitations`: ends the invitations of a revoked name that were made before its revocation, and lists them, used ones
/// too. Any node may ask, as it ends nothing that this issuer would not refuse: the revocation must be in force here.
pub async fn end_revoked(
    host: Arc<Host>,
    _peer: Leaf,
    name: RevokedName,
) -> Result<Ended, Refused> {
    let role = role(&host)?;
    let revocations = host.identities.current().trust.revocations().clone();
    let in_force = good_from_of(&revocations, &host.trust_domain, &name);
    let in_force = in_force.map_err(|error| Refused::bad_question(error.to_string()))?;
    if in_force.is_none_or(|before| before < name.issued_before) {
        let why = "the revocation is not in force at this issuer yet";
        return Err(Refused::new(StatusCode::CONFLICT, NOT_IN_FORCE, why));
    }
    let issuer = host.node.clone();
    let ended = tokio::task::spawn_blocking(move || {
        role.end_revoked(&issuer, &name, &revocations, unix_s(SystemTime::now()))
    });
    let ended = ended.await;
    ended.map_err(|error| Refused::internal(error.to_string()))?
}

/// The latest `issued_before` of what is revoked of these names.
pub fn good_from(host: &Host, invited: &Invited) -> GoodFrom {
    let revocations = host.identities.current().trust.revocations().clone();
    let names = identities(&host.trust_domain, &invited.node, &invited.services).flatten();
    let revoked = names.filter_map(|id| revocations.good_from(&id, Some(&invited.node)));
    GoodFrom {
        good_from: revoked.max().map(unix_s),
    }
}

fn good_from_of(
    revocations: &Revocations,
    trust_domain: &TrustDomain,
    name: &RevokedName,
) -> Result<Option<u64>, IdentityError> {
    let host = name.host.as_deref();
    let id = match (&name.service, host) {
        (Some(service), _) => SpiffeId::service(trust_domain, service)?,
        (None, Some(host)) => SpiffeId::node(trust_domain, host)?,
        (None, None) => return Ok(None),
    };
    Ok(revocations.good_from(&id, host).map(unix_s))
}

impl Role {
    /// Reads all invitations, so one at a time does it. Writes to the disk and waits for it.
    fn end_revoked(
        &self,
        issuer: &NodeName,
        name: &RevokedName,
        revocations: &Revocations,
        now: u64,
    ) -> Result<Ended, Refused> {
        let _turn = match self.ending.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let why = "this issuer is ending other invitations; ask again";
                return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, why));
            }
        };
        let invites = Invites(&self.state);
        let all = invites.all().map_err(|error| unusable(&error))?;
        let mut ended = Ended::default();
        // The newest are of most interest when not all can be listed.
        for listed in all.iter().rev() {
            let is_old = self.check_revoked(&listed.invite, revocations).is_err();
            if !is_named(listed, name) || !is_old {
                continue;
            }
            invites
                .end_for_good(listed, now)
                .map_err(|error| unusable(&error))?;
            if ended.invitations.len() < LISTED_MAX {
                ended.invitations.push(view(issuer, listed, now));
            } else {
                ended.left_out += 1;
            }
        }
        Ok(ended)
    }
}

fn is_named(listed: &Listed, name: &RevokedName) -> bool {
    let invite = &listed.invite;
    name.host.as_ref().is_none_or(|host| *host == invite.node)
        && name
            .service
            .as_ref()
            .is_none_or(|service| invite.services.contains(service))
}

fn view(issuer: &NodeName, Listed { id, invite, end }: &Listed, now: u64) -> EndedInvitation {
    let (was, at, from) = match end {
        Some(End::Spent { at, from, .. }) => ("used", *at, Some(from.clone())),
        Some(End::Revoked { at }) => ("taken back", *at, None),
        None if invite.not_after < now => ("expired", invite.not_after, None),
        None => ("open", invite.not_after, None),
    };
    EndedInvitation {
        issuer: issuer.to_string(),
        invitation: id.to_string(),
        node: invite.node.clone(),
        services: invite.services.clone(),
        made_at: invite.made_at,
        was: was.to_owned(),
        at,
        from,
    }
}

fn unusable(error: &InvitesError) -> Refused {
    let error: &(dyn std::error::Error + 'static) = error;
    tracing::error!(error, "invitations of a revoked name are not ended");
    Refused::internal(format!(
        "this issuer cannot read or write its invitations: {error}"
    ))
}

/// The two refusals that pass: the asking node asks again.
pub const NOT_IN_FORCE: &str = "not_in_force";
pub const BUSY: &str = "busy";

/// Invitations in one answer, which has room for 64 KiB: one with 32 services of the longest names is 2.3 KiB.
const LISTED_MAX: usize = 24;

#[cfg(test)]
mod tests;
