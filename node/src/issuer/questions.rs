//! What other agents may ask an issuer over the control channel.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::Leaf;

use super::Role;
use super::pass::{Passed, Spent, here};
use crate::ca::{CaError, Terms};
use crate::control::Refused;
use crate::enrol::{Joined, Turned};
use crate::host::Host;
use crate::token::InviteId;

/// A request for another certificate of the identity that asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewal {
    /// Signing request (DER, base64).
    pub request: String,
}

/// A renewed certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewed {
    /// PEM.
    pub leaf: String,
    /// The issuer's certificate, which belongs behind it, PEM.
    pub issuer: String,
}

/// `/v1/renew`: whoever has a certificate that is still good gets another one of the same identity, and no other.
pub async fn renew(host: Arc<Host>, peer: Leaf, renewal: Renewal) -> Result<Renewed, Refused> {
    let role = role(&host)?;
    let revocations = host.identities.current().trust.revocations().clone();
    if revocations.has_leaf(&peer) {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "revoked",
            "the certificate is revoked",
        ));
    }
    let request = STANDARD.decode(&renewal.request);
    let request = request.map_err(|error| Refused::bad_question(error.to_string()))?;
    let lifetime = host.config.load().issuer.lifetime;
    let terms = Terms {
        host: peer.host.as_deref(),
        lifetime,
        not_before: revocations.good_from(&peer.id, peer.host.as_deref()),
    };
    let signed = role.authority().sign(&peer.id, &request, &terms);
    let leaf = signed.map_err(|error| match error {
        CaError::Request(error) => Refused::bad_question(error.to_string()),
        error => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::error!(error, "cannot renew a certificate");
            Refused::internal("this issuer cannot issue; its log tells why")
        }
    })?;
    tracing::info!(peer = %peer.id, "certificate renewed for another node");
    Ok(Renewed {
        leaf,
        issuer: role.authority().intermediate_pem().to_owned(),
    })
}

/// `/v1/redeem`: another issuer passes on what came to its join port.
pub async fn redeem(host: Arc<Host>, _peer: Leaf, passed: Passed) -> Result<Joined, Refused> {
    let role = role(&host)?;
    let binding = STANDARD.decode(&passed.binding).ok();
    let binding = binding.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let binding = binding.ok_or_else(|| Refused::bad_question("a binding has 32 bytes"))?;
    let Passed { asked, from, .. } = passed;
    let decided = here(&host, role, asked, binding, from).await;
    decided.map_err(|Turned { outcome, why }| {
        Refused::new(StatusCode::CONFLICT, outcome.as_str(), why)
    })
}

/// `/v1/spent`: an issuer tells that one of its own invitations is spent.
pub async fn spent(host: Arc<Host>, peer: Leaf, spent: Spent) -> Result<(), Refused> {
    let role = role(&host)?;
    let home = peer
        .id
        .node_name()
        .and_then(|name| NodeName::parse(name).ok());
    let home = home.ok_or_else(|| Refused::bad_question("only a node has invitations"))?;
    let id = InviteId::parse(&spent.invite).map_err(Refused::bad_question)?;
    role.note_spent(&home, id);
    Ok(())
}

fn role(host: &Host) -> Result<Arc<Role>, Refused> {
    let role = host.issuer.load_full();
    role.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "no_issuer", "this node is no issuer"))
}
