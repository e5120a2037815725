//! Calls under way, judged again when policy changes.

use std::sync::Arc;

use http::{Method, Uri};
use starling_transport::SpiffeId;
use tokio::sync::watch;

use super::Policy;
use super::compile::Snapshot;
use super::judge::Subject;

/// One call from the moment before it is judged. Holds what it takes to judge it again; making one allocates nothing.
#[derive(Debug)]
pub struct Live {
    policy: Arc<Policy>,
    changes: watch::Receiver<()>,
    caller: SpiffeId,
    callee: SpiffeId,
    request: Option<(Method, Uri)>,
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

    /// Resolves when a changed policy no longer lets the call through. Cancel-safe.
    pub async fn denied(&mut self) {
        loop {
            if self.changes.changed().await.is_err() {
                // The policy ends with the agent, and the calls before it.
                return std::future::pending().await;
            }
            if !self.is_allowed(&self.policy.current()) {
                return;
            }
        }
    }

    /// The same, for whoever looks by the way: whether a change came that denies the call.
    pub fn is_denied(&mut self) -> bool {
        let has_changed = self.changes.has_changed().unwrap_or(false);
        if has_changed {
            self.changes.mark_unchanged();
        }
        has_changed && !self.is_allowed(&self.policy.current())
    }

    /// A service that is no longer declared is open to nobody.
    fn is_allowed(&self, policy: &Snapshot) -> bool {
        let entry = policy.entry(self.callee());
        entry.is_some_and(|entry| entry.judge(&self.caller, self.subject()).allowed)
    }
}
