//! What every call on this host reads: snapshots that others swap, and the few things that are shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use starling_gossip::{Catalogue, Membership, NodeName, ServiceName};
use starling_transport::{Identities, Pool, SpiffeId, TrustDomain};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apps::Apps;
use crate::balance::Balancer;
use crate::check::turns::Turns;
use crate::config::{Config, Protocol};
use crate::control::{self, Control};
use crate::guard::Guards;
use crate::issuer::Role;
use crate::memory::Peak;
use crate::mesh::KnownLines;
use crate::plaintext::Plaintext;
use crate::policy::Policy;
use crate::renewal::Trouble;
use crate::route::{Route, Table};
use crate::scrape::Scrape;
use crate::survey::Survey;
use crate::tap::Taps;
use crate::telemetry::edges::Edges;
use crate::telemetry::metrics;
use crate::telemetry::otlp::Place;
use crate::telemetry::series::{Series, Side};
use crate::telemetry::trace::Traces;

/// Shared by all tasks that carry calls.
#[derive(Debug)]
pub struct Host {
    /// This node.
    pub node: NodeName,
    /// Its mesh.
    pub trust_domain: TrustDomain,
    /// Whom it can prove to be.
    pub identities: Arc<Identities>,
    /// What the operator declared; swapped whole by a reload.
    pub config: ArcSwap<Config>,
    /// Who may call what runs here.
    pub policy: Arc<Policy>,
    /// Who still calls without the mesh.
    pub plaintext: Plaintext,
    /// Where calls of local apps go; swapped whole by a reload or a document.
    pub routes: ArcSwap<Table>,
    /// Who else is there.
    pub membership: Membership,
    /// The lines of the certificates that other nodes announce.
    pub lines: Arc<KnownLines>,
    /// Connections to other nodes.
    pub pool: Pool,
    /// What other agents may ask of this one.
    pub control: Control,
    /// How often peers may make this agent look at a path.
    pub looks: Turns,
    /// What this node counts, for whoever asks here or elsewhere.
    pub scrape: Scrape,
    /// Set while this node is an issuer.
    pub issuer: ArcSwapOption<Role>,
    /// Set while a certificate of this node is due and could not be renewed: of those, the first to end.
    pub renewal_trouble: ArcSwapOption<Trouble>,
    /// Whether the files of the configuration changed since it was read, and cannot be.
    pub is_config_stale: AtomicBool,
    /// Connections to local apps.
    pub apps: Apps,
    /// Requests that may wait for an instance.
    pub pending: Arc<Semaphore>,
    /// What keeps calls within bounds.
    pub guards: Guards,
    /// Connections of local apps that may be open.
    pub connections: Arc<Semaphore>,
    connections_max: usize,
    /// How many of them were open at a time.
    pub(crate) peak: Peak,
    /// The last hour of calls.
    pub edges: Arc<Edges>,
    /// What other nodes say of theirs, while somebody looks.
    pub survey: Survey,
    /// Who looks at calls of this host.
    pub taps: Arc<Taps>,
    /// Copies of requests that may be under way.
    pub mirrors: Arc<Semaphore>,
    /// Where spans go.
    pub traces: Traces,
    /// Cancelled when no new call may begin.
    pub drain: CancellationToken,
    /// Cancelled when what is left of the calls is cut off.
    pub stop: CancellationToken,
    /// The tasks that carry calls.
    pub tasks: TaskTracker,
    balancers: Mutex<HashMap<ServiceName, Arc<Balancer>>>,
    series: Mutex<BTreeMap<SeriesKey, Arc<Series>>>,
}

type SeriesKey = (&'static str, String, String, &'static str);

/// The parts that are made before the host.
#[derive(Debug)]
pub struct Parts {
    /// See [`Host::node`].
    pub node: NodeName,
    /// See [`Host::identities`].
    pub identities: Arc<Identities>,
    /// See [`Host::config`].
    pub config: Config,
    /// See [`Host::membership`].
    pub membership: Membership,
    /// See [`Host::lines`].
    pub lines: Arc<KnownLines>,
    /// See [`Host::pool`].
    pub pool: Pool,
    /// See [`Host::control`].
    pub control: Control,
    /// See [`Host::scrape`].
    pub scrape: Scrape,
}

/// Counts a panic that unwinds through it. Held by a task, whose end by panic nobody else would notice.
#[derive(Debug)]
pub struct PanicCount(pub &'static str);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::task_panicked(self.0);
        }
    }
}

