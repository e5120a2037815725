//! What the tests of several modules share: agents in one process, without files and without what faces apps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::{Caps, Local, Membership, NodeName, Settings, State};
use starling_transport::{
    Courier, Endpoint, Identities, IdentitySet, Options, Pool, SpiffeId, Svid, TrustBundle,
    TrustDomain, h3,
};
use tokio::task::JoinSet;

use crate::ca::{Authority, LIFETIME};
use crate::config::Config;
use crate::control::Control;
use crate::host::{Host, Parts};
use crate::mesh::{BundleVerifier, QuicCarrier, SvidSigner};
use crate::scrape::Scrape;
use crate::state::{StateDir, TRUST};
use crate::telemetry::Recorder;

/// One agent's insides, without what faces apps.
pub(crate) struct Agent {
    pub(crate) host: Arc<Host>,
    pub(crate) addr: SocketAddr,
    endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

/// The CA of a mesh, in a directory that goes away with it.
pub(crate) struct Ca {
    pub(crate) state: StateDir,
    authority: Authority,
    trust: TrustBundle,
    domain: TrustDomain,
    _dir: tempfile::TempDir,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("test.example").unwrap();
        let authority = Authority::init(&state, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        let trust = TrustBundle::from_pem(domain.clone(), &state.read(TRUST).unwrap()).unwrap();
        Self {
            state,
            authority,
            trust,
            domain,
            _dir: dir,
        }
    }

    fn svid(&self, id: &SpiffeId) -> Svid {
        self.issued(id, None)
    }

    /// The certificate of a service on a host.
    pub(crate) fn service_on(&self, service: &str, host: &str) -> Svid {
        let id = SpiffeId::service(&self.domain, service).unwrap();
        self.issued(&id, Some(host))
    }

    fn issued(&self, id: &SpiffeId, host: Option<&str>) -> Svid {
        let issued = self.authority.issue_for(id, host, LIFETIME).unwrap();
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    /// What a node called `name` with one service can prove.
    pub(crate) fn identities(&self, name: &str, service: &str) -> IdentitySet {
        let node = SpiffeId::node(&self.domain, name).unwrap();
        let service = SpiffeId::service(&self.domain, service).unwrap();
        IdentitySet {
            trust: self.trust.clone(),
            node: self.svid(&node),
            services: BTreeMap::from([(service.clone(), self.svid(&service))]),
        }
    }

    /// A host whose gossip goes over another network than its calls would.
    pub(crate) fn host(
        identities: IdentitySet,
        config: Config,
        membership: Membership,
    ) -> Arc<Host> {
        let name = identities.node.id().node_name().unwrap().to_owned();
        let identities = Identities::new(identities);
        let endpoint = Endpoint::bind(&loopback(), identities.clone()).unwrap();
        Host::new(Parts {
            node: NodeName::parse(&name).unwrap(),
            identities,
            config,
            membership,
            pool: Pool::new(endpoint, h3::Limits::default(), Duration::from_secs(3)),
            control: Control::new(Vec::new()),
            scrape: Scrape::new(Recorder::detached()),
        })
    }

    pub(crate) fn agent(
        &self,
        name: &str,
        service: &str,
        seeds: &[SocketAddr],
        control: Control,
    ) -> Agent {
        let identities = Identities::new(self.identities(name, service));
        let node = identities.current().node.id().clone();
        let endpoint = Endpoint::bind(&loopback(), identities.clone()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let courier = Courier::new(endpoint.clone(), node.clone());
        let local = Local {
            node: NodeName::parse(name).unwrap(),
            signer: SvidSigner::new(identities.clone(), node),
            addrs: vec![addr],
            zone: String::new(),
            cell: 0,
            state: State::Serving,
            caps: Caps::default(),
            services: Vec::new(),
            calls: Vec::new(),
        };
        let settings = Settings {
            seeds: seeds.iter().map(ToString::to_string).collect(),
            ..Settings::new(self.domain.as_str())
        };
        let membership = Membership::start(
            settings,
            Arc::new(QuicCarrier(courier.clone())),
            Arc::new(BundleVerifier(identities.clone())),
            local,
        );
        let limits = h3::Limits::default();
        let host = Host::new(Parts {
            node: NodeName::parse(name).unwrap(),
            identities,
            config: Config::default(),
            membership: membership.unwrap(),
            pool: Pool::new(endpoint.clone(), limits.clone(), Duration::from_secs(3)),
            control,
            scrape: Scrape::new(Recorder::detached()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(crate::agent::take_sessions(
            host.clone(),
            endpoint.clone(),
            courier,
            limits,
        ));
        Agent {
            host,
            addr,
            endpoint,
            _tasks: tasks,
        }
    }
}

impl Agent {
    /// Ends without a word, as a crash would.
    pub(crate) async fn close(&mut self) {
        self.host.membership.close().await;
        self.endpoint.close().await;
    }
}

fn loopback() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        reset_key: [7; 64],
        streams_per_peer: 100,
        connections_max: 100,
    }
}

/// Waits until every agent knows all of them.
pub(crate) async fn all_know_all(agents: &[&Agent]) {
    let known = async {
        for agent in agents {
            let mut changes = agent.host.membership.changes();
            while agent.host.membership.catalogue().members.len() < agents.len() {
                changes.changed().await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known)
        .await
        .expect("agents find each other");
}
