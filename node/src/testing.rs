//! What the tests of several modules share: agents in one process, without files and without what faces apps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starling_gossip::{Caps, Local, Membership, NodeName, Settings, State};
use starling_transport::{
    Courier, Endpoint, Identities, IdentitySet, KeyHash, Leaf, Line, LineName, Options, Pool,
    Signers, SpiffeId, Svid, TrustBundle, TrustDomain, h3,
};
use tokio::task::JoinSet;

use crate::ca::{self, Authority, BACKDATED, LIFETIME, Terms};
use crate::config::Config;
use crate::control::Control;
use crate::host::{Host, Parts};
use crate::mesh::{BundleVerifier, KnownLines, QuicCarrier, SvidSigner};
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

    pub(crate) fn svid(&self, id: &SpiffeId) -> Svid {
        self.issued(id, None)
    }

    /// One that lives `life`, of which `age` is over.
    pub(crate) fn aged(&self, id: &SpiffeId, life: Duration, age: Duration) -> Svid {
        let issued = self.authority.issue_aged(id, life, age);
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    /// The certificate of a service on a host.
    pub(crate) fn service_on(&self, service: &str, host: &str) -> Svid {
        let id = SpiffeId::service(&self.domain, service).unwrap();
        self.issued(&id, Some(host))
    }

    fn issued(&self, id: &SpiffeId, host: Option<&str>) -> Svid {
        let terms = Terms {
            host,
            lifetime: LIFETIME,
            line: ca::new_line(SystemTime::now()).unwrap(),
        };
        let issued = self.authority.issue_on(id, &terms).unwrap();
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
            lines: Arc::default(),
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
        let name = NodeName::parse(name).unwrap();
        let local = local(&name, &identities, addr, Caps::default());
        let settings = Settings {
            seeds: seeds.iter().map(ToString::to_string).collect(),
            ..Settings::new(self.domain.as_str())
        };
        let lines = Arc::<KnownLines>::default();
        let membership = Membership::start(
            settings,
            Arc::new(QuicCarrier(courier.clone())),
            Arc::new(BundleVerifier::noting(identities.clone(), lines.clone())),
            local,
        );
        let limits = h3::Limits::default();
        let host = Host::new(Parts {
            node: name,
            identities,
            config: Config::default(),
            membership: membership.unwrap(),
            lines,
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

fn local(name: &NodeName, identities: &Arc<Identities>, addr: SocketAddr, caps: Caps) -> Local {
    let node = identities.current().node.id().clone();
    Local {
        node: name.clone(),
        signer: SvidSigner::new(identities.clone(), node),
        addrs: vec![addr],
        zone: String::new(),
        cell: 0,
        state: State::Serving,
        caps,
        services: Vec::new(),
        calls: Vec::new(),
    }
}

/// A leaf of node `n2` that lives `life`, and when it was signed. `nth` is the last byte of its serial number and of the name
/// of its line.
pub(crate) fn leaf(life: Duration, nth: u8) -> (Leaf, SystemTime) {
    let signed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut name = [7; 16];
    name[15] = nth;
    let line = Line {
        name: LineName(name),
        begins: signed,
        first: signed,
        signers: Signers::default(),
    };
    let leaf = Leaf {
        id: SpiffeId::parse("spiffe://test.example/node/n2").unwrap(),
        host: Some("n2".to_owned()),
        not_before: signed - BACKDATED,
        not_after: signed + life,
        serial: vec![nth],
        public_key: vec![nth],
        key_hash: KeyHash::of(&[nth]),
        line: Some(line),
        begins: signed,
        signers: Signers::default(),
    };
    (leaf, signed)
}

impl Agent {
    /// Tells the mesh that this node is an issuer.
    pub(crate) fn announce_issuer(&self) {
        let host = &self.host;
        let local = local(&host.node, &host.identities, self.addr, Caps::ISSUER);
        host.membership.set_local(local).unwrap();
    }

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
