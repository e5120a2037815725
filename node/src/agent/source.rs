//! What the agent tells of itself through the admin doors.

mod documents;
mod operators;
mod routes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use starling_gossip::{Caps, Catalogue, DocumentKey, Instance, Liveness, Member, NodeName, State};
use starling_transport::{HostHash, Identities, Refusal, RefusedByPeer, Svid};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::means::Means;
use super::{explain, invitations, lines, policies};
use crate::admin::{Source, view};
use crate::balance;
use crate::check;
use crate::config::{Mode, Upstream};
use crate::documents::Keeper;
use crate::host::Host;
use crate::issuer;
use crate::mesh::unix_s;
use crate::pass;
use crate::policy::explain::Question;
use crate::renewal::Trouble;
use crate::scrape;
use crate::survey;
use crate::tap::{Ask, Tap};
use crate::telemetry::Format;
use crate::telemetry::edges::Window;

/// What only the agent as a whole knows.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) is_ready: AtomicBool,
    pub(super) is_draining: AtomicBool,
    /// Cancelled when an operator wants this node to leave.
    pub(super) leaving: CancellationToken,
    pub(super) directory: PathBuf,
    advertise: SocketAddr,
    began: Instant,
    config: Mutex<ConfigFacts>,
    /// What the configuration in force goes without.
    pub(super) means: Means,
}

#[derive(Debug)]
struct ConfigFacts {
    taken: Instant,
    last_error: Option<String>,
}

impl Facts {
    pub(super) fn new(directory: PathBuf, advertise: SocketAddr) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            is_ready: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            leaving: CancellationToken::new(),
            directory,
            advertise,
            began: now,
            config: Mutex::new(ConfigFacts {
                taken: now,
                last_error: None,
            }),
            means: Means::default(),
        })
    }

    /// The configuration in force is a new one.
    pub(super) fn config_taken(&self) {
        *self.config() = ConfigFacts {
            taken: Instant::now(),
            last_error: None,
        };
    }

    /// The files of the configuration could not be read; all of the old one stays.
    pub(super) fn set_error(&self, error: String) {
        self.config().last_error = Some(error);
    }

    /// Why the files were not taken.
    pub(super) fn config_error(&self) -> Option<String> {
        self.config().last_error.clone()
    }

    fn config(&self) -> MutexGuard<'_, ConfigFacts> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers from the snapshots in force.
#[derive(Debug)]
pub(super) struct View {
    host: Arc<Host>,
    facts: Arc<Facts>,
    keeper: Arc<Keeper>,
}

impl View {
    pub(super) fn new(host: &Arc<Host>, facts: &Arc<Facts>, keeper: &Arc<Keeper>) -> Arc<Self> {
        Arc::new(Self {
            host: host.clone(),
            facts: facts.clone(),
            keeper: keeper.clone(),
        })
    }

    fn upstream(&self, upstream: &Upstream) -> view::Upstream {
        let catalogue = self.host.membership.catalogue();
        let instances = catalogue.instances(upstream.service.as_str());
        let announced = instances
            .first()
            .map(|instance| instance.protocol.to_string());
        let protocol = upstream
            .protocol
            .map(|protocol| protocol.as_str().to_owned())
            .or(announced);
        view::Upstream {
            service: upstream.service.to_string(),
            listen: upstream.listen.to_string(),
            caller: upstream.caller.to_string(),
            protocol: protocol.unwrap_or_default(),
            usable: instances
                .iter()
                .filter(|instance| is_usable(instance))
                .count(),
            instances: instances.len(),
            declared: upstream.declared.to_string(),
        }
    }
}

