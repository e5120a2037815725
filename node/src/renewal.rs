//! Keeps this node's certificates alive: from half of their life on, any issuer that can be reached signs new ones.
//!
//! New keys each time, made here. What an issuer answers is held against our own roots before it replaces anything; the
//! agent then takes the files up like any others. An issuer signs its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use starling_gossip::{Caps, Liveness, NodeName, State};
use starling_transport::{IdentitySet, Leaf, Line, Refusal, SpiffeId, Svid, SvidError};
use tokio::time::timeout;

use crate::ca::{self, Asking, CaError, Life, Terms};
use crate::control::{ControlError, Refused};
use crate::host::Host;
use crate::issuer::{Renewal, Renewed, Role};
use crate::state::{NODE_CHAIN, NODE_KEY, StateDir, StateError, service_files};
use crate::telemetry::metrics;

mod start;
mod trouble;
mod waiting;

pub use start::{Ended, at_start};
pub use trouble::Trouble;
use waiting::{Waiting, may_wait};

/// Renews for as long as it runs.
#[derive(Debug)]
pub struct Renewer {
    host: Arc<Host>,
    state: StateDir,
    /// What could not be renewed.
    troubles: BTreeMap<SpiffeId, Trouble>,
    /// What an issuer renews later.
    waiting: BTreeMap<SpiffeId, Waiting>,
}

