//! The verified view of the mesh, as one immutable snapshot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::local::{Caps, State};
use crate::names::{Labels, NodeName, ServiceName};
use crate::registry::{Entry, Registry};
use crate::wire::manifest::Service;

/// Everyone and everything we have proof of, at one moment. Replaced whole, never changed.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Grows by one with each snapshot.
    pub version: u64,
    /// Our own name.
    pub local: NodeName,
    /// When this snapshot was made.
    pub built_at: Instant,
    /// Every member we hold a manifest of, ourselves and the dead included.
    pub members: BTreeMap<NodeName, Arc<Member>>,
    /// The instances worth trying, by service: those of nodes that left or are dead are not in it, except where that would take
    /// away more than half of a service; then they stand here as [`Liveness::Suspect`].
    pub services: BTreeMap<ServiceName, Vec<Arc<Instance>>>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its SPIFFE ID.
    pub identity: Arc<str>,
    /// Where it is reached, best first; never empty.
    pub addrs: Vec<SocketAddr>,
    /// Its failure domain.
    pub zone: Arc<str>,
    /// Its cell.
    pub cell: u32,
    /// Whether it takes new work.
    pub state: State,
    /// What it does for others.
    pub caps: Caps,
    /// Which life of the node this is; a restart has a higher one.
    pub generation: u64,
    /// Counts what it announced in this life, up to the last time that it was something else than how its calls go.
    pub sequence: u64,
    /// Whether we believe it runs.
    pub liveness: Liveness,
    /// When we heard of that.
    pub heard_at: Instant,
    /// When its liveness last changed.
    pub liveness_at: Instant,
    /// The services its apps call.
    pub calls: Vec<ServiceName>,
    /// Services it announces without proof that it may; they are left out of the catalogue.
    pub unproven: Vec<ServiceName>,
    /// When its certificate runs out, in seconds since 1970.
    pub not_after: u64,
    /// What tells the documents it holds from other sets; see [`Documents::digest`](crate::Documents::digest).
    pub documents: Option<[u8; 32]>,
    /// How many of them have no effect there in their newest revision.
    pub documents_out_of_force: u16,
}

/// One service on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The node it runs on.
    pub node: NodeName,
    /// The service it is an instance of.
    pub service: ServiceName,
    /// What it speaks: `tcp`, `http`.
    pub protocol: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its share of calls compared to others; a draining node's is 0.
    pub weight: u32,
    /// Whether its health check passes, as its own node says.
    pub healthy: bool,
    /// Where its node is reached.
    pub addr: SocketAddr,
    /// Its node's failure domain.
    pub zone: Arc<str>,
    /// Whether we believe its node runs: alive or suspect.
    pub liveness: Liveness,
    /// When anything above last changed.
    pub changed_at: Instant,
}

/// Whether we believe that a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It does.
    Alive,
    /// It may not: try others first.
    Suspect,
    /// It does not: gossip lost it and our own probe went unanswered.
    Dead,
}

impl Catalogue {
    /// A mesh of nobody, as before the start.
    pub(crate) fn empty(local: NodeName) -> Self {
        Self {
            version: 0,
            local,
            built_at: Instant::now(),
            members: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// Whether the other one tells the same.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.members == other.members && self.services == other.services
    }

    /// The instances of a service; empty if nobody offers it.
    pub fn instances(&self, service: &str) -> &[Arc<Instance>] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// The member of that name.
    pub fn member(&self, node: &str) -> Option<&Arc<Member>> {
        self.members.get(node)
    }
}

impl Registry {
    /// The view that follows `before`.
    pub(crate) fn catalogue(&self, before: &Catalogue, now_s: u64) -> Catalogue {
        let mut members = BTreeMap::new();
        let mut services: BTreeMap<ServiceName, Vec<Arc<Instance>>> = BTreeMap::new();
        for entry in self.table().entries.values() {
            let member = Arc::new(member(entry, now_s));
            if member.state != State::Left {
                for service in entry
                    .manifest
                    .services
                    .iter()
                    .filter(|service| entry.proves(service, now_s))
                {
                    let instance = instance(&member, service);
                    services
                        .entry(service.name.clone())
                        .or_default()
                        .push(instance);
                }
            }
            members.insert(member.name.clone(), member);
        }
        services.values_mut().for_each(drop_dead);
        services.retain(|_, instances| !instances.is_empty());
        for instances in services.values_mut() {
            instances
                .iter_mut()
                .for_each(|instance| keep_if_same(instance, before));
        }
        Catalogue {
            version: before.version + 1,
            local: before.local.clone(),
            built_at: Instant::now(),
            members,
            services,
        }
    }
}

impl Entry {
    /// Whether the node may offer a service it announces.
    fn proves(&self, service: &Service, now_s: u64) -> bool {
        self.vetted.node_valid(now_s) && self.vetted.service_valid(&service.name, now_s)
    }
}

fn member(entry: &Entry, now_s: u64) -> Member {
    let manifest = &entry.manifest;
    let unproven = manifest
        .services
        .iter()
        .filter(|service| !entry.proves(service, now_s));
    Member {
        name: entry.vetted.name.clone(),
        identity: entry.vetted.node.identity.clone(),
        addrs: manifest.addrs.clone(),
        zone: manifest.zone.as_str().into(),
        cell: manifest.cell,
        state: manifest.state,
        caps: Caps(manifest.caps),
        generation: manifest.generation,
        sequence: entry.changed.1,
        liveness: entry.pulse.liveness(),
        heard_at: entry.changed.0,
        liveness_at: entry.pulse.since(),
        calls: manifest.calls.clone(),
        unproven: unproven.map(|service| service.name.clone()).collect(),
        not_after: entry.vetted.node.not_after,
        documents: manifest.docs,
        documents_out_of_force: manifest.docs_out_of_force,
    }
}

fn instance(member: &Member, service: &Service) -> Arc<Instance> {
    Arc::new(Instance {
        node: member.name.clone(),
        service: service.name.clone(),
        protocol: service.protocol.as_str().into(),
        labels: service.labels.clone(),
        weight: if member.state == State::Draining {
            0
        } else {
            service.weight
        },
        healthy: service.healthy,
        addr: member.addrs[0],
        zone: member.zone.clone(),
        liveness: member.liveness,
        changed_at: Instant::now(),
    })
}

/// Drops the instances of dead nodes, unless they are more than half: then more likely it is us who are cut off, and a suspect
/// instance is better than none.
fn drop_dead(instances: &mut Vec<Arc<Instance>>) {
    let dead = instances
        .iter()
        .filter(|instance| instance.liveness == Liveness::Dead)
        .count();
    if 2 * dead <= instances.len() {
        instances.retain(|instance| instance.liveness != Liveness::Dead);
        return;
    }
    for instance in instances
        .iter_mut()
        .filter(|instance| instance.liveness == Liveness::Dead)
    {
        Arc::make_mut(instance).liveness = Liveness::Suspect;
    }
}

/// Takes the instance of the snapshot before where nothing changed but its date.
fn keep_if_same(instance: &mut Arc<Instance>, before: &Catalogue) {
    let old = before
        .instances(instance.service.as_str())
        .iter()
        .find(|old| old.node == instance.node);
    if let Some(old) = old {
        let dated = Instance {
            changed_at: old.changed_at,
            ..Instance::clone(instance)
        };
        if dated == **old {
            *instance = old.clone();
        }
    }
}