impl Source for View {
    fn status(&self) -> view::Status {
        let (host, facts) = (&self.host, &self.facts);
        let config = host.config.load();
        let set = host.identities.current();
        let catalogue = host.membership.catalogue();
        let is_draining = facts.is_draining.load(Ordering::Relaxed);
        let known = facts.config();
        // Once for all certificates: a host may have 129 and know 400 hosts.
        let hosts = catalogue.members.keys().map(|name| name.as_str());
        let hosts: BTreeMap<_, _> = hosts.map(|name| (HostHash::of(name), name)).collect();
        view::Status {
            node: host.node.to_string(),
            identity: set.node.id().to_string(),
            trust_domain: host.trust_domain.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: facts.began.elapsed().as_secs(),
            state: if is_draining { "draining" } else { "serving" }.to_owned(),
            listen: config.listen.to_string(),
            advertise: facts.advertise.to_string(),
            zone: config.zone.clone(),
            svids: std::iter::once(&set.node)
                .chain(set.services.values())
                .map(|held| svid(held, &host.identities, &hosts))
                .collect(),
            renewal: host.renewal_trouble.load().as_deref().map(renewal),
            issuer: host.issuer.load().as_deref().map(|role| view::Issuer {
                join: config.join_listen().to_string(),
                seconds_left: seconds_until(role.authority().not_after()),
            }),
            gossip: gossip(&catalogue),
            refused_by_peer: host.identities.refused_by_peer().as_deref().map(refused),
            documents: self.count_documents(),
            services: config
                .services
                .iter()
                .map(|service| declared(host, &catalogue, service))
                .collect(),
            upstreams: config
                .upstreams
                .iter()
                .map(|upstream| self.upstream(upstream))
                .collect(),
            plaintext: plaintext(host),
            dashboard: config
                .admin
                .dashboard
                .then(|| format!("http://{}/", config.admin.listen)),
            config: view::Config {
                directory: facts.directory.display().to_string(),
                age_s: known.taken.elapsed().as_secs(),
                last_error: known.last_error.clone(),
                absent: facts.means.absent(),
            },
        }
    }

    fn nodes(&self) -> Vec<view::Node> {
        let catalogue = self.host.membership.catalogue();
        catalogue
            .members
            .values()
            .map(|member| node(&catalogue, member))
            .collect()
    }

