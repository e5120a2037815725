use std::collections::BTreeMap;
use std::net::SocketAddr;

use starling_gossip::{Caps, Local, Membership, NodeName, Settings, State};
use starling_transport::{
    Courier, Endpoint, Identities, IdentitySet, Options, Pool, Svid, TrustBundle, TrustDomain, h3,
};
use tokio::task::JoinSet;

use super::*;
use crate::ca::{Authority, LIFETIME};
use crate::config::Config;
use crate::host::Parts;
use crate::mesh::{BundleVerifier, QuicCarrier, SvidSigner};
use crate::state::{StateDir, TRUST};

/// One agent's insides, without what faces apps.
struct Agent {
    host: Arc<Host>,
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Ca(Authority, TrustBundle, TrustDomain);

impl Ca {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("test.example").unwrap();
        let authority = Authority::init(&state, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        let trust = TrustBundle::from_pem(domain.clone(), &state.read(TRUST).unwrap()).unwrap();
        Self(authority, trust, domain)
    }

    fn svid(&self, id: &SpiffeId) -> Svid {
        let issued = self.0.issue(id, LIFETIME).unwrap();
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    fn agent(&self, name: &str, service: &str, seeds: &[SocketAddr], control: Control) -> Agent {
        let node = SpiffeId::node(&self.2, name).unwrap();
        let service = SpiffeId::service(&self.2, service).unwrap();
        let identities = Identities::new(IdentitySet {
            trust: self.1.clone(),
            node: self.svid(&node),
            services: BTreeMap::from([(service.clone(), self.svid(&service))]),
        });
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            reset_key: [7; 64],
            streams_per_peer: 100,
            connections_max: 100,
        };
        let endpoint = Endpoint::bind(&options, identities.clone()).unwrap();
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
            ..Settings::new(self.2.as_str())
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
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(crate::agent::take_sessions(
            host.clone(),
            endpoint,
            courier,
            limits,
        ));
        Agent {
            host,
            addr,
            _tasks: tasks,
        }
    }
}

async fn greet(host: Arc<Host>, peer: Leaf, name: String) -> Result<String, Refused> {
    match name.as_str() {
        "nobody" => Err(Refused::new(StatusCode::CONFLICT, "absent", "not\nhere")),
        "all" => Ok("x".repeat(BODY_BYTES_MAX)),
        _ => Ok(format!("{name} from {} at {}", peer.id, host.node)),
    }
}

fn control() -> Control {
    Control::new(vec![
        Handler::new("/v1/node", Who::Node, greet),
        Handler::new("/v1/anyone", Who::Anyone, greet),
    ])
}

async fn two() -> (Agent, Agent) {
    let ca = Ca::new();
    let a = ca.agent("a", "web", &[], control());
    let b = ca.agent("b", "orders", &[a.addr], control());
    let mut changes = a.host.membership.changes();
    let known = async {
        while a.host.membership.catalogue().member("b").is_none() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known)
        .await
        .unwrap();
    (a, b)
}

#[tokio::test]
async fn a_node_is_asked_as_a_node_and_as_a_service() {
    let (a, _b) = two().await;
    let (control, b) = (a.host.control(), NodeName::parse("b").unwrap());
    let answer: String = control.ask(&b, "/v1/node", &"hello").await.unwrap();
    assert_eq!(answer, "hello from spiffe://test.example/node/a at b");
    let web = SpiffeId::parse("spiffe://test.example/svc/web").unwrap();
    let answer: String = control
        .ask_as(&web, &b, "/v1/anyone", &"hello")
        .await
        .unwrap();
    assert_eq!(answer, "hello from spiffe://test.example/svc/web at b");
    let itself: String = control
        .ask(&a.host.node, "/v1/node", &"hello")
        .await
        .unwrap();
    assert_eq!(itself, "hello from spiffe://test.example/node/a at a");
}

#[tokio::test]
async fn what_is_not_answered_says_why() {
    let (a, _b) = two().await;
    let (control, b) = (a.host.control(), NodeName::parse("b").unwrap());
    let web = SpiffeId::parse("spiffe://test.example/svc/web").unwrap();
    let reason = |asked: Result<String, ControlError>| {
        let error = asked.unwrap_err();
        let refused = error.refused().unwrap_or_else(|| panic!("{error}"));
        (refused.status().as_u16(), refused.reason.clone())
    };
    let asked = control.ask_as(&web, &b, "/v1/node", &"hello").await;
    assert_eq!(reason(asked), (404, "unknown_question".to_owned()));
    let asked = control.ask(&b, "/v1/nothing", &"hello").await;
    assert_eq!(reason(asked), (404, "unknown_question".to_owned()));
    let asked = control.ask(&b, "/v1/node", &7).await;
    assert_eq!(reason(asked), (400, "bad_question".to_owned()));
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    let asked = control.ask(&b, "/v1/node", &long).await;
    assert_eq!(reason(asked), (400, "bad_question".to_owned()));
    let asked = control.ask(&b, "/v1/node", &"all").await;
    assert_eq!(reason(asked), (500, "internal".to_owned()));
    let asked: Result<String, _> = control.ask(&b, "/v1/node", &"nobody").await;
    assert_eq!(
        asked.unwrap_err().to_string(),
        "node `b` refused (absent): not here"
    );
    let nobody = NodeName::parse("c").unwrap();
    let asked: Result<String, _> = control.ask(&nobody, "/v1/node", &"hello").await;
    assert!(matches!(asked, Err(ControlError::UnknownNode(_))));
}

#[tokio::test]
async fn more_questions_than_there_is_room_for_are_turned_away() {
    let (a, b) = two().await;
    let held = b.host.control.under_way.acquire_many(64).await.unwrap();
    let name = NodeName::parse("b").unwrap();
    let asked: Result<String, _> = a.host.control().ask(&name, "/v1/node", &"hello").await;
    assert_eq!(asked.unwrap_err().refused().unwrap().reason, "busy");
    drop(held);
    let asked: Result<String, _> = a.host.control().ask(&name, "/v1/node", &"hello").await;
    asked.unwrap();
}

#[tokio::test]
async fn a_question_that_is_not_post_is_refused() {
    let (a, _b) = two().await;
    let request = Request::get("/v1/node").body(full(Bytes::new())).unwrap();
    let peer = a.host.identities.current().node.leaf().clone();
    assert_eq!(serve(&a.host, &peer, request).await.status(), 405);
}
