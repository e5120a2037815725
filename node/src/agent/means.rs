//! What the configuration in force could not be given: a certificate, a socket, a place in the announcement.
//!
//! The rules of a configuration need nothing and are in force as soon as its files can be read. What needs the machine or other nodes may
//! be missing for one entry, and then that entry alone goes without.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::admin::view::Absent;
use crate::config::Config;
use crate::telemetry::metrics;

/// What is missing, by kind. Each kind is found by one part of the agent and replaced as a whole.
#[derive(Debug, Default)]
pub(super) struct Means(Mutex<BTreeMap<Kind, Vec<Absent>>>);

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The files of a certificate, of services that are declared or not.
    Identity,
    /// A certificate of a service or of a caller.
    Certificate,
    /// An address to listen on.
    Socket,
    /// A place in what this node announces.
    Announcement,
    /// A door of the admin API, opened at the start only.
    Admin,
}

impl Means {
    /// Replaces what is missing of a kind. Logs what was not missing before.
    pub(super) fn set(&self, kind: Kind, absent: Vec<Absent>) {
        let mut all = self.all_kinds();
        let before = all.insert(kind, absent).unwrap_or_default();
        let now = &all[&kind];
        for one in now.iter().filter(|one| !before.contains(one)) {
            if kind == Kind::Identity {
                tracing::error!(why = one.why, "certificates kept as they were");
                continue;
            }
            tracing::error!(
                entry = one.entry,
                declared = one.declared,
                why = one.why,
                "the configuration is in force but for this entry"
            );
        }
        for one in before.iter().filter(|one| !now.contains(one)) {
            tracing::info!(
                entry = one.entry,
                declared = one.declared,
                "this entry of the configuration is no longer without what it needs"
            );
        }
        metrics::absent(all.values().map(Vec::len).sum());
    }

    /// Whether something of a kind is missing.
    pub(super) fn lacks(&self, kind: Kind) -> bool {
        self.all_kinds()
            .get(&kind)
            .is_some_and(|absent| !absent.is_empty())
    }

    /// All that is missing.
    pub(super) fn absent(&self) -> Vec<Absent> {
        self.all_kinds().values().flatten().cloned().collect()
    }

    fn all_kinds(&self) -> MutexGuard<'_, BTreeMap<Kind, Vec<Absent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries whose certificates are missing. `has` says whether this node holds the certificate of a service.
pub(super) fn without_certificate(
    config: &Config,
    node: &str,
    has: impl Fn(&str) -> bool,
) -> Vec<Absent> {
    let why = |name: &str, effect: &str| {
        format!(
            "this node holds no certificate of service `{name}`, so {effect}; on an issuer, `starling ca issue --node {node} --service {name} \
             --out DIR` makes one"
        )
    };
    let services = config.services.iter().map(|service| {
        let name = service.name.as_str();
        let effect = "it is not announced and takes no calls";
        (name, format!("service `{name}`"), &service.declared, effect)
    });
    let upstreams = config.upstreams.iter().map(|upstream| {
        let (entry, caller) = (format!("upstream `{}`", upstream.service), &upstream.caller);
        let effect = "no call is made in its name";
        (caller.as_str(), entry, &upstream.declared, effect)
    });
    let all = services.chain(upstreams);
    let missing = all.filter(|(name, ..)| !has(name));
    let absent = missing.map(|(name, entry, declared, effect)| Absent {
        entry,
        declared: declared.to_string(),
        why: why(name, effect),
    });
    absent.collect()
}
