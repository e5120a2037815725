//! What an issuer does for others: lets invited hosts in and renews certificates.
//!
//! Any number of nodes may be issuers, each with an intermediate of its own. Only the issuer that made an invitation
//! redeems it, so that it is spent once without any agreement; the others pass the request on to it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use starling_gossip::NodeName;
use starling_transport::join::SignedAnswer;
use starling_transport::{IdentityError, Refusal, Revocations, SpiffeId, TrustDomain};

use crate::ca::{self, Authority, CaError, Terms};
use crate::check::turns::Turns;
use crate::enrol::{Asked, Joined, Outcome, Reply, Turned, Wish};
use crate::invites::{self, End, Invite, Invites, InvitesError};
use crate::mesh::unix_s;
use crate::state::StateDir;
use crate::token::InviteId;

use limit::Renewals;

mod ended;
mod limit;
mod lines;
mod pass;
mod port;
mod questions;
mod signed;

pub use ended::{BUSY, Ended, NOT_IN_FORCE, end_revoked, good_from};
pub use lines::{Booked, is_about, lines};
pub use port::serve;
pub use questions::{Renewal, Renewed, redeem, renew, spent};
pub use signed::Proof;

/// A node in its part as an issuer. Replaced whole when the files of its CA change.
pub struct Role {
    authority: Authority,
    state: StateDir,
    /// Invitations of other issuers that are known to be spent.
    spent_elsewhere: Mutex<BTreeSet<(NodeName, InviteId)>>,
    /// Held while invitations of a revoked name are ended.
    ending: Mutex<()>,
    /// Who may have the book read, and how often.
    readings: Turns,
    renewals: Arc<Renewals>,
}

/// What the issuer has to know of the moment to judge a request.
#[derive(Debug, Clone)]
pub struct Moment {
    pub now: SystemTime,
    /// How long certificates are to live.
    pub lifetime: Duration,
    /// Whether a node of the wanted name is alive.
    pub is_alive: bool,
    /// Mesh ports for the new host to begin with.
    pub seeds: Vec<String>,
    /// What was invited before one of its names was revoked is refused, and what is issued must not count as revoked.
    pub revocations: Arc<Revocations>,
}

impl Role {
    /// Takes up the CA in `state`, revoked or not.
    pub fn load(state: &StateDir) -> Result<Self, CaError> {
        Ok(Self {
            authority: Authority::read(state)?,
            state: state.clone(),
            spent_elsewhere: Mutex::default(),
            ending: Mutex::default(),
            readings: Turns::new(READINGS_AT_ONCE, 1),
            renewals: Arc::default(),
        })
    }