    fn policy(&self, service: String) -> BoxFuture<'static, Result<Vec<view::NodePolicy>, String>> {
        let host = self.host.clone();
        Box::pin(async move { policies::of(&host, &service).await })
    }

    fn services(&self) -> Vec<view::Service> {
        let catalogue = self.host.membership.catalogue();
        let balancers = self.host.balancers();
        let now = Instant::now();
        catalogue
            .services
            .iter()
            .map(|(name, instances)| {
                let seen = balancers.iter().find(|(service, _)| service == name);
                let seen = seen
                    .map(|(_, balancer)| balancer.view(now))
                    .unwrap_or_default();
                let instances = instances.iter().map(|one| instance(one, &seen)).collect();
                view::Service {
                    service: name.to_string(),
                    instances,
                }
            })
            .collect()
    }

    fn explain(
        &self,
        question: Question,
        from: Option<String>,
    ) -> BoxFuture<'static, Result<view::Explained, String>> {
        let host = self.host.clone();
        Box::pin(async move {
            let from = from.map(|name| NodeName::parse(&name)).transpose();
            let from = from.map_err(|error| format!("not the name of a node: {error}"))?;
            explain::explained(host, question, from).await
        })
    }

    fn check(&self) -> BoxFuture<'static, check::agent::Agent> {
        let gathered = super::check::facts(self.host.clone(), self.facts.clone());
        let documents = self.check_documents();
        Box::pin(async move {
            check::agent::Agent {
                documents,
                ..gathered.await
            }
        })
    }

    fn sees(&self, pass: &str) -> Result<view::Seer, view::Refused> {
        let admitted = pass::admit(&self.host, pass, &self.host.node, pass::Wish::See);
        let admitted = admitted.map_err(|refusal| view::Refused {
            status: 403,
            error: refusal.to_string(),
            hint: Some(refusal.hint().to_owned()),
        })?;
        let until = admitted.pass.not_after;
        Ok(view::Seer {
            operator: admitted.operator.to_string(),
            pass: admitted.pass.serial.to_string(),
            seconds_left: until.saturating_sub(unix_s(SystemTime::now())),
        })
    }

    fn tap(&self, ask: Ask) -> Result<Tap, view::Refused> {
        Tap::open(&self.host, ask)
    }

    fn routes(&self) -> Vec<view::Route> {
        routes::all(&self.host)
    }

    fn edges(&self, window: Window) -> view::Edges {
        survey::watched(&self.host, window)
    }

    fn survey(&self, window: Window) -> BoxFuture<'static, view::Edges> {
        Box::pin(survey::asked(self.host.clone(), window))
    }

    fn documents(&self) -> Vec<view::Document> {
        self.list_documents()
    }

    fn document(&self, key: &DocumentKey) -> view::History {
        self.history(key)
    }

    fn operators(&self) -> Vec<view::Operator> {
        self.list_operators()
    }

    fn submit(&self, document: Bytes) -> BoxFuture<'_, Result<view::Receipt, view::Refused>> {
        Box::pin(async move { self.take_document(&document).await })
    }

    fn end_invitations(
        &self,
        name: view::RevokedName,
    ) -> BoxFuture<'static, view::EndedInvitations> {
        Box::pin(invitations::end(self.host.clone(), name))
    }

    fn lines(&self, question: view::LineQuestion) -> BoxFuture<'static, view::LineAnswer> {
        Box::pin(lines::find(self.host.clone(), question))
    }

    fn good_from(&self, invited: &view::Invited) -> view::GoodFrom {
        issuer::good_from(&self.host, invited)
    }

    fn readers(&self, texts: Vec<view::Unsigned>) -> BoxFuture<'static, Vec<view::Reader>> {
        Box::pin(super::readers::ask_all(self.host.clone(), texts))
    }

    fn leave(&self) -> view::Leaving {
        tracing::info!("asked to leave the mesh");
        self.facts.leaving.cancel();
        view::Leaving {
            within_s: self.host.config.load().limits.drain.as_secs(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.facts.is_ready.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("starting or stopping".to_owned())
        }
    }

    fn metrics(&self, format: Format) -> String {
        scrape::own(&self.host, format)
    }

    fn metrics_of(
        &self,
        node: String,
        format: Format,
    ) -> BoxFuture<'static, Result<String, String>> {
        Box::pin(scrape::of(self.host.clone(), node, format))
    }

    fn scraped(&self, address: &str) -> Vec<view::Scraped> {
        scrape::targets(&self.host, address)
    }
}

/// `hosts` are the names of hosts that are known, by what lines name them with.
fn svid(svid: &Svid, identities: &Identities, hosts: &BTreeMap<HostHash, &str>) -> view::Svid {
    let leaf = svid.leaf();
    let signers = leaf
        .signers
        .iter()
        .map(|(signer, _)| match hosts.get(&signer) {
            Some(name) => (*name).to_owned(),
            None => format!("unknown ({signer})"),
        });
    let refusal = identities.judge_own(svid.id()).err();
    let refusal =
        refusal.filter(|refusal| matches!(refusal, Refusal::Revoked | Refusal::RevokedIssuer));
    view::Svid {
        identity: svid.id().to_string(),
        seconds_left: seconds_until(leaf.not_after),
        key: leaf.key_hash.to_string(),
        line: leaf.line.as_ref().map(|line| line.name.to_string()),
        signers: signers.collect(),
        revoked: refusal.map(|refusal| refusal.to_string()),
    }
}

