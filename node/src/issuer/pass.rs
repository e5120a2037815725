//! Who decides on a request to join: this issuer, or the one that made the invitation.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use starling_gossip::{Caps, Liveness, NodeName, State};
use starling_transport::join::SignedAnswer;

use super::signed::{self, Proof, Redeemed};
use super::{Moment, Role, turned};
use crate::ca::CaError;
use crate::control::ControlError;
use crate::enrol::{Asked, Joined, Outcome, Reply, Turned};
use crate::host::Host;
use crate::token::InviteId;

/// A request that came to another issuer's join port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    /// As it came: an [`Asked`], JSON. The home signs its answer over it.
    pub(super) request: String,
    /// Of the connection that it came on, base64. The asking node may lie; then the signature does not fit.
    pub(super) binding: String,
    /// Where it came from, for the record.
    pub(super) from: String,
    /// That the asking node is an issuer: a node that is none could spend an invitation and keep the answer.
    pub(super) proof: Proof,
}

/// That an invitation of the asking node is spent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spent {
    pub(super) invite: String,
    /// That the asking node is an issuer.
    pub(super) proof: Proof,
}

/// An answer that is ready to be sent.
pub(super) struct Decided {
    pub(super) outcome: Outcome,
    pub(super) answer: SignedAnswer,
}

/// Decides on what came to the join port.
pub(super) async fn decide(
    host: &Arc<Host>,
    role: Arc<Role>,
    request: &[u8],
    binding: [u8; 32],
    from: String,
) -> Result<Decided, CaError> {
    let reply = match read(request) {
        Err(turned) => Reply::Refused(turned),
        Ok((asked, home)) if home == host.node => {
            here(host, role.clone(), asked, binding, from.clone())
                .await
                .into()
        }
        Ok((asked, home)) => {
            let passed = pass_on(host, &role, &home, &asked, request, binding, &from);
            match passed.await? {
                Ok(decided) => return Ok(decided),
                Err(turned) => Reply::Refused(turned),
            }
        }
    };
    let outcome = reply.outcome();
    if let Reply::Refused(turned) = &reply {
        tracing::warn!(
            peer.addr = from,
            reason = turned.outcome.as_str(),
            "join request rejected"
        );
    }
    Ok(Decided {
        answer: role.answer(&binding, request, &reply)?,
        outcome,
    })
}

/// The request, and the issuer that its token names as its home. No signature was verified.
pub(super) fn read(request: &[u8]) -> Result<(Asked, NodeName), Turned> {
    let asked = serde_json::from_slice::<Asked>(request);
    let asked = asked.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
    let home = NodeName::parse(&asked.wish()?.home);
    let home = home.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
    Ok((asked, home))
}

/// Asks the home of the token. Its answer goes to the joiner with its own signature.
async fn pass_on(
    host: &Arc<Host>,
    role: &Role,
    home: &NodeName,
    asked: &Asked,
    request: &[u8],
    binding: [u8; 32],
    from: &str,
) -> Result<Result<Decided, Turned>, CaError> {
    let text = match str::from_utf8(request) {
        Ok(text) => text.to_owned(),
        Err(error) => return Ok(Err(turned(Outcome::Malformed, error.to_string()))),
    };
    let message = signed::passed(&host.node, home, &binding, &text);
    let passed = Passed {
        proof: Proof::new(&role.authority().sign_message(&message)?),
        request: text,
        binding: STANDARD.encode(binding),
        from: from.to_owned(),
    };
    let redeemed = host.control().ask_exact(home, "/v1/redeem", &passed).await;
    Ok(match redeemed {
        Ok(redeemed) => of_home(host, role, home, redeemed, request, &binding, from),
        Err(error) => Err(unreachable(host, role, home, asked, error)),
    })
}