/// Why a certificate was not renewed. The old one stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewalError {
    #[error("no issuer is known and alive")]
    NoIssuer,
    #[error("no issuer renews it")]
    Asked(#[from] ControlError),
    /// No failure.
    #[error("node `{issuer}` renews it in {after:?}")]
    NotYet { issuer: NodeName, after: Duration },
    #[error("this issuer cannot sign its own certificate")]
    Own(#[from] CaError),
    #[error("what the issuer answered is no certificate for our key")]
    NoCertificate(#[source] SvidError),
    #[error("what the issuer answered would be refused by the mesh")]
    Refused(#[source] Refusal),
    #[error(
        "the new certificate would not live longer than the one there is; does the issuer's own end?"
    )]
    NoGain,
    #[error(transparent)]
    State(#[from] StateError),
}

impl Renewer {
    pub fn new(host: Arc<Host>, state: StateDir) -> Self {
        Self {
            host,
            state,
            troubles: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Never ends.
    pub async fn run(mut self) {
        let mut changes = self.host.identities.changes();
        loop {
            changes.mark_unchanged();
            let set = self.host.identities.current();
            let is_renewed = self.renew_due(&set).await;
            let wait = if is_renewed {
                // Until the files are taken up; they are looked at every second.
                TAKEN_UP
            } else {
                self.until_next(&set, SystemTime::now())
            };
            // New certificates, of ours or from elsewhere, have dates of their own.
            let _ = timeout(wait, changes.changed()).await;
        }
    }

    /// Renews what is due, and says whether anything was.
    async fn renew_due(&mut self, set: &IdentitySet) -> bool {
        let mut is_renewed = false;
        // Files from elsewhere end a trouble too.
        self.troubles.retain(|id, trouble| {
            let svid = set.svid(id);
            svid.is_some_and(|svid| trouble.ends() == svid.leaf().not_after)
        });
        self.waiting.retain(|id, waiting| {
            let svid = set.svid(id);
            svid.is_some_and(|svid| waiting.is_of(svid.leaf()))
        });
        for svid in all(set) {
            let (now, leaf) = (SystemTime::now(), svid.leaf());
            if now < self.next(svid) {
                continue;
            }
            let renewed = self.renew(set, svid).await;
            self.waiting.remove(svid.id());
            match renewed {
                Ok(issuer) => {
                    metrics::renewed(true);
                    is_renewed = true;
                    self.troubles.remove(svid.id());
                    tracing::info!(identity = %svid.id(), issuer = %issuer, "certificate renewed");
                }
                Err(RenewalError::NotYet { issuer, after }) => {
                    self.troubles.remove(svid.id());
                    let waiting = Waiting::new(leaf, after, fastrand::f64(), SystemTime::now());
                    self.waiting.insert(svid.id().clone(), waiting);
                    tracing::debug!(identity = %svid.id(), %issuer, ?after, "the issuer renews it later");
                }
                Err(error) => {
                    metrics::renewed(false);
                    let trouble = self.troubles.entry(svid.id().clone()).or_default();
                    trouble.note(leaf, &error, SystemTime::now());
                }
            }
        }
        let worst = self.troubles.values().min_by_key(|trouble| trouble.ends());
        self.host
            .renewal_trouble
            .store(worst.cloned().map(Arc::new));
        is_renewed
    }

    /// The issuer that renewed it.
    async fn renew(&self, set: &IdentitySet, svid: &Svid) -> Result<NodeName, RenewalError> {
        let asking = Asking::new(svid.id())?;
        let (issuer, renewed) = self.ask(svid.leaf(), &asking).await?;
        let chain = renewed.leaf + &renewed.issuer;
        let new = Svid::from_pem(chain.as_bytes(), asking.key_pem.as_bytes());
        let new = new.map_err(RenewalError::NoCertificate)?;
        let proven = set.trust.verify_der(&new.chain(), SystemTime::now());
        let proven = proven.map_err(RenewalError::Refused)?;
        if proven.id != *svid.id() {
            return Err(RenewalError::Refused(Refusal::WrongIdentity));
        }
        if proven.not_after <= svid.leaf().not_after {
            return Err(RenewalError::NoGain);
        }
        write(&self.state, svid.id(), &chain, &asking.key_pem)?;
        Ok(issuer)
    }

    /// An issuer asks nobody, unless it cannot sign; everybody else asks issuers in no particular order.
    async fn ask(&self, leaf: &Leaf, asking: &Asking) -> Result<(NodeName, Renewed), RenewalError> {
        let (host, id) = (&self.host, &leaf.id);
        let mut failed = RenewalError::NoIssuer;
        if let Some(role) = host.issuer.load_full() {
            let lifetime = host.config.load().issuer.lifetime;
            match sign_own(
                role,
                leaf,
                asking.request.clone(),
                lifetime,
                host.node.clone(),
            )
            .await
            {
                Ok(renewed) => return Ok((host.node.clone(), renewed)),
                Err(error) => failed = error.into(),
            }
        }
        let renewal = Renewal {
            request: STANDARD.encode(&asking.request),
        };
        for issuer in self.issuers() {
            match host
                .control()
                .ask_exact_as(id, &issuer, "/v1/renew", &renewal)
                .await
            {
                Ok(renewed) => return Ok((issuer, renewed)),
                Err(error) => match error.refused().and_then(Refused::retry_after) {
                    // The others would say the same, or would have the line renewed twice.
                    Some(after) if may_wait(leaf, SystemTime::now()) => {
                        return Err(RenewalError::NotYet { issuer, after });
                    }
                    _ => failed = error.into(),
                },
            }
        }
        Err(failed)
    }

    fn issuers(&self) -> Vec<NodeName> {
        let catalogue = self.host.membership.catalogue();
        let members = catalogue.members.values().filter(|member| {
            member.caps.has(Caps::ISSUER)
                && member.state != State::Left
                && member.liveness != Liveness::Dead
                && member.name != self.host.node
        });
        let mut issuers: Vec<_> = members.map(|member| member.name.clone()).collect();
        fastrand::shuffle(&mut issuers);
        issuers.truncate(ISSUERS_MAX);
        issuers
    }

    /// How long nothing is to be done.
    fn until_next(&self, set: &IdentitySet, now: SystemTime) -> Duration {
        let next = all(set).map(|svid| self.next(svid));
        let wait = next.min().and_then(|next| next.duration_since(now).ok());
        wait.unwrap_or_default().clamp(SHORTEST, LONGEST)
    }

    /// When a certificate is to be asked for.
    fn next(&self, svid: &Svid) -> SystemTime {
        let again = self.troubles.get(svid.id()).map(Trouble::due);
        let again = again.or_else(|| self.waiting.get(svid.id()).map(Waiting::until));
        again
            .unwrap_or(SystemTime::UNIX_EPOCH)
            .max(due(svid.leaf()))
    }
}

/// When a certificate is to be renewed: when half of its life is over and up to a tenth more, so that hosts that joined
/// together do not come together. Its serial number is the die.
pub fn due(leaf: &Leaf) -> SystemTime {
    let life = Life::of(leaf);
    let die = leaf.serial.last().copied().unwrap_or_default();
    life.begins + life.length.mul_f64(0.5 + f64::from(die) / 2560.0)
}

/// Signs on a thread that may wait for the disk: the book of an issuer may be large.
async fn sign_own(
    role: Arc<Role>,
    leaf: &Leaf,
    request: Vec<u8>,
    lifetime: Duration,
    node: NodeName,
) -> Result<Renewed, CaError> {
    let (id, line) = (leaf.id.clone(), Line::renewed(leaf, ca::line_name()?));
    let sign = move || {
        let terms = Terms {
            host: Some(node.as_str()),
            lifetime,
            line,
        };
        let leaf = role.authority().sign(&id, &request, &terms)?;
        let issuer = role.authority().intermediate_pem().to_owned();
        Ok(Renewed { leaf, issuer })
    };
    let signed = tokio::task::spawn_blocking(sign).await;
    signed.unwrap_or_else(|panicked| Err(CaError::Ended(panicked.to_string())))
}

fn all(set: &IdentitySet) -> impl Iterator<Item = &Svid> {
    std::iter::once(&set.node).chain(set.services.values())
}

fn write(state: &StateDir, id: &SpiffeId, chain: &str, key: &str) -> Result<(), StateError> {
    let (chain_name, key_name) = match id.service_name() {
        Some(service) => service_files(service),
        None => (NODE_CHAIN.to_owned(), NODE_KEY.to_owned()),
    };
    state.write_svid(&chain_name, &key_name, chain, key)
}

/// Issuers asked for one certificate before we wait.
const ISSUERS_MAX: usize = 3;

/// Files that were written are in force within this, or something is wrong and is tried again.
const TAKEN_UP: Duration = Duration::from_secs(5);

/// The clock may be set meanwhile, so it is looked at now and then.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Certificates that live for seconds are for tests; nothing is due more often.
const SHORTEST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, LIFETIMES};
    use starling_transport::TrustDomain;

    #[test]
    fn half_of_a_life_and_up_to_a_tenth_more() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let authority = Authority::init(&state, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        let id = SpiffeId::node(&domain, "n1").unwrap();
        for life in [
            Duration::from_secs(10),
            Duration::from_secs(86_400),
            *LIFETIMES.end(),
        ] {
            let before = SystemTime::now();
            let issued = authority.issue(&id, life).unwrap();
            let svid =
                Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
            let due = due(svid.leaf()).duration_since(before).unwrap();
            // Certificates count in whole seconds.
            let second = Duration::from_secs(1);
            assert!(due + second >= life.mul_f64(0.5), "{life:?}: {due:?}");
            assert!(due <= life.mul_f64(0.6) + second, "{life:?}: {due:?}");
        }
    }
}