    /// Counts renewals on from where `before` is, as new files of the CA give no line another turn, and goes on with its book.
    pub fn follow(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            self.renewals = before.renewals.clone();
            self.authority = self.authority.with_book_of(&before.authority);
        }
        self
    }

    /// Logs the renewals that were refused, at most once a minute.
    pub fn tell_refused(&self) {
        self.renewals.tell();
    }

    fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    /// The CA.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Redeems an invitation of this issuer, once. Writes to the disk and waits for it.
    pub fn redeem(
        &self,
        asked: &Asked,
        binding: &[u8; 32],
        from: &str,
        moment: &Moment,
    ) -> Result<Joined, Turned> {
        let wish = asked.wish()?;
        let id = wish.id()?;
        let invites = Invites(&self.state);
        let invite = invites.find(id)?;
        let invite = invite
            .ok_or_else(|| turned(Outcome::Unknown, "this issuer knows no such invitation"))?;
        if !asked.is_signed_by(&invite.public_key, binding) {
            return Err(turned(
                Outcome::Tampered,
                "the token does not fit the invitation",
            ));
        }
        if wish.node != invite.node {
            return Err(turned(
                Outcome::OtherNode,
                "the invitation is for another node",
            ));
        }
        if wish.services != invite.services {
            return Err(turned(
                Outcome::OtherServices,
                "the invitation is for other services",
            ));
        }
        self.check_revoked(&invite, &moment.revocations)?;
        if let Some(end) = invites.end(id)? {
            return self.repeat(end, asked, moment);
        }
        let at = unix_s(moment.now);
        if at > invite.not_after {
            let ago = humantime::format_duration(Duration::from_secs(at - invite.not_after));
            return Err(turned(
                Outcome::Expired,
                format!("the token expired {ago} ago"),
            ));
        }
        if moment.is_alive {
            let why = format!("a node `{}` is alive in the mesh", wish.node);
            return Err(turned(Outcome::NodeAlive, why));
        }
        // Signed first: an invitation is not spent on an issuer that cannot issue.
        let begins = UNIX_EPOCH + Duration::from_secs(invite.made_at);
        let joined = self.sign(&wish, begins, moment)?;
        self.check(&joined, &moment.revocations)?;
        let end = End::Spent {
            at,
            from: from.to_owned(),
            wish: asked.hash(),
            joined: Some(joined.clone()),
        };
        if invites.finish(id, &end)? {
            return Ok(joined);
        }
        let end = invites.end(id)?.ok_or_else(|| {
            turned(
                Outcome::Internal,
                "the end of the invitation cannot be read",
            )
        })?;
        self.repeat(end, asked, moment)
    }

    /// Signs what this issuer answers to `request` on the connection with this binding.
    fn answer(
        &self,
        binding: &[u8; 32],
        request: &[u8],
        reply: &Reply,
    ) -> Result<SignedAnswer, CaError> {
        let answer = serde_json::to_vec(reply).expect("strings can be written");
        let message = SignedAnswer::message(binding, request, &answer);
        Ok(SignedAnswer {
            signature: self.authority.sign_message(&message)?,
            answer,
        })
    }

    /// An invitation is older than a revocation of its names also if both are of one second.
    fn check_revoked(&self, invite: &Invite, revocations: &Revocations) -> Result<(), Turned> {
        let names = identities(
            self.authority.trust_domain(),
            &invite.node,
            &invite.services,
        );
        for id in names {
            let id = id.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
            let revoked = revocations.good_from(&id, Some(&invite.node));
            if revoked.is_some_and(|before| invite.made_at <= unix_s(before)) {
                let why = format!("{id} was revoked after the invitation was made");
                return Err(turned(Outcome::Revoked, why));
            }
        }
        Ok(())
    }

    /// Whether nodes that know these revocations trust what was issued.
    fn check(&self, joined: &Joined, revocations: &Arc<Revocations>) -> Result<(), Turned> {
        for leaf in &joined.leaves {
            let checked = self.authority.check(leaf, &joined.issuer, revocations);
            checked.map_err(|refusal| match refusal {
                Refusal::Revoked => turned(Outcome::Revoked, "what was issued is revoked"),
                refusal => {
                    tracing::error!(%refusal, "what was issued would be refused");
                    turned(Outcome::Internal, "what was issued would be refused")
                }
            })?;
        }
        Ok(())
    }

    /// Gives the first answer again, for a while, to the request that was answered: that answer may have been lost. The
    /// certificates are the same, so a spent token never makes another one.
    fn repeat(&self, end: End, asked: &Asked, moment: &Moment) -> Result<Joined, Turned> {
        match end {
            End::Revoked { .. } => Err(turned(
                Outcome::Revoked,
                "an operator took the invitation back",
            )),
            End::Spent {
                at,
                wish,
                joined: Some(joined),
                ..
            } if wish == asked.hash() && invites::may_repeat(at, unix_s(moment.now)) => {
                self.check(&joined, &moment.revocations)?;
                Ok(joined)
            }
            End::Spent { .. } => Err(turned(
                Outcome::Spent,
                "a host joined with this token before",
            )),
        }
    }

    fn sign(&self, wish: &Wish, begins: SystemTime, moment: &Moment) -> Result<Joined, Turned> {
        if wish.requests.len() != 1 + wish.services.len() {
            return Err(turned(
                Outcome::Malformed,
                "as many requests as identities are needed",
            ));
        }
        let names = identities(self.authority.trust_domain(), &wish.node, &wish.services);
        let mut leaves = Vec::new();
        for (id, request) in names.zip(&wish.requests) {
            let id = id.map_err(|error| turned(Outcome::Malformed, error.to_string()))?;
            let request = STANDARD.decode(request);
            let request =
                request.map_err(|error| turned(Outcome::BadRequest, error.to_string()))?;
            let terms = Terms {
                host: Some(&wish.node),
                lifetime: moment.lifetime,
                line: ca::new_line(begins)?,
            };
            leaves.push(self.authority.sign(&id, &request, &terms)?);
        }
        Ok(Joined {
            leaves,
            issuer: self.authority.intermediate_pem().to_owned(),
            seeds: moment.seeds.clone(),
        })
    }

    /// Remembers that an invitation of the issuer `home` is spent. Only `home` itself may say so.
    fn note_spent(&self, home: &NodeName, id: InviteId) {
        let mut spent = self
            .spent_elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= SPENT_MAX {
            // Which one is forgotten does not matter: its home still knows.
            spent.pop_first();
        }
        spent.insert((home.clone(), id));
    }

    fn is_spent(&self, home: &NodeName, id: InviteId) -> bool {
        let spent = self
            .spent_elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        spent.contains(&(home.clone(), id))
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Asked {
    /// What is asked. Nobody has vouched for it yet.
    fn wish(&self) -> Result<Wish, Turned> {
        serde_json::from_str(&self.wish)
            .map_err(|error| turned(Outcome::Malformed, error.to_string()))
    }
}

impl Wish {
    fn id(&self) -> Result<InviteId, Turned> {
        InviteId::parse(&self.invite).map_err(|error| turned(Outcome::Malformed, error))
    }
}

/// The node, then its services, as requests and certificates are ordered.
fn identities<'n>(
    trust_domain: &'n TrustDomain,
    node: &'n str,
    services: &'n [String],
) -> impl Iterator<Item = Result<SpiffeId, IdentityError>> {
    let services = services.iter();
    let services = services.map(|name| SpiffeId::service(trust_domain, name));
    std::iter::once(SpiffeId::node(trust_domain, node)).chain(services)
}

fn turned(outcome: Outcome, why: impl Into<String>) -> Turned {
    Turned::new(outcome, why)
}

impl From<InvitesError> for Turned {
    fn from(error: InvitesError) -> Self {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, "an invitation cannot be judged");
        turned(
            Outcome::Internal,
            "the issuer cannot read or write its invitations",
        )
    }
}

impl From<CaError> for Turned {
    fn from(error: CaError) -> Self {
        if let CaError::Request(error) = error {
            return turned(Outcome::BadRequest, error.to_string());
        }
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, "cannot issue");
        turned(Outcome::Internal, "the issuer cannot issue")
    }
}

/// Questions for the book that one peer may ask in a row. Each reads up to 64 MiB.
const READINGS_AT_ONCE: u32 = 4;

/// Spent invitations of others remembered; 100 bytes each.
const SPENT_MAX: usize = 4096;

#[cfg(test)]
mod mesh_tests;
#[cfg(test)]
mod tests;
