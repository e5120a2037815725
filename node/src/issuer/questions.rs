//! What other agents may ask an issuer over the control channel.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::{Leaf, Line};

use super::Role;
use super::limit::NotYet;
use super::pass::{Passed, Spent, here, read};
use super::signed::{self, Proof, Redeemed};
use crate::ca::{self, CaError, Terms};
use crate::control::Refused;
use crate::host::Host;
use crate::telemetry::metrics;
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

/// `/v1/renew`: whoever has a certificate that is still good gets another one of the same identity, and no other, once it
/// is not young any more and when it is the turn of its line.
pub async fn renew(host: Arc<Host>, peer: Leaf, renewal: Renewal) -> Result<Renewed, Refused> {
    let role = role(&host)?;
    let revocations = host.identities.current().trust.revocations().clone();
    if let Err(refusal) = revocations.check_leaf(&peer) {
        let why = refusal.to_string();
        return Err(Refused::new(StatusCode::FORBIDDEN, "revoked", why));
    }
    // Before anything that costs more, and before the request is looked at: a bad one has used up the turn.
    let renewals = role.renewals();
    let turn = renewals.take(&peer).map_err(|not_yet| {
        metrics::renewal_refused(not_yet.why.as_str());
        renewals.tell();
        Refused::from(not_yet)
    })?;
    let request = STANDARD.decode(&renewal.request);
    let request = request.map_err(|error| Refused::bad_question(error.to_string()))?;
    let lifetime = host.config.load().issuer.lifetime;
    let sign = {
        let (role, peer) = (role.clone(), peer.clone());
        move || {
            let terms = Terms {
                host: peer.host.as_deref(),
                lifetime,
                line: Line::renewed(&peer, ca::line_name()?),
            };
            role.authority().sign(&peer.id, &request, &terms)
        }
    };
    // It writes to the book of this issuer, which may be large.
    let signed = tokio::task::spawn_blocking(sign).await;
    let signed = signed.map_err(|error| Refused::internal(error.to_string()))?;
    let leaf = signed.map_err(|error| match error {
        CaError::Request(error) => Refused::bad_question(error.to_string()),
        CaError::LineFull(error) => Refused::new(
            StatusCode::CONFLICT,
            "line_full",
            format!("{error}; invite the host anew"),
        ),
        error => {
            if let Some(times) = renewals.give_back(&turn) {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, times, "cannot renew a certificate");
            }
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
///
/// A refusal by the control channel is no answer for the joiner. Only what this issuer has to decide gets a signature:
/// otherwise a node could have `unknown` signed by an issuer that never made the token.
pub async fn redeem(host: Arc<Host>, peer: Leaf, passed: Passed) -> Result<Redeemed, Refused> {
    let role = role(&host)?;
    let asking = node(&peer)?;
    let binding = STANDARD.decode(&passed.binding).ok();
    let binding = binding.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let binding = binding.ok_or_else(|| Refused::bad_question("a binding has 32 bytes"))?;
    let message = signed::passed(&asking, &host.node, &binding, &passed.request);
    is_issuer(&host, &message, &passed.proof)?;
    let request = passed.request.as_bytes();
    let read = read(request).map_err(|turned| Refused::bad_question(turned.why));
    let (asked, home) = read?;
    if home != host.node {
        return Err(Refused::bad_question("another node made the token"));
    }
    let reply = here(&host, role.clone(), asked, binding, passed.from).await;
    let answer = role.answer(&binding, request, &reply.into());
    let answer = answer.ok().and_then(Redeemed::new);
    answer.ok_or_else(|| Refused::internal("this issuer cannot sign; its log tells why"))
}

/// `/v1/spent`: an issuer tells that one of its own invitations is spent.
pub async fn spent(host: Arc<Host>, peer: Leaf, spent: Spent) -> Result<(), Refused> {
    let role = role(&host)?;
    let home = node(&peer)?;
    let id = InviteId::parse(&spent.invite).map_err(Refused::bad_question)?;
    is_issuer(&host, &signed::spent(&home, id), &spent.proof)?;
    role.note_spent(&home, id);
    Ok(())
}

impl From<NotYet> for Refused {
    fn from(NotYet { why, after }: NotYet) -> Self {
        Self::not_yet(why.as_str(), why.explain(), after)
    }
}

fn node(peer: &Leaf) -> Result<NodeName, Refused> {
    let name = peer.id.node_name();
    let name = name.and_then(|name| NodeName::parse(name).ok());
    name.ok_or_else(|| Refused::bad_question("only a node may be an issuer"))
}

/// Whether an issuer that is trusted here signed `message`.
fn is_issuer(host: &Host, message: &[u8], proof: &Proof) -> Result<(), Refused> {
    let trust = host.identities.current().trust.clone();
    let signature = proof.read();
    let signature = signature.ok_or_else(|| Refused::bad_question("a proof is base64"))?;
    let verified = signature.verify(message, &trust, SystemTime::now());
    verified.map_err(|refusal| {
        let why = format!("the asking node does not prove to be an issuer: {refusal}");
        Refused::new(StatusCode::FORBIDDEN, "no_issuer", why)
    })
}

pub(super) fn role(host: &Host) -> Result<Arc<Role>, Refused> {
    let role = host.issuer.load_full();
    role.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "no_issuer", "this node is no issuer"))
}