impl Host {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let limits = &parts.config.limits;
        let trust_domain = parts.identities.current().trust.trust_domain().clone();
        Arc::new(Self {
            policy: Policy::new(trust_domain.clone(), &parts.config),
            plaintext: Plaintext::default(),
            traces: Traces::new(Place {
                node: parts.node.clone(),
                trust_domain: trust_domain.clone(),
            }),
            trust_domain,
            apps: Apps::new(limits.connect, limits.header_bytes),
            pending: Arc::new(Semaphore::new(limits.pending as usize)),
            guards: Guards::default(),
            connections: Arc::new(Semaphore::new(limits.connections as usize)),
            connections_max: limits.connections as usize,
            peak: Peak::default(),
            node: parts.node,
            identities: parts.identities,
            membership: parts.membership,
            lines: parts.lines,
            pool: parts.pool,
            control: parts.control,
            scrape: parts.scrape,
            routes: ArcSwap::from_pointee(Table::default().with_local(&parts.config.routes)),
            edges: Arc::default(),
            survey: Survey::default(),
            taps: Arc::default(),
            mirrors: Arc::new(Semaphore::new(MIRRORS_MAX)),
            looks: Turns::default(),
            issuer: ArcSwapOption::empty(),
            renewal_trouble: ArcSwapOption::empty(),
            is_config_stale: AtomicBool::new(false),
            config: ArcSwap::from_pointee(parts.config),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            balancers: Mutex::default(),
            series: Mutex::default(),
        })
    }

    /// Connections of local apps open now.
    pub fn connections_open(&self) -> usize {
        let most = self.connections_max;
        most.saturating_sub(self.connections.available_permits())
    }

    /// The identity of a service of this mesh.
    pub fn service_id(&self, name: &ServiceName) -> SpiffeId {
        SpiffeId::service(&self.trust_domain, name.as_str())
            .expect("a service name is a valid path segment of a SPIFFE ID")
    }

    /// Asks other agents.
    pub fn control(self: &Arc<Self>) -> control::Client<'_> {
        control::Client(self)
    }

    /// What is known of the instances of `service`; kept for as long as the agent runs.
    pub fn balancer(&self, service: &ServiceName) -> Arc<Balancer> {
        let mut balancers = self
            .balancers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(balancer) = balancers.get(service) {
            return balancer.clone();
        }
        let config = self.config.load();
        let balancer = Balancer::new(&config.zone, config.limits.streams_per_peer);
        balancer.reconcile(
            self.membership.catalogue().instances(service.as_str()),
            Instant::now(),
        );
        balancers.insert(service.clone(), balancer.clone());
        balancer
    }

    /// The balancers in use, by service.
    pub fn balancers(&self) -> Vec<(ServiceName, Arc<Balancer>)> {
        let balancers = self
            .balancers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        balancers
            .iter()
            .map(|(name, balancer)| (name.clone(), balancer.clone()))
            .collect()
    }

    /// The metrics of one caller and callee. Callers that are no service of ours share one name, so that strangers
    /// cannot make series.
    pub fn series(
        &self,
        side: Side,
        caller: &str,
        callee: &str,
        protocol: Protocol,
    ) -> Arc<Series> {
        let key = (
            side.as_str(),
            caller.to_owned(),
            callee.to_owned(),
            protocol.as_str(),
        );
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.get(&key) {
            return known.clone();
        }
        let edge = self.edges.live(side, caller, callee, protocol);
        let new = Series::tapped(side, caller, callee, protocol, edge, self.taps.clone());
        // Past the bound it is made for this connection alone, and counts as `other`.
        if series.len() < metrics::SERIES_MAX {
            series.insert(key, new.clone());
        }
        new
    }

    /// Runs `call` as a task that is waited for at the end, and cut off when the grace is over.
    pub fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        // Boxed once: unboxed, the task would hold room for three of it, and each wrapper move all of it.
        let call = Box::pin(call);
        self.tasks.spawn(async move {
            let _counted = PanicCount("call");
            stop.run_until_cancelled_owned(call).await;
        });
    }

    /// Puts this host's own routes in force.
    pub fn take_local_routes(&self, routes: &[Route]) {
        self.routes.rcu(|table| table.with_local(routes));
    }

    /// Puts the mesh's routes in force, all of them.
    pub fn take_document_routes(&self, routes: &[Arc<Route>]) {
        self.routes.rcu(|table| table.with_documents(routes));
    }

    /// Keeps the balancers on the newest catalogue. Ends with the membership.
    pub async fn follow_catalogue(self: Arc<Self>) {
        let mut changes = self.membership.changes();
        while changes.changed().await.is_ok() {
            let catalogue: Arc<Catalogue> = self.membership.catalogue();
            let mut keyed = Vec::new();
            for (service, balancer) in self.balancers() {
                balancer.reconcile(catalogue.instances(service.as_str()), Instant::now());
                keyed.extend(balancer.has_keys().then_some(balancer));
            }
            replace_keys(keyed).await;
        }
    }
}

/// Copies of requests under way at a time: more would be a load of its own. Each holds what its callee has not taken yet
/// of the body, a few hundred KiB at most.
const MIRRORS_MAX: usize = 64;
/// Makes tables of keys beside the tasks that carry calls.
async fn replace_keys(balancers: Vec<Arc<Balancer>>) {
    if balancers.is_empty() {
        return;
    }
    let work = move || balancers.iter().for_each(|one| one.replace_keys());
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "keys keep their old places");
    }
}
