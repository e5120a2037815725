//! Follows the files: configuration and certificates, on SIGHUP and whenever they change.
//!
//! A configuration is taken in three stages. Files that cannot be read change nothing. The rules of files that can be read are in force at
//! once and as a whole: who may call, limits, routes. Then each entry is given what it needs, or goes without ([`super::means`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use starling_gossip::ServiceName;
use starling_transport::IdentitySet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::announce::Announcer;
use super::last_config;
use super::listeners::Listeners;
use super::means::{self, Kind};
use super::source::Facts;
use crate::admin::view::Absent;
use crate::config::Config;
use crate::health::{Checks, States};
use crate::host::Host;
use crate::route::Route;
use crate::said::causes;

use crate::state::{StateDir, StateError};
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
        let mut again = Instant::now() + AGAIN;
        loop {
            let is_asked = tokio::select! {
                _ = every.tick() => false,
                _ = hangup.recv() => true,
            };
            let mut is_new = false;
            let seen = self.state.fingerprint();
            if is_asked || seen != identities {
                identities = seen;
                is_new |= self.take_identities();
            }
            let seen = Config::fingerprint(&self.directory);
            if is_asked || seen != files {
                files = seen;
                is_new |= self.take_configuration();
            }
            let is_due = again <= Instant::now() && self.facts.means.lacks(Kind::Socket);
            if is_new || is_due {
                self.provide().await;
                again = Instant::now() + AGAIN;
            }
            tell_expiry(&self.host);
        }
    }

    /// Reads the files and puts their rules in force. Whether that was done.
    fn take_configuration(&mut self) -> bool {
        let (config, files) = match Config::load_with_files(&self.directory) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let error = format!("{problems:#}");
                tracing::error!(error, "configuration kept as it was");
                metrics::reloaded(false);
                self.host.is_config_stale.store(true, Ordering::Relaxed);
                self.facts.set_error(error);
                return false;
            }
        };
        self.put_in_force(config);
        self.host.is_config_stale.store(false, Ordering::Relaxed);
        last_config::keep(&self.state, &files);
        metrics::reloaded(true);
        self.facts.config_taken();
        tracing::info!("configuration read again");
        true
    }

    /// What needs nothing but the files.
    fn put_in_force(&mut self, mut config: Config) {
        if self.state_is_given {
            config.state = self.state.path().to_owned();
        }
        // Policy first, then the announcement that others may call.
        self.host.policy.configure(&config);
        self.host.take_local_routes(&config.routes);
        let old = self.host.config.load_full();
        warn_of_restart(&old, &config);
        if old.log.level != config.log.level
            && let Err(error) = self.level.set(&config.log.level)
        {
            tracing::error!(%error, "the log level stays as it was");
        }
        access::configure(config.log.access);
        self.host.traces.configure(&config.trace);
        for warning in config.routes.iter().flat_map(Route::shadows) {
            tracing::warn!("{warning}");
        }
        self.checks.reconcile(&config.services);
        self.host.config.store(Arc::new(config));
    }

    /// Gives each entry of the configuration in force what it needs, as far as it can be had.
    pub(super) async fn provide(&mut self) {
        let config = self.host.config.load_full();
        let set = self.host.identities.current();
        let has = |name: &str| set.service(name).is_some();
        let node = self.host.node.as_str();
        let means = &self.facts.means;
        means.set(
            Kind::Certificate,
            means::without_certificate(&config, node, has),
        );
        let unheard = self.listeners.apply(&config, has).await;
        self.facts.means.set(Kind::Socket, unheard);
        announce(&self.host, &self.announcer, &self.facts);
    }

    /// Puts in force the certificates of the files, each that can be used. Whether that was done.
    fn take_identities(&self) -> bool {
        let old = self.host.identities.current();
        match self.state.identities_beside(Some(&old)) {
            Ok((mut set, faults)) => {
                let mut faults = absent_identities(&faults);
                faults.extend(self.keep_declared(&mut set, &old));
                self.host.identities.replace(set);
                self.host.membership.recheck();
                self.facts.means.set(Kind::Identity, faults);
                tracing::info!("certificates read again");
                true
            }
            Err(error) => {
                // A half-written pair is read again when the other half arrives.
                let absent = absent_identities(std::slice::from_ref(&error));
                self.facts.means.set(Kind::Identity, absent);
                false
            }
        }
    }

    /// A certificate whose files are gone stays in force while the configuration needs it.
    fn keep_declared(&self, set: &mut IdentitySet, old: &IdentitySet) -> Vec<Absent> {
        let config = self.host.config.load();
        let services = config.services.iter().map(|service| &service.name);
        let callers = config.upstreams.iter().map(|upstream| &upstream.caller);
        let needed: BTreeSet<_> = services.chain(callers).collect();
        let mut gone = Vec::new();
        for name in needed.into_iter().map(ServiceName::as_str) {
            if let (None, Some(held)) = (set.service(name), old.service(name)) {
                let held = held.clone();
                set.services.insert(held.id().clone(), held);
                gone.push(Absent {
                    entry: "certificates".to_owned(),
                    declared: String::new(),
                    why: format!(
                        "the files of service `{name}` are gone from the state directory. What was read before stays in force until it ends"
                    ),
                });
            }
        }
        gone
    }
}

/// Files of certificates that cannot be used; the certificates that were in force before are.
pub(super) fn absent_identities(faults: &[StateError]) -> Vec<Absent> {
    let absent = faults.iter().map(|error| {
        let hint = error
            .hint()
            .map_or_else(String::new, |hint| format!("; {hint}"));
        let why = format!("{}{hint}", causes(error));
        Absent {
            entry: "certificates".to_owned(),
            declared: String::new(),
            why: format!("{why}. What was read before stays in force"),
        }
    });
    absent.collect()
}

/// Announces this node as it is now.
pub(super) fn announce(host: &Host, announcer: &Announcer, facts: &Facts) {
    let unplaced = announcer.announce(&host.membership, &host.config.load());
    facts.means.set(Kind::Announcement, unplaced);
}

/// Announces what the health checks find, at once.
pub(super) async fn health(
    host: Arc<Host>,
    announcer: Arc<Announcer>,
    facts: Arc<Facts>,
    mut states: watch::Receiver<States>,
) {
    loop {
        let found = states
            .borrow_and_update()
            .iter()
            .map(|(name, state)| (name.clone(), state.healthy))
            .collect();
        if announcer.set_health(found) {
            announce(&host, &announcer, &facts);
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

/// How long an address that could not be had is left alone.
const AGAIN: Duration = Duration::from_secs(5);