/// What the home answered, if it proves to be an issuer and nothing that it issued is revoked here.
fn of_home(
    host: &Host,
    role: &Role,
    home: &NodeName,
    redeemed: Redeemed,
    request: &[u8],
    binding: &[u8; 32],
    from: &str,
) -> Result<Decided, Turned> {
    let none = |problem: String| {
        tracing::warn!(%home, problem, "the answer of a token's home does not count");
        let why = format!("node `{home}`, which made the token, does not prove to be an issuer");
        turned(Outcome::HomeUnreachable, why)
    };
    let trust = host.identities.current().trust.clone();
    let answer = redeemed.read();
    let answer = answer.ok_or_else(|| none("it cannot be read".to_owned()))?;
    let verified = answer.verify(binding, request, &trust, SystemTime::now());
    verified.map_err(|refusal| none(refusal.to_string()))?;
    let reply = serde_json::from_slice::<Reply>(&answer.answer);
    let reply = reply.map_err(|error| none(error.to_string()))?;
    match &reply {
        // The home may not have heard yet of a revocation that is in force here.
        Reply::Joined(joined) => role.check(joined, trust.revocations())?,
        Reply::Refused(turned) => {
            let reason = turned.outcome.as_str();
            tracing::warn!(peer.addr = from, reason, %home, "join request rejected by the token's home");
        }
    }
    Ok(Decided {
        outcome: reply.outcome(),
        answer,
    })
}

fn unreachable(
    host: &Host,
    role: &Role,
    home: &NodeName,
    asked: &Asked,
    error: ControlError,
) -> Turned {
    let id = asked.wish().and_then(|wish| wish.id());
    if id.is_ok_and(|id| role.is_spent(home, id)) {
        return turned(Outcome::Spent, "a host joined with this token before");
    }
    let why = match error.refused() {
        Some(refused) => format!("node `{home}`, which made the token: {}", refused.why),
        None => format!(
            "node `{home}`, which made the token, cannot be reached from node `{}`",
            host.node
        ),
    };
    let error: &(dyn std::error::Error + 'static) = &error;
    tracing::warn!(error, "a request to join cannot be passed on");
    turned(Outcome::HomeUnreachable, why)
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
        moment(host, &wish.node)?,
        wish.services.join(", "),
    );
    let (peer, issuer) = (from.clone(), role.clone());
    // It waits for the disk, and calls must not wait with it.
    let redeemed =
        tokio::task::spawn_blocking(move || issuer.redeem(&asked, &binding, &peer, &moment));
    let redeemed = redeemed.await.map_err(|error| {
        tracing::error!(%error, "a request to join was not judged");
        turned(Outcome::Internal, "the issuer failed")
    })?;
    if redeemed.is_ok() {
        tracing::info!(node = wish.node, services, peer.addr = from, invite = %id, "a host joins");
        host.spawn(tell_spent(host.clone(), role, id));
    }
    redeemed
}

/// Which names are revoked is not known while a revocation is missing, so nothing is redeemed then.
fn moment(host: &Host, node: &str) -> Result<Moment, Turned> {
    if host.policy.has_stand_ins() {
        let why = "a revocation is missing on the issuer, and is asked of its peers";
        return Err(turned(Outcome::Internal, why));
    }
    let catalogue = host.membership.catalogue();
    let alive = |state, liveness| state != State::Left && liveness == Liveness::Alive;
    let member = catalogue.member(node);
    let ours = catalogue.member(host.node.as_str()).into_iter();
    let others = catalogue.members.values();
    let others =
        others.filter(|other| other.name != host.node && alive(other.state, other.liveness));
    let seeds = ours.chain(others).filter_map(|member| member.addrs.first());
    Ok(Moment {
        now: SystemTime::now(),
        lifetime: host.config.load().issuer.lifetime,
        is_alive: member.is_some_and(|member| alive(member.state, member.liveness)),
        seeds: seeds.take(SEEDS_MAX).map(ToString::to_string).collect(),
        revocations: host.identities.current().trust.revocations().clone(),
    })
}

/// Tells the other issuers, so that they know it even when they cannot reach this one.
async fn tell_spent(host: Arc<Host>, role: Arc<Role>, id: InviteId) {
    let signature = role
        .authority()
        .sign_message(&signed::spent(&host.node, id));
    let Ok(signature) = signature else {
        return;
    };
    let catalogue = host.membership.catalogue();
    let issuers = catalogue.members.values();
    let issuers =
        issuers.filter(|member| member.caps.has(Caps::ISSUER) && member.name != host.node);
    let spent = Spent {
        invite: id.to_string(),
        proof: Proof::new(&signature),
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
