//! Calls under way, judged again when policy changes and, within this host, when certificates do.

use std::sync::Arc;

use http::{Method, Uri};
use starling_transport::{LocalSession, SpiffeId};
use tokio::sync::watch;

use super::Policy;
use super::compile::Snapshot;
use super::judge::Subject;
use crate::reason::Reason;

/// One call from the moment before it is judged. Holds what it takes to judge it again; making one allocates nothing.
#[derive(Debug)]
pub struct Live {
    policy: Arc<Policy>,
    changes: watch::Receiver<()>,
    caller: SpiffeId,
    callee: SpiffeId,
    request: Option<(Method, Uri)>,
    /// Of a call between two apps of this host. A peer's call ends with its connection, whose certificates the transport judges.
    session: Option<LocalSession>,
}

impl Live {
    /// A connection of `caller` to the service of the identity `callee`.
    pub fn connection(policy: &Arc<Policy>, caller: &SpiffeId, callee: &SpiffeId) -> Self {
        Self {
            policy: policy.clone(),
            changes: policy.changes(),
            caller: caller.clone(),
            callee: callee.clone(),
            request: None,
            session: None,
        }
    }

    /// A request.
    pub fn request(
        policy: &Arc<Policy>,
        caller: &SpiffeId,
        callee: &SpiffeId,
        method: &Method,
        uri: &Uri,
    ) -> Self {
        Self {
            request: Some((method.clone(), uri.clone())),
            ..Self::connection(policy, caller, callee)
        }
    }

    /// The same call over `session`, with which it ends.
    #[must_use]
    pub fn over(self, session: LocalSession) -> Self {
        Self {
            session: Some(session),
            ..self
        }
    }

    /// Who calls.
    pub fn caller(&self) -> &SpiffeId {
        &self.caller
    }

    /// The name of the called service; a node's identity is none and has no policy.
    pub fn callee(&self) -> &str {
        self.callee.service_name().unwrap_or_default()
    }

    /// What it is judged by.
    pub fn subject(&self) -> Subject<'_> {
        match &self.request {
            Some((method, uri)) => Subject::Request { method, uri },
            None => Subject::Connection,
        }
    }

    /// Resolves with the reason when the call may not go on: a changed policy denies it, or its session within this host has
    /// ended. Cancel-safe.
    pub async fn cut(&mut self) -> Reason {
        loop {
            let ended = async {
                match &mut self.session {
                    Some(session) => session.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    // The policy ends with the agent, and the calls before it.
                    return std::future::pending().await;
                },
                _refusal = ended => return SESSION_ENDED,
            }
            if !self.is_allowed(&self.policy.current()) {
                return Reason::Denied;
            }
        }
    }

    /// The same without waiting, for a task that is polled anyway.
    pub fn is_cut(&mut self) -> Option<Reason> {
        let has_changed = self.changes.has_changed().unwrap_or(false);
        if has_changed {
            self.changes.mark_unchanged();
        }
        if has_changed && !self.is_allowed(&self.policy.current()) {
            return Some(Reason::Denied);
        }
        self.session
            .as_mut()?
            .has_ended()
            .map(|_refusal| SESSION_ENDED)
    }

    /// A service that is no longer declared is open to nobody.
    fn is_allowed(&self, policy: &Snapshot) -> bool {
        let entry = policy.entry(self.callee());
        entry.is_some_and(|entry| entry.judge(&self.caller, self.subject()).allowed)
    }
}

/// As where the connection to a peer ends: the app may have seen the call, so it is not sent elsewhere.
const SESSION_ENDED: Reason = Reason::UpstreamReset;
