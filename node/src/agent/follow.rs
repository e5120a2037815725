//! Follows the files: configuration and certificates, on SIGHUP and whenever they change.
//!
//! What cannot be used is said once and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::announce::Announcer;
use super::check_identities;
use super::listeners::Listeners;
use super::source::Facts;
use crate::config::Config;
use crate::health::{Checks, States};
use crate::host::Host;
use crate::route::Route;

use crate::state::StateDir;
use crate::telemetry::access;
use crate::telemetry::log::Level;
use crate::telemetry::metrics;

/// Follows the files for as long as it runs.
pub(super) struct Follower {
    pub(super) host: Arc<Host>,
    pub(super) announcer: Arc<Announcer>,
    pub(super) facts: Arc<Facts>,
    pub(super) directory: PathBuf,
    pub(super) state: StateDir,
    /// The command line named the state directory, whatever the files say.
    pub(super) state_is_given: bool,
    pub(super) level: Level,
    pub(super) listeners: Listeners,
    pub(super) checks: Checks,
}

impl Follower {
    /// Looks every second, and at once on SIGHUP.
    pub(super) async fn run(mut self) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        let mut every = tokio::time::interval(EVERY);
        let mut files = Config::fingerprint(&self.directory);
        let mut identities = self.state.fingerprint();
        let (mut identities_refused, mut files_refused) = (false, false);
        loop {
            let is_asked = tokio::select! {
                _ = every.tick() => false,
                _ = hangup.recv() => true,
            };
            let seen = self.state.fingerprint();
            let has_new_identities = seen != identities;
            if is_asked || has_new_identities {
                identities = seen;
                identities_refused = !self.take_identities();
                // What was told of them is over, unless it was told of the configuration.
                if !identities_refused && !files_refused {
                    self.facts.set_error(None);
                }
            }
            let seen = Config::fingerprint(&self.directory);
            // What was refused for want of a certificate is good once that is there.
            if is_asked || seen != files || (files_refused && has_new_identities) {
                files = seen;
                let taken = self.take_configuration().await;
                files_refused = taken.is_err();
                self.report(taken);
                // A certificate that was needed until now may go.
                if identities_refused && !files_refused {
                    identities_refused = !self.take_identities();
                }
            }
            tell_expiry(&self.host);
        }
    }

    /// Builds the new state beside the old one and swaps; whatever fails leaves the old one.
    async fn take_configuration(&mut self) -> anyhow::Result<()> {
        let mut config = Config::load(&self.directory)?;
        if self.state_is_given {
            config.state = self.state.path().to_owned();
        }
        check_identities(&config, &self.host.identities.current())?;
        self.listeners.apply(&config).await?;
        let old = self.host.config.load_full();
        warn_of_restart(&old, &config);
        if old.log.level != config.log.level {
            self.level.set(&config.log.level)?;
        }
        access::configure(config.log.access);
        self.host.traces.configure(&config.trace);
        self.checks.reconcile(&config.services);
        for warning in config.routes.iter().flat_map(Route::shadows) {
            tracing::warn!("{warning}");
        }
        self.host.take_local_routes(&config.routes);
        // Policy first, then the announcement that others may call.
        self.host.policy.configure(&config);
        self.host.config.store(Arc::new(config));
        self.announce()
    }

    fn announce(&self) -> anyhow::Result<()> {
        let local = self.announcer.local(&self.host.config.load());
        Ok(self.host.membership.set_local(local)?)
    }

    /// Says whether they are in force.
    fn take_identities(&self) -> bool {
        let config = self.host.config.load();
        let read = self.state.identities().map_err(anyhow::Error::from);
        let read = read.and_then(|set| check_identities(&config, &set).map(|()| set));
        match read {
            Ok(set) => {
                self.host.identities.replace(set);
                if let Err(error) = self.announce() {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the new certificates are not announced"
                    );
                }
                self.host.membership.recheck();
                tracing::info!("certificates read again");
                true
            }
            Err(error) => {
                // A half-written pair is read again when the other half arrives.
                tracing::error!(
                    error = format!("{error:#}"),
                    "certificates kept as they were"
                );
                self.facts.set_error(Some(format!("{error:#}")));
                false
            }
        }
    }

    fn report(&self, taken: anyhow::Result<()>) {
        metrics::reloaded(taken.is_ok());
        match taken {
            Ok(()) => {
                tracing::info!("configuration read again");
                self.facts.config_taken();
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "configuration kept as it was");
                self.facts.set_error(Some(format!("{error:#}")));
            }
        }
    }
}

/// Announces what the health checks find, at once.
pub(super) async fn health(
    host: Arc<Host>,
    announcer: Arc<Announcer>,
    mut states: watch::Receiver<States>,
) {
    loop {
        let found = states
            .borrow_and_update()
            .iter()
            .map(|(name, state)| (name.clone(), state.healthy))
            .collect();
        if announcer.set_health(found) {
            let local = announcer.local(&host.config.load());
            if let Err(error) = host.membership.set_local(local) {
                tracing::warn!(%error, "health is not announced");
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Some keys are only read at the start.
fn warn_of_restart(old: &Config, new: &Config) {
    let changed = [
        ("listen", old.listen != new.listen),
        ("advertise", old.advertise != new.advertise),
        ("seeds", old.seeds != new.seeds),
        ("zone", old.zone != new.zone),
        ("state", old.state != new.state),
        ("admin", old.admin != new.admin),
        ("log.format", old.log.format != new.log.format),
    ];
    for (key, _) in changed.iter().filter(|(_, is_changed)| *is_changed) {
        tracing::warn!(key, "changed, but only read when the agent starts");
    }
}

fn tell_expiry(host: &Host) {
    let set = host.identities.current();
    for svid in std::iter::once(&set.node).chain(set.services.values()) {
        let ends = svid
            .leaf()
            .not_after
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        metrics::svid_expires(svid.id().as_str(), ends.as_secs());
    }
}

/// One `stat` per file; see [`crate::state::Fingerprint`].
const EVERY: Duration = Duration::from_secs(1);