/// Negative once it is over.
fn seconds_until(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::now()) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(over) => -i64::try_from(over.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

pub(super) fn renewal(trouble: &Trouble) -> view::Renewal {
    let since = trouble.since().elapsed();
    view::Renewal {
        identity: trouble.identity().to_owned(),
        failing_s: since.unwrap_or_default().as_secs(),
        error: trouble.error().to_owned(),
    }
}

pub(super) fn refused(refused: &RefusedByPeer) -> view::RefusedByPeer {
    let age = refused.at.elapsed().unwrap_or_default();
    view::RefusedByPeer {
        identity: refused.id.to_string(),
        by: refused.by.to_string(),
        why: refused.why.as_str().to_owned(),
        age_s: age.as_secs(),
    }
}

fn gossip(catalogue: &Catalogue) -> view::Gossip {
    let mut gossip = view::Gossip::default();
    for member in catalogue
        .members
        .values()
        .filter(|member| member.state != State::Left)
    {
        match member.liveness {
            Liveness::Alive => gossip.alive += 1,
            Liveness::Suspect => gossip.suspect += 1,
            Liveness::Dead => gossip.dead += 1,
        }
    }
    gossip
}

fn declared(
    host: &Host,
    catalogue: &Catalogue,
    service: &crate::config::Service,
) -> view::Declared {
    let ours = catalogue
        .instances(service.name.as_str())
        .iter()
        .find(|one| one.node == catalogue.local);
    let healthy = ours.is_some_and(|one| one.healthy);
    let policy = host.policy.current();
    let entry = policy.entry(service.name.as_str());
    let mode = entry.map_or(Mode::Enforce, |entry| entry.mode);
    view::Declared {
        service: service.name.to_string(),
        protocol: service.speaks().to_owned(),
        address: service.address.to_string(),
        allow: service
            .allow
            .iter()
            .map(|caller| caller.who.to_string())
            .collect(),
        mode: mode.to_string(),
        healthy,
        problem: (!healthy).then(|| "its health check does not pass".to_owned()),
        declared: service.declared.to_string(),
    }
}

fn plaintext(host: &Host) -> Vec<view::PlaintextCaller> {
    let seen = host.plaintext.seen().into_iter();
    seen.map(|(service, address, seen)| view::PlaintextCaller {
        service: service.to_string(),
        address: address.to_string(),
        connections: seen.connections,
        age_s: seen.last.elapsed().as_secs(),
    })
    .collect()
}

fn node(catalogue: &Catalogue, member: &Member) -> view::Node {
    let own = catalogue.member(catalogue.local.as_str());
    let services = catalogue.services.iter();
    let services =
        services.filter(|(_, instances)| instances.iter().any(|one| one.node == member.name));
    view::Node {
        node: member.name.to_string(),
        identity: member.identity.to_string(),
        state: state(member.state).to_owned(),
        liveness: liveness(member.liveness).to_owned(),
        addresses: member.addrs.iter().map(ToString::to_string).collect(),
        zone: member.zone.to_string(),
        services: services.map(|(name, _)| name.to_string()).collect(),
        calls: member.calls.iter().map(ToString::to_string).collect(),
        unproven: member.unproven.iter().map(ToString::to_string).collect(),
        age_s: member.heard_at.elapsed().as_secs(),
        liveness_s: member.liveness_at.elapsed().as_secs(),
        seconds_left: seconds_until(UNIX_EPOCH + Duration::from_secs(member.not_after)),
        is_issuer: member.caps.has(Caps::ISSUER),
        documents_out_of_force: member.documents_out_of_force,
        has_same_documents: own.is_some_and(|own| own.documents == member.documents),
        is_self: member.name == catalogue.local,
    }
}

pub(super) fn instance(one: &Arc<Instance>, seen: &[balance::View]) -> view::Instance {
    let seen = seen.iter().find(|view| view.instance.node == one.node);
    view::Instance {
        node: one.node.to_string(),
        protocol: one.protocol.to_string(),
        labels: one.labels.clone(),
        weight: one.weight,
        healthy: one.healthy,
        liveness: liveness(one.liveness).to_owned(),
        ejected_s: seen
            .and_then(|view| view.ejected_for)
            .map(|left| left.as_secs()),
        spared_s: seen
            .and_then(|view| view.spared_for)
            .map(|left| left.as_secs()),
        latency_us: seen
            .and_then(|view| view.latency)
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        in_flight: seen.map(|view| view.in_flight),
        address: one.addr.to_string(),
        zone: one.zone.to_string(),
        age_s: one.changed_at.elapsed().as_secs(),
    }
}

fn is_usable(instance: &Instance) -> bool {
    instance.healthy && instance.liveness == Liveness::Alive
}

fn state(state: State) -> &'static str {
    match state {
        State::Serving => "serving",
        State::Draining => "draining",
        State::Left => "left",
    }
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
    }
}
