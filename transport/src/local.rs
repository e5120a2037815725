//! Calls between two identities of one node. Nothing is sent and no handshake proves anything, so the node's own SVIDs are
//! judged as each would judge the other's over the wire.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::credential::wait;
use crate::endpoint::now;
use crate::identities::Identities;
use crate::identity::SpiffeId;
use crate::metrics;
use crate::svid::Refusal;

/// A connection between two identities of this node, for as long as both are good.
#[derive(Debug)]
pub struct LocalSession {
    identities: Arc<Identities>,
    changes: watch::Receiver<u64>,
    caller: SpiffeId,
    callee: SpiffeId,
    ends: SystemTime,
}

/// Which end of a local connection has no good certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocalRefusal {
    /// The callee would refuse the caller.
    #[error("the caller's certificate is not good")]
    Caller(#[source] Refusal),
    /// The caller would refuse the callee.
    #[error("the callee's certificate is not good")]
    Callee(#[source] Refusal),
}

impl LocalSession {
    /// Connects `caller` to `callee`, both held by this node. What is refused counts like a handshake that is.
    pub fn open(
        identities: &Arc<Identities>,
        caller: &SpiffeId,
        callee: &SpiffeId,
    ) -> Result<Self, LocalRefusal> {
        let mut session = Self {
            // Before the judgement, so that no change after it is missed.
            changes: identities.changes(),
            identities: identities.clone(),
            caller: caller.clone(),
            callee: callee.clone(),
            ends: SystemTime::UNIX_EPOCH,
        };
        match session.judge() {
            Ok(()) => Ok(session),
            Err(refusal) => {
                metrics::count_refused(refusal.refusal());
                Err(refusal)
            }
        }
    }

    /// Resolves when one of the two is no longer good: at once when it is revoked or gone, and when its chain ends.
    /// Cancel-safe.
    pub async fn ended(&mut self) -> LocalRefusal {
        loop {
            if let Err(refusal) = self.judge_again() {
                return self.cut(refusal);
            }
            wait(&mut self.changes, self.ends).await;
        }
    }

    /// The same, for a task that looks by the way: whether it has ended.
    pub fn has_ended(&mut self) -> Option<LocalRefusal> {
        let is_same = !self.changes.has_changed().unwrap_or(false) && now() < self.ends;
        if is_same {
            return None;
        }
        let refusal = self.judge_again().err()?;
        Some(self.cut(refusal))
    }

    fn cut(&self, refusal: LocalRefusal) -> LocalRefusal {
        let reason = refusal.refusal();
        tracing::debug!(caller = %self.caller, callee = %self.callee, reason = reason.as_str(), "local connection cut");
        metrics::connection_cut(reason);
        refusal
    }

    fn judge_again(&mut self) -> Result<(), LocalRefusal> {
        self.changes.mark_unchanged();
        self.judge()
    }

    fn judge(&mut self) -> Result<(), LocalRefusal> {
        let judge = |id| self.identities.judge_own(id);
        // In the order of a handshake: TLS 1.3 has the client judge first.
        let callee = judge(&self.callee).map_err(LocalRefusal::Callee)?;
        let caller = judge(&self.caller).map_err(LocalRefusal::Caller)?;
        self.ends = callee.min(caller);
        Ok(())
    }
}

impl LocalRefusal {
    /// Why.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Caller(refusal) | Self::Callee(refusal) => refusal,
        }
    }
}
