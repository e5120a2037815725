//! Questions about keys and issuers over a mesh in which one that calls itself an issuer lies.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use starling_transport::{Revocations, SpiffeId};

use super::*;
use crate::ca::{Authority, LIFETIME, Signed};
use crate::control::{self, Control, Handler, Refused, Who};
use crate::issuer::Role;
use crate::state::StateDir;
use crate::testing::{Agent, Ca, all_know_all};

thread_local! {
    /// What the liar answers; it never answers null.
    static LIE: RefCell<Value> = RefCell::new(json!({"holders": {}, "left_out": 0}));
}

async fn lie(_: Arc<Host>, _: Leaf, _: Value) -> Result<Value, Refused> {
    let lie = LIE.with_borrow(Clone::clone);
    if lie.is_null() {
        std::future::pending::<()>().await;
    }
    Ok(lie)
}

fn is_now(lie: Value) {
    LIE.set(lie);
}

/// An answer with the certificate of somebody.
fn with_certificate(signed: &Signed) -> Value {
    let certificate = signed.chain.each_ref().map(|der| STANDARD.encode(der));
    json!({"certificate": certificate, "holders": {}, "left_out": 0})
}

/// `n1` is an issuer, `n2` says that it is one, `n3` asks.
struct Mesh {
    agents: [Agent; 3],
    _ca: Ca,
    _dir: tempfile::TempDir,
}

impl Mesh {
    async fn new() -> Self {
        let ca = Ca::new();
        let honest = || Control::new(control::handlers());
        let liar = Control::new(vec![Handler::new("/v1/lines", Who::Node, lie)]);
        let n1 = ca.agent("n1", "web", &[], honest());
        let n2 = ca.agent("n2", "web", &[n1.addr], liar);
        let n3 = ca.agent("n3", "web", &[n1.addr], honest());
        let (dir, state) = issuer(&ca);
        let role = Role::load(&state).unwrap();
        n1.host.issuer.store(Some(Arc::new(role)));
        all_know_all(&[&n1, &n2, &n3]).await;
        for agent in [&n1, &n2] {
            agent.announce_issuer();
        }
        let mut changes = n3.host.membership.changes();
        let are_known = async {
            loop {
                let catalogue = n3.host.membership.catalogue();
                let members = catalogue.members.values();
                let issuers = members.filter(|member| member.caps.has(Caps::ISSUER));
                if issuers.count() == 2 {
                    break;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), are_known)
            .await
            .expect("issuers are announced");
        Self {
            agents: [n1, n2, n3],
            _ca: ca,
            _dir: dir,
        }
    }

    /// Has the issuer sign for a host that nobody hears of.
    fn signed(&self) -> Signed {
        let role = self.agents[0].host.issuer.load_full().unwrap();
        signed(role.authority())
    }

    async fn ask(&self, question: LineQuestion) -> LineAnswer {
        find(self.agents[2].host.clone(), question).await
    }

    async fn ask_for(&self, signed: &Signed) -> LineAnswer {
        self.ask(LineQuestion {
            key: Some(signed.leaf.key_hash.to_string()),
            ..LineQuestion::default()
        })
        .await
    }
}

/// The CA of an issuer on `n1`, in a directory of its own.
fn issuer(ca: &Ca) -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    Authority::add_issuer(&ca.state, &state, &NodeName::parse("n1").unwrap()).unwrap();
    (dir, state)
}

fn signed(authority: &Authority) -> Signed {
    let id = SpiffeId::node(authority.trust_domain(), "n9").unwrap();
    authority.issue(&id, LIFETIME).unwrap();
    let book = authority.book().good(SystemTime::now()).unwrap();
    book.last().unwrap().clone()
}

fn line(signed: &Signed) -> Option<FoundLine> {
    let found = found_line(&signed.leaf);
    assert!(found.is_some());
    found
}

#[tokio::test]
async fn a_certificate_of_another_key_or_root_is_not_believed() {
    let mesh = Mesh::new().await;
    let known = mesh.signed();
    let (_dir, state) = issuer(&Ca::new());
    let foreign = signed(&Authority::load(&state).unwrap());
    // Nobody signed a certificate of this mesh with the foreign key.
    for lie in [&foreign, &known] {
        is_now(with_certificate(lie));
        let answer = mesh.ask_for(&foreign).await;
        assert_eq!((answer.found, answer.not_asked), (None, Vec::new()));
    }
    for lie in [
        with_certificate(&foreign),
        json!({"certificate": ["?", "?"], "holders": {}, "left_out": 0}),
    ] {
        is_now(lie);
        assert_eq!(mesh.ask_for(&known).await.found, line(&known));
    }
}

#[tokio::test]
async fn the_line_of_a_key_is_found_though_the_key_is_revoked_and_an_issuer_is_silent() {
    let mesh = Mesh::new().await;
    let known = mesh.signed();
    let mut revocations = Revocations::default();
    revocations.add_key(known.leaf.key_hash);
    mesh.agents[2].host.identities.revoke(revocations);
    is_now(Value::Null);
    let began = Instant::now();
    let answer = mesh.ask_for(&known).await;
    assert!(began.elapsed() < 3 * BUDGET, "{:?}", began.elapsed());
    assert_eq!(answer.found, line(&known));
    let silent: Vec<_> = answer.not_asked.iter().map(|gap| &gap.node).collect();
    assert_eq!(silent, ["n2"]);
}

#[tokio::test]
async fn the_hosts_of_an_issuer_come_from_gossip_and_from_books() {
    let mesh = Mesh::new().await;
    mesh.signed();
    let about = |issuer: &str| LineQuestion {
        issuer: Some(issuer.into()),
        ..LineQuestion::default()
    };
    let answer = mesh.ask(about("n1")).await;
    let hosts: Vec<_> = answer.holders.iter().map(|holder| &holder.host).collect();
    assert_eq!(hosts, ["n1", "n2", "n3", "n9"]);
    let web = "spiffe://test.example/svc/web".to_owned();
    assert!(answer.is_issuer && answer.own && answer.left_out == 0);
    let own = &answer.holders[2].identities;
    assert_eq!(own[0], "spiffe://test.example/node/n3");
    assert!(!own.contains(&web), "it names no host");
    // What a book holds of a host is old news if this node has seen a newer leaf; what it has not seen is listed.
    let n2 = "spiffe://test.example/node/n2";
    for (issued, is_listed) in [(1, false), (4_000_000_000_u64, true)] {
        is_now(json!({"holders": {"n2": {n2: issued}}, "left_out": 0}));
        let answer = mesh.ask(about("n7")).await;
        assert_eq!(answer.holders.len() == 1, is_listed, "{answer:?}");
    }
    is_now(json!({"holders": {}, "left_out": 0}));
    let answer = mesh.ask(about("n3")).await;
    assert!(!answer.is_issuer && !answer.own);
    assert_eq!((answer.holders, answer.not_asked), (vec![], vec![]));
}
