//! Whether a proof of identity is still good: the one judgement behind every kind of connection.
//!
//! A connection asks when it begins, when trust or revocations change, and when the first certificate of a chain ends. Over
//! the wire a chain was shown ([`Credential`]); between two apps of one host none is, and the SVIDs that would be shown are
//! judged in its place ([`LocalSession`](crate::LocalSession)).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::endpoint::now;
use crate::identities::{Identities, InForce};
use crate::identity::SpiffeId;
use crate::svid::{Leaf, Refusal, Svid};

/// The chain by which one end of a connection proved its identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credential {
    leaf: Arc<Leaf>,
    chain: Arc<[CertificateDer<'static>]>,
}

impl Credential {
    /// A chain, leaf first, that a verifier accepted. Whether it still does is asked with [`Identities::judge`].
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, Refusal> {
        Ok(Self {
            leaf: Arc::new(Leaf::of_chain(&chain)?),
            chain: chain.into(),
        })
    }

    /// Whom it proves.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// What its leaf says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}

impl From<&Svid> for Credential {
    fn from(svid: &Svid) -> Self {
        Self {
            leaf: Arc::new(svid.leaf().clone()),
            chain: svid.certified_key().cert.as_slice().into(),
        }
    }
}

/// What our own revocation means to a connection of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnRevocation {
    /// It ends here too, whether or not the peer has heard of it.
    Ends,
    /// The peer decides. Gossip needs that: a revocation that is taken back arrives by it.
    LeftToPeer,
}

impl Identities {
    /// Judges the chain of a peer by the trust and the revocations in force. Returns when it ends if nothing changes before.
    pub fn judge(&self, peer: &Credential) -> Result<SystemTime, Refusal> {
        let set = self.current();
        let (_, ends) = set.trust.verify_until(&peer.chain, now())?;
        Ok(ends)
    }

    /// Judges a chain that this node itself showed, of an identity that it must still hold.
    pub(crate) fn judge_shown(
        &self,
        own: &Credential,
        revocation: OwnRevocation,
    ) -> Result<SystemTime, Refusal> {
        let set = self.current();
        if set.svid(own.id()).is_none() {
            return Err(Refusal::NoCertificate);
        }
        let trust = match revocation {
            OwnRevocation::Ends => set.trust.clone(),
            OwnRevocation::LeftToPeer => set.trust.without(Arc::default()),
        };
        let (_, ends) = trust.verify_until(&own.chain, now())?;
        Ok(ends)
    }

    /// The same for the SVID of `id` that this node holds now.
    pub(crate) fn judge_held(
        &self,
        id: &SpiffeId,
        revocation: OwnRevocation,
    ) -> Result<SystemTime, Refusal> {
        match (self.judge_own(id), revocation) {
            (Err(Refusal::Revoked | Refusal::RevokedIssuer), OwnRevocation::LeftToPeer) => {
                let set = self.current();
                let svid = set.svid(id).ok_or(Refusal::NoCertificate)?;
                self.judge_shown(&svid.into(), revocation)
            }
            (judged, _) => judged,
        }
    }

    /// Judges the SVID of `id` that this node holds now as a peer would judge it. Costs a look into a table, unless something
    /// changed.
    pub fn judge_own(&self, id: &SpiffeId) -> Result<SystemTime, Refusal> {
        self.in_force().judge_own(id, now())
    }

    /// Resolves with the refusal once `judge` refuses. Asks at once, after every change of the identities in force, when the
    /// end comes that `judge` named, and every minute, so that a clock that was set is noticed too. Cancel-safe.
    pub async fn until_refused<R>(
        &self,
        mut judge: impl FnMut() -> Result<SystemTime, R> + Send,
    ) -> R {
        let mut changes = self.changes();
        loop {
            // First, so that a change during the judgement is not missed.
            changes.mark_unchanged();
            match judge() {
                Ok(ends) => wait(&mut changes, ends).await,
                Err(refusal) => return refusal,
            }
        }
    }
}

/// Waits until another judgement may be due: at `ends`, at the next of `changes` ([`Identities::changes`]), and after a minute.
/// Cancel-safe.
pub async fn wait(changes: &mut watch::Receiver<u64>, ends: SystemTime) {
    let left = ends.duration_since(now()).unwrap_or_default();
    tokio::select! {
        () = tokio::time::sleep(left.clamp(GRAIN, CLOCK_LOOK)) => {}
        // The identities live as long as the agent; without them nothing changes any more.
        Ok(()) = changes.changed() => {}
    }
}

impl InForce {
    fn judge_own(&self, id: &SpiffeId, now: SystemTime) -> Result<SystemTime, Refusal> {
        if let Some(good) = self.good(id)
            && good.contains(&now)
        {
            return Ok(good.end);
        }
        let svid = self.set.svid(id).ok_or(Refusal::NoCertificate)?;
        let key = svid.certified_key();
        let (_, ends) = self.set.trust.verify_until(&key.cert, now)?;
        self.note_good(id, now..ends);
        Ok(ends)
    }
}

/// How often a connection looks at the clock at least.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// The grain of tokio's timers: a wait for an end that is nearer would not wait.
const GRAIN: Duration = Duration::from_millis(1);
