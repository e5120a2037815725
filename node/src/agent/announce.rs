//! What this node says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use starling_gossip::{Caps, Local, LocalError, LocalService, Membership, ServiceName, State};
use starling_transport::Identities;

use crate::addresses;
use crate::admin::view::Absent;
use crate::config::{Config, Service};
use crate::mesh::SvidSigner;

/// Makes the announcement from configuration and health.
#[derive(Debug)]
pub(super) struct Announcer {
    identities: Arc<Identities>,
    advertise: SocketAddr,
    health: Mutex<BTreeMap<ServiceName, bool>>,
    is_draining: AtomicBool,
    is_issuer: AtomicBool,
    /// The services that were announced last. They keep their places when there are too many.
    placed: Mutex<BTreeSet<ServiceName>>,
}

impl Announcer {
    pub(super) fn new(identities: Arc<Identities>, advertise: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            identities,
            advertise,
            health: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_issuer: AtomicBool::new(false),
            placed: Mutex::default(),
        })
    }

    /// The announcement for this configuration.
    pub(super) fn local(&self, config: &Config) -> Local {
        let is_draining = self.is_draining.load(Ordering::Relaxed);
        let id = self.identities.current().node.id().clone();
        let node = id
            .node_name()
            .unwrap_or_default()
            .parse()
            .expect("a node's SVID names a node");
        let mut calls: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| upstream.service.clone())
            .collect();
        calls.sort();
        calls.dedup();
        Local {
            node,
            signer: SvidSigner::new(self.identities.clone(), id),
            addrs: vec![self.advertise],
            zone: config.zone.clone(),
            cell: 0,
            state: if is_draining {
                State::Draining
            } else {
                State::Serving
            },
            caps: if self.is_issuer.load(Ordering::Relaxed) {
                Caps::ISSUER
            } else {
                Caps::default()
            },
            services: config
                .services
                .iter()
                .filter_map(|service| self.service(service))
                .collect(),
            calls,
        }
    }

    /// Announces `config` as far as there are places, and returns what found none. Services that were announced before come first.
    pub(super) fn announce(&self, membership: &Membership, config: &Config) -> Vec<Absent> {
        // Held over the whole, so that two announcements do not change places.
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut local = self.local(config);
        let mut absent = Vec::new();
        local
            .services
            .sort_by_key(|service| !placed.contains(&service.name));
        let most = Local::SERVICES_MAX.min(local.services.len());
        let why = format!(
            "a node announces at most {} services, so calls from other hosts do not find it",
            Local::SERVICES_MAX
        );
        let left_out = local.services.drain(most..);
        absent.extend(left_out.map(|service| unplaced(config, &service.name, why.clone())));
        if local.calls.len() > Local::CALLS_MAX {
            absent.push(whole(format!(
                "a node says of at most {} services that it calls them; maps of the mesh show no more",
                Local::CALLS_MAX
            )));
            local.calls.truncate(Local::CALLS_MAX);
        }
        loop {
            let Err(error) = membership.set_local(local.clone()) else {
                let names = local.services.iter().map(|service| service.name.clone());
                *placed = names.collect();
                return absent;
            };
            let Some(at) = at_fault(&error, &local) else {
                absent.push(whole(format!(
                    "{:#}; what was announced before stays",
                    anyhow::Error::from(error)
                )));
                return absent;
            };
            let service = local.services.remove(at);
            let why = format!("it is not announced: {:#}", anyhow::Error::from(error));
            absent.push(unplaced(config, &service.name, why));
        }
    }

    /// From now on every announcement says that this node takes no new calls.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether every announcement from now on says that this node renews certificates.
    pub(super) fn set_issuer(&self, is_issuer: bool) {
        self.is_issuer.store(is_issuer, Ordering::Relaxed);
    }

    /// Takes in what the health checks found. Returns whether that is news.
    pub(super) fn set_health(&self, health: BTreeMap<ServiceName, bool>) -> bool {
        let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != health;
        *known = health;
        is_news
    }

    /// Whether the app behind `service` works, as far as its checks know.
    pub(super) fn is_healthy(&self, service: &Service) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health
            .get(&service.name)
            .copied()
            .unwrap_or_else(|| service.health.is_none())
    }

    fn service(&self, service: &Service) -> Option<LocalService> {
        let set = self.identities.current();
        let id = set.service(service.name.as_str())?.id().clone();
        Some(LocalService {
            name: service.name.clone(),
            protocol: service.speaks().to_owned(),
            labels: service.labels.clone(),
            weight: u32::from(service.weight),
            healthy: self.is_healthy(service),
            signer: SvidSigner::new(self.identities.clone(), id),
        })
    }
}

/// The service without which the rest may be announced. Of what is too large together the last one goes, which is the newest.
fn at_fault(error: &LocalError, local: &Local) -> Option<usize> {
    let services = &local.services;
    let of_name = |name: &str| {
        services
            .iter()
            .rposition(|service| service.name.as_str() == name)
    };
    match error {
        LocalError::TooLarge { .. } | LocalError::TooMany => services.len().checked_sub(1),
        LocalError::Labels(name) | LocalError::Duplicate(name) => of_name(name.as_str()),
        LocalError::Word(word) => services
            .iter()
            .position(|service| service.protocol == *word),
        LocalError::Sign { whose, .. } => of_name(whose),
        _ => None,
    }
}

fn unplaced(config: &Config, name: &ServiceName, why: String) -> Absent {
    let declared = config.services.iter().find(|service| service.name == *name);
    Absent {
        entry: format!("service `{name}`"),
        declared: declared.map_or_else(String::new, |service| service.declared.to_string()),
        why,
    }
}

/// What is missing is no single entry's.
fn whole(why: String) -> Absent {
    Absent {
        entry: "the announcement of this node".to_owned(),
        declared: String::new(),
        why,
    }
}

/// Where others reach this node: as declared, else where it listens, else the address of the route to the first seed
/// that has one.
pub(super) async fn address(config: &Config, bound: SocketAddr) -> SocketAddr {
    if let Some(advertise) = config.advertise {
        return advertise;
    }
    if !bound.ip().is_unspecified() {
        return bound;
    }
    for seed in &config.seeds {
        if let Some(ip) = addresses::route_to(seed).await {
            return SocketAddr::new(ip, bound.port());
        }
    }
    let found = addresses::of_this_host().await;
    let ip = found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if ip.is_loopback() {
        tracing::warn!(%ip, "no address of this host is known to others; set `advertise`");
    }
    SocketAddr::new(ip, bound.port())
}
