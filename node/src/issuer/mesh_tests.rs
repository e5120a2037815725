//! Three issuers in one mesh, and hosts that come to any of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use starling_gossip::ServiceName;
use starling_transport::join::{IssuerSignature, JoinListener};
use tokio::task::JoinSet;

use super::pass::{Passed, Spent};
use super::signed::{Proof, Redeemed};
use super::*;
use crate::control::{self, Control};
use crate::enrol::{self, JoinFailed};
use crate::host::Host;
use crate::invites::Invite;
use crate::testing::{Agent, Ca, all_know_all};
use crate::token::Token;

struct Issuers {
    ca: Ca,
    agents: Vec<Agent>,
    ports: Vec<SocketAddr>,
    _dirs: Vec<tempfile::TempDir>,
    _tasks: JoinSet<()>,
}

impl Issuers {
    async fn three() -> Self {
        let ca = Ca::new();
        let (mut agents, mut ports, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
        let mut tasks = JoinSet::new();
        for name in ["n1", "n2", "n3"] {
            let seeds: Vec<_> = agents.iter().map(|agent: &Agent| agent.addr).collect();
            let agent = ca.agent(name, "web", &seeds, Control::new(control::handlers()));
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::create(&dir.path().join("state")).unwrap();
            Authority::add_issuer(&ca.state, &state, &NodeName::parse(name).unwrap()).unwrap();
            agent
                .host
                .issuer
                .store(Some(Arc::new(Role::load(&state).unwrap())));
            let listen = ([127, 0, 0, 1], 0).into();
            let listener = JoinListener::bind(listen, agent.host.identities.clone()).unwrap();
            ports.push(listener.local_addr().unwrap());
            tasks.spawn(serve(agent.host.clone(), listener));
            agents.push(agent);
            dirs.push(dir);
        }
        all_know_all(&agents.iter().collect::<Vec<_>>()).await;
        Self {
            ca,
            agents,
            ports,
            _dirs: dirs,
            _tasks: tasks,
        }
    }

    fn host(&self, nth: usize) -> &Arc<Host> {
        &self.agents[nth].host
    }

    /// An invitation of n1.
    fn invite(&self, node: &str) -> Token {
        let role = self.host(0).issuer.load_full().unwrap();
        let home = NodeName::parse("n1").unwrap();
        let root = role.authority().root(&home).unwrap();
        let token = Token {
            trust_domain: role.authority().trust_domain().clone(),
            root_sha256: digest(&SHA256, &root).as_ref().try_into().unwrap(),
            id: InviteId(fastrand::u128(..).to_be_bytes()),
            seed: [7; 32],
            node: NodeName::parse(node).unwrap(),
            services: vec![ServiceName::parse("orders").unwrap()],
            not_after: unix_s(SystemTime::now()) + 600,
            home,
            issuers: self.ports.iter().map(ToString::to_string).collect(),
        };
        Invites(&role.state)
            .add(token.id, &Invite::of(&token, unix_s(SystemTime::now())), 0)
            .unwrap();
        token
    }
}

/// Joins with nothing but a new directory.
async fn join(token: Token) -> Result<(), JoinFailed> {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    let seeds = enrol::join(&token, &state).await?;
    assert!(!seeds.is_empty());
    let set = state.identities().unwrap();
    assert_eq!(set.node.id().node_name(), Some(token.node.as_str()));
    assert!(set.service("orders").is_some());
    Ok(())
}

fn outcome(joined: &Result<(), JoinFailed>) -> Outcome {
    match joined {
        Ok(()) => Outcome::Joined,
        Err(JoinFailed::Turned { turned, .. }) => turned.outcome,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn of_a_hundred_joins_at_once_over_three_issuers_one_gets_in() {
    let mesh = Issuers::three().await;
    let token = mesh.invite("n9");
    let mut joins = JoinSet::new();
    for nth in 0..100 {
        let mut token = token.clone();
        token.issuers.rotate_left(nth % 3);
        token.issuers.truncate(1);
        joins.spawn(join(token));
    }
    let outcomes: Vec<_> = joins.join_all().await.iter().map(outcome).collect();
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(
        (count(Outcome::Joined), count(Outcome::Spent)),
        (1, 99),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn an_issuer_passes_on_and_a_home_that_is_gone_is_said_to_be() {
    let mut mesh = Issuers::three().await;
    let mut token = mesh.invite("n9");
    token.issuers.remove(0);
    join(token.clone()).await.unwrap();
    assert_eq!(outcome(&join(token).await), Outcome::Spent);

    let mut token = mesh.invite("n8");
    token.issuers = vec![mesh.ports[2].to_string()];
    mesh.agents[0].close().await;
    assert_eq!(
        outcome(&join(token.clone()).await),
        Outcome::HomeUnreachable
    );
    let role = mesh.host(2).issuer.load_full().unwrap();
    role.note_spent(&token.home, token.id);
    assert_eq!(outcome(&join(token).await), Outcome::Spent);
}

#[tokio::test]
async fn a_joiner_trusts_nobody_but_the_root_of_its_token() {
    let (mesh, other) = (Issuers::three().await, Issuers::three().await);
    let token = Token {
        issuers: other.ports.iter().map(ToString::to_string).collect(),
        ..mesh.invite("n9")
    };
    let error = join(token).await.unwrap_err();
    assert!(
        error.hint().unwrap().contains("was the mesh set up anew"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_host_joins_again_as_itself_and_as_nobody_else() {
    let mesh = Issuers::three().await;
    let other = Ca::new();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    enrol::join(&mesh.invite("n9"), &state).await.unwrap();
    let first = state.identities().unwrap().node.leaf().serial.clone();
    enrol::join(&mesh.invite("n9"), &state).await.unwrap();
    assert_ne!(state.identities().unwrap().node.leaf().serial, first);
    let error = enrol::join(&mesh.invite("n8"), &state).await.unwrap_err();
    assert!(matches!(error, JoinFailed::OtherNode { .. }), "{error}");
    let trust = other.state.read(crate::state::TRUST).unwrap();
    state.write(crate::state::TRUST, &trust).unwrap();
    let error = enrol::join(&mesh.invite("n9"), &state).await.unwrap_err();
    assert!(matches!(error, JoinFailed::OtherMesh { .. }), "{error}");
    drop(mesh.ca);
}

/// A node of the mesh that is no issuer, and knows the others.
async fn no_issuer(mesh: &Issuers) -> Agent {
    let seeds = [mesh.agents[0].addr];
    let control = Control::new(control::handlers());
    let node = mesh.ca.agent("n4", "web", &seeds, control);
    let mut all: Vec<_> = mesh.agents.iter().collect();
    all.push(&node);
    all_know_all(&all).await;
    node
}

/// The best that a node can do without the key of an intermediate.
fn by_node(host: &Host, message: &[u8]) -> IssuerSignature {
    let node = host.identities.current().node.clone();
    IssuerSignature {
        intermediate: node.chain()[0].clone(),
        signature: node.sign(message).unwrap(),
    }
}

#[tokio::test]
async fn a_node_that_is_no_issuer_ended_a_join_with_its_word() {
    let mesh = Issuers::three().await;
    let hostile = no_issuer(&mesh).await;
    let identities = hostile.host.identities.clone();
    let listener = JoinListener::bind(([127, 0, 0, 1], 0).into(), identities).unwrap();
    let port = listener.local_addr().unwrap();
    let host = hostile.host.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(visitor) = listener.accept().await {
            let reply = Reply::Refused(turned(Outcome::Spent, "a host joined before"));
            let answer = serde_json::to_vec(&reply).unwrap();
            let message = SignedAnswer::message(&visitor.binding, &visitor.request, &answer);
            let signature = by_node(&host, &message);
            visitor.answer(&SignedAnswer { answer, signature }).await;
        }
    });
    let mut token = mesh.invite("n9");
    token.issuers.insert(0, port.to_string());
    join(token.clone()).await.unwrap();
    token.issuers.truncate(1);
    let error = join(token).await.unwrap_err();
    assert!(
        error.hint().unwrap().contains("still an issuer"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_node_that_is_no_issuer_spends_no_invitation_by_passing_on() {
    let mesh = Issuers::three().await;
    let hostile = no_issuer(&mesh).await;
    let token = mesh.invite("n9");
    let requests = ["node/n9", "svc/orders"].map(|name| {
        let id = SpiffeId::parse(&format!("spiffe://test.example/{name}")).unwrap();
        STANDARD.encode(ca::Asking::new(&id).unwrap().request)
    });
    let wish = Wish {
        invite: token.id.to_string(),
        home: "n1".into(),
        node: "n9".into(),
        services: vec!["orders".into()],
        requests: requests.into(),
    };
    let request = serde_json::to_string(&Asked::new(&wish, &token, &[9; 32])).unwrap();
    let (n2, n4) = (mesh.host(1), &hostile.host);
    let ask = async |host: &Arc<Host>, home: &NodeName, proof: IssuerSignature| {
        let passed = Passed {
            request: request.clone(),
            binding: STANDARD.encode([9; 32]),
            from: "10.0.0.9:5".into(),
            proof: Proof::new(&proof),
        };
        let control = host.control();
        control
            .ask_exact::<Redeemed>(home, "/v1/redeem", &passed)
            .await
    };
    let message = |by: &NodeName, home| signed::passed(by, home, &[9; 32], &request);
    let role = n2.issuer.load_full().unwrap();
    let by_issuer = |message: &[u8]| role.authority().sign_message(message).unwrap();
    let [n1, n3] = ["n1", "n3"].map(|name| NodeName::parse(name).unwrap());

    let refused = async |host, home, proof| {
        let error = ask(host, home, proof).await.unwrap_err();
        error.refused().unwrap().reason.clone()
    };
    let own = by_node(n4, &message(&n4.node, &n1));
    assert_eq!(refused(n4, &n1, own).await, "no_issuer");
    // What another issuer signed is for that issuer and one home.
    let stolen = by_issuer(&message(&n2.node, &n1));
    assert_eq!(refused(n4, &n1, stolen.clone()).await, "no_issuer");
    assert_eq!(refused(n2, &n3, stolen.clone()).await, "no_issuer");
    // An issuer that did not make the token has nothing to sign, not even that it does not know it.
    let other_home = by_issuer(&message(&n2.node, &n3));
    assert_eq!(refused(n2, &n3, other_home).await, "bad_question");
    let made_it = mesh.host(0).issuer.load_full().unwrap();
    assert_eq!(Invites(&made_it.state).end(token.id).unwrap(), None);
    let redeemed = ask(n2, &n1, stolen).await.unwrap();
    let answer = redeemed.read().unwrap();
    let trust = n4.identities.current().trust.clone();
    let verify = |binding| answer.verify(binding, request.as_bytes(), &trust, SystemTime::now());
    assert_eq!(verify(&[9; 32]), Ok(()));
    assert_eq!(verify(&[8; 32]), Err(Refusal::BadSignature));
}

#[tokio::test]
async fn a_home_that_is_no_issuer_any_more_says_nothing_of_its_tokens() {
    let mesh = Issuers::three().await;
    let mut token = mesh.invite("n9");
    token.issuers.remove(0);
    let n1 = mesh.host(0);
    n1.issuer.store(None);
    let spent = Spent {
        invite: token.id.to_string(),
        proof: Proof::new(&by_node(n1, &signed::spent(&token.home, token.id))),
    };
    let n2 = NodeName::parse("n2").unwrap();
    let said = n1.control().ask::<()>(&n2, "/v1/spent", &spent).await;
    assert_eq!(said.unwrap_err().refused().unwrap().reason, "no_issuer");
    assert_eq!(outcome(&join(token).await), Outcome::HomeUnreachable);
}

#[tokio::test]
async fn an_issuer_that_knows_of_a_revocation_hands_on_nothing_that_is_revoked() {
    let mesh = Issuers::three().await;
    let mut token = mesh.invite("n9");
    token.issuers = vec![mesh.ports[1].to_string()];
    let mut revocations = Revocations::default();
    let what = starling_transport::Revoked::Host("n9".into());
    revocations.add(what, SystemTime::now());
    mesh.host(1).identities.revoke(revocations);
    assert_eq!(outcome(&join(token).await), Outcome::Revoked);
}

mod renewals;
