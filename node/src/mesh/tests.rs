//! The suite of gossip, over QUIC with certificates of the real CA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starling_gossip::testing::{Network, Port, suite};
use starling_gossip::{
    Caps, Clock, Labels, Local, LocalService, Membership, NodeName, Settings, Signer, State,
};
use starling_transport::{
    Courier, Endpoint, HostHash, Identities, IdentitySet, Options, SpiffeId, Svid, TrustBundle,
    TrustDomain,
};

use super::{BundleVerifier, QuicCarrier, SvidSigner};
use crate::ca::{self, Authority, LIFETIME, RootKey, Terms};
use crate::state::{StateDir, TRUST};

/// Loopback; each node has an endpoint of its own.
struct Loopback {
    authority: Authority,
    trust: TrustBundle,
    trust_domain: TrustDomain,
    state_dir: tempfile::TempDir,
}

impl Loopback {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::create(&parent.path().join("state")).unwrap();
        let trust_domain = TrustDomain::parse("test.example").unwrap();
        let authority = Authority::init(&state, &trust_domain, &"n1".parse().unwrap()).unwrap();
        let trust =
            TrustBundle::from_pem(trust_domain.clone(), &state.read(TRUST).unwrap()).unwrap();
        Self {
            authority,
            trust,
            trust_domain,
            state_dir: parent,
        }
    }

    fn svid(&self, id: &SpiffeId) -> Svid {
        let issued = self.authority.issue(id, Duration::from_secs(3600)).unwrap();
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    fn identities(&self, id: &SpiffeId) -> Arc<Identities> {
        let (trust, node) = (self.trust.clone(), self.svid(id));
        Identities::new(IdentitySet {
            trust,
            node,
            services: BTreeMap::new(),
        })
    }
}

#[async_trait::async_trait]
impl Network for Loopback {
    fn trust_domain(&self) -> &str {
        self.trust_domain.as_str()
    }

    async fn port(&self, name: &str) -> Port {
        let id = SpiffeId::node(&self.trust_domain, name).unwrap();
        let identities = self.identities(&id);
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            reset_key: [1; 64],
            streams_per_peer: 64,
            connections_max: 64,
        };
        let endpoint = Endpoint::bind(&options, identities.clone()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let courier = Courier::new(endpoint.clone(), id.clone());
        let adopter = courier.clone();
        tokio::spawn(async move {
            while let Some(session) = endpoint.accept().await {
                adopter.adopt(session);
            }
        });
        Port {
            name: name.parse().unwrap(),
            addr,
            carrier: Arc::new(QuicCarrier(courier)),
            signer: SvidSigner::new(identities.clone(), id),
            verifier: Arc::new(BundleVerifier::new(identities)),
        }
    }

    /// Proved by a set that holds nothing else, as the signer does not care whose set it is.
    fn service(&self, name: &str) -> Arc<dyn Signer> {
        let id = SpiffeId::service(&self.trust_domain, name).unwrap();
        SvidSigner::new(self.identities(&id), id)
    }

    fn sign_as_root(&self, message: &[u8]) -> Vec<u8> {
        let state = StateDir::open(&self.state_dir.path().join("state")).unwrap();
        RootKey::load(&state).unwrap().sign(message).unwrap()
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(200)
    }
}

/// 128 services with the longest names, each with the longest line, signed by the issuers of 32 hosts.
#[tokio::test]
async fn the_largest_node_fits_its_record_and_others_learn_it() {
    let net = Loopback::new();
    let root = StateDir::open(&net.state_dir.path().join("state")).unwrap();
    let long = |letter: char, n: usize| format!("{n:02}{}", letter.to_string().repeat(61));
    let issuers: Vec<_> = (0..32)
        .map(|n| {
            let out = net.state_dir.path().join(format!("issuer{n}"));
            let out = StateDir::create(&out).unwrap();
            let host = NodeName::parse(&long('h', n)).unwrap();
            Authority::add_issuer(&root, &out, &host).unwrap()
        })
        .collect();
    let host = long('h', 99);
    let svid = |id: &SpiffeId, issuer: &Authority| {
        let mut line = ca::new_line(SystemTime::now()).unwrap();
        for n in 0..32 {
            line.signers
                .add(HostHash::of(&long('h', n)), SystemTime::now());
        }
        let terms = Terms {
            host: Some(&host),
            lifetime: LIFETIME,
            line,
        };
        let issued = issuer.issue_on(id, &terms).unwrap();
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    };
    let node = SpiffeId::node(&net.trust_domain, &host).unwrap();
    let mut services = BTreeMap::new();
    for n in 0..128 {
        let id =
            SpiffeId::service(&net.trust_domain, &format!("{n:03}{}", "s".repeat(60))).unwrap();
        services.insert(id.clone(), svid(&id, &issuers[n % 32]));
    }
    let identities = Identities::new(IdentitySet {
        trust: net.trust.clone(),
        node: svid(&node, &issuers[0]),
        services,
    });
    let set = identities.current();
    let local = Local {
        node: NodeName::parse(&host).unwrap(),
        signer: SvidSigner::new(identities.clone(), node),
        addrs: vec![([127, 0, 0, 1], 9).into()],
        zone: String::new(),
        cell: 0,
        state: State::Serving,
        caps: Caps::default(),
        services: set
            .services
            .keys()
            .map(|id| LocalService {
                name: id.service_name().unwrap().parse().unwrap(),
                protocol: "http".into(),
                labels: Labels::default(),
                weight: 1,
                healthy: true,
                signer: SvidSigner::new(identities.clone(), id.clone()),
            })
            .collect(),
        calls: Vec::new(),
    };
    let (port, other) = (net.port(&host).await, net.port("n1").await);
    let local = Local {
        addrs: vec![port.addr],
        ..local
    };
    let receiving = Local {
        node: other.name,
        signer: other.signer,
        addrs: vec![other.addr],
        services: Vec::new(),
        ..local.clone()
    };
    let settings = Settings::new(net.trust_domain.as_str());
    let seeded = Settings {
        seeds: vec![port.addr.to_string()],
        ..settings.clone()
    };
    let verifier = Arc::new(BundleVerifier::new(identities));
    let sender = Membership::start(settings, port.carrier, verifier, local).unwrap();
    let receiver = Membership::start(seeded, other.carrier, other.verifier, receiving).unwrap();
    let mut changes = receiver.changes();
    let arrived = async {
        loop {
            let catalogue = receiver.catalogue();
            let services = catalogue.services.values();
            if services.filter(|all| all.len() == 1).count() == 128 {
                break;
            }
            changes.changed().await.unwrap();
        }
    };
    let arrived = tokio::time::timeout(Duration::from_secs(20), arrived).await;
    arrived.expect("the other node learns all services");
    sender.close().await;
    receiver.close().await;
}

#[tokio::test]
async fn gossip_over_quic_shows_what_it_shows_in_memory() {
    suite::run(&Loopback::new()).await;
}
