//! Whether this node is an issuer, as its files say: takes up the CA and opens the join port.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starling_transport::join::JoinListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::announce::Announcer;
use super::follow::announce;
use super::source::Facts;
use crate::ca::INTERMEDIATE_KEY;
use crate::host::Host;
use crate::issuer::{self, Role};
use crate::state::{Fingerprint, StateDir};

/// Follows the CA's files for as long as it runs.
pub(super) struct Issuing {
    pub(super) host: Arc<Host>,
    pub(super) announcer: Arc<Announcer>,
    pub(super) state: StateDir,
    facts: Arc<Facts>,
    seen: Option<Fingerprint>,
    /// The CA of the files, in use as long as it is not revoked.
    held: Option<Arc<Role>>,
    /// Whether [`Self::held`] is revoked, as commands were let know.
    is_revoked: Option<bool>,
    /// The task behind the join port, while it is open.
    port: JoinSet<()>,
    /// When to try again to open it.
    due: Option<Instant>,
    /// When it was last said that the intermediate ends.
    said: Option<Instant>,
}

impl Issuing {
    pub(super) fn new(
        host: Arc<Host>,
        announcer: Arc<Announcer>,
        state: StateDir,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            host,
            announcer,
            state,
            facts,
            seen: None,
            held: None,
            is_revoked: None,
            port: JoinSet::new(),
            due: None,
            said: None,
        }
    }

    /// Looks every second.
    pub(super) async fn run(mut self) {
        let mut every = interval(EVERY);
        loop {
            every.tick().await;
            let seen = self.state.authority_fingerprint();
            if self.seen.as_ref() != Some(&seen) {
                self.seen = Some(seen);
                self.read();
            }
            self.judge();
            while self.port.try_join_next().is_some() {}
            if self.host.issuer.load().is_some() && self.port.is_empty() {
                self.open();
            }
            self.tell_end();
            if let Some(role) = &*self.host.issuer.load() {
                role.tell_refused();
            }
        }
    }

    /// Says once a day that the intermediate ends, early enough for somebody to fetch the root key.
    fn tell_end(&mut self) {
        let Some(role) = self.host.issuer.load_full() else {
            return;
        };
        let left = role
            .authority()
            .not_after()
            .duration_since(SystemTime::now());
        let left = left.unwrap_or_default();
        if left < EARLY && self.said.is_none_or(|said| said.elapsed() > DAY) {
            self.said = Some(Instant::now());
            tracing::warn!(
                days = left.as_secs() / DAY.as_secs(),
                "this issuer's certificate ends: `starling ca add-issuer` where the root key is makes a new one"
            );
        }
    }

    fn read(&mut self) {
        // The key is what makes an issuer; a certificate alone may lie around anywhere.
        let role = self
            .state
            .exists(INTERMEDIATE_KEY)
            .then(|| Role::load(&self.state));
        match role {
            Some(Ok(role)) => {
                self.held = Some(Arc::new(role.follow(self.held.as_deref())));
                self.is_revoked = None;
            }
            // Half-written files are read again when the other half arrives; until then the old ones are good.
            Some(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, "the files of the CA cannot be used");
            }
            None => self.held = None,
        }
    }

    /// Takes up the CA of the files, or lays it down when it is gone or revoked.
    fn judge(&mut self) {
        let trust = self.host.identities.current().trust.clone();
        let held = self.held.as_ref();
        let is_revoked = held.map(|role| role.authority().is_revoked(trust.revocations()));
        if self.is_revoked != is_revoked {
            self.is_revoked = is_revoked;
            self.mark();
        }
        let next = self.held.clone().filter(|_held| is_revoked == Some(false));
        let before = self.host.issuer.load_full();
        let is_same = match (&before, &next) {
            (Some(before), Some(next)) => Arc::ptr_eq(before, next),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        self.host.issuer.store(next.clone());
        match next {
            Some(_) => tracing::info!("this node is an issuer"),
            None => self.port.abort_all(),
        }
        if before.is_some() != next.is_some() {
            self.announcer.set_issuer(next.is_some());
            announce(&self.host, &self.announcer, &self.facts);
        }
    }

    /// Notes for commands whether the CA is revoked.
    fn mark(&self) {
        let (Some(role), Some(is_revoked)) = (&self.held, self.is_revoked) else {
            return;
        };
        if is_revoked {
            tracing::error!(
                "the intermediate certificate of this issuer is revoked: this node is no issuer any more"
            );
        }
        if let Err(error) = role.authority().mark(&self.state, is_revoked) {
            tracing::warn!(%error, "failed to note in ca/revoked whether this issuer is revoked");
        }
    }

    /// A port that is taken does not keep the node from its other work; it is tried again.
    fn open(&mut self) {
        if self.due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        let listen = self.host.config.load().join_listen();
        match JoinListener::bind(listen, self.host.identities.clone()) {
            Ok(listener) => {
                self.due = None;
                tracing::info!(%listen, "join port open");
                self.port.spawn(issuer::serve(self.host.clone(), listener));
            }
            Err(error) => {
                self.due = Some(Instant::now() + AGAIN);
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, "the join port cannot be opened ([issuer] listen)");
            }
        }
    }
}

/// One `stat` per file; see [`Fingerprint`].
const EVERY: Duration = Duration::from_secs(1);

/// A quarter of an intermediate's life.
const EARLY: Duration = Duration::from_secs(90 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a port that is taken is left alone: one log line each.
const AGAIN: Duration = Duration::from_secs(30);
