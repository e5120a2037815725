//! Renewals over the mesh: for whom, how often, and what a node does that is put off.

use std::collections::BTreeMap;

use starling_gossip::Caps;
use starling_transport::IdentitySet;
use tokio::time::Instant;

use super::*;
use crate::control::ControlError;
use crate::renewal::{Renewer, Trouble};
use crate::state::NODE_CHAIN;

const DAY: Duration = Duration::from_secs(86_400);

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://test.example/{name}")).unwrap()
}

/// Gives a host new certificates that live `life`, of which `age` is over.
fn hold(mesh: &Issuers, host: &Host, life: Duration, age: Duration) {
    let set = host.identities.current();
    let services = set.services.keys();
    let services: BTreeMap<_, _> = services
        .map(|id| (id.clone(), mesh.ca.aged(id, life, age)))
        .collect();
    host.identities.replace(IdentitySet {
        trust: set.trust.clone(),
        node: mesh.ca.aged(set.node.id(), life, age),
        services,
    });
}

fn request(wanted: &SpiffeId) -> Renewal {
    let asking = ca::Asking::new(wanted).unwrap();
    Renewal {
        request: STANDARD.encode(&asking.request),
    }
}

async fn ask(
    host: &Arc<Host>,
    issuer: &str,
    caller: &SpiffeId,
    renewal: &Renewal,
) -> Result<Renewed, ControlError> {
    let issuer = NodeName::parse(issuer).unwrap();
    let control = host.control();
    control.ask_as(caller, &issuer, "/v1/renew", renewal).await
}

fn refusal<T: fmt::Debug>(asked: Result<T, ControlError>) -> (u16, String, Option<Duration>) {
    let error = asked.unwrap_err();
    let refused = error.refused().unwrap_or_else(|| panic!("{error}"));
    let status = refused.status().as_u16();
    (status, refused.reason.clone(), refused.retry_after())
}

#[tokio::test]
async fn an_identity_is_renewed_for_whoever_proves_it_and_for_nobody_else() {
    let mesh = Issuers::three().await;
    let n1 = mesh.host(0);
    hold(&mesh, n1, DAY, DAY / 2);
    let (node, web) = (id("node/n1"), id("svc/web"));
    for own in [&node, &web] {
        let renewed = ask(n1, "n2", own, &request(own)).await.unwrap();
        assert!(renewed.leaf.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    // Each issuer counts by itself.
    for (issuer, caller, wanted) in [
        ("n1", &node, &web),
        ("n1", &web, &node),
        ("n3", &node, &id("node/n2")),
        ("n3", &web, &id("svc/admin")),
    ] {
        let asked = ask(n1, issuer, caller, &request(wanted)).await;
        let (status, reason, _) = refusal(asked);
        assert_eq!(
            (status, reason.as_str()),
            (400, "bad_question"),
            "{caller} for {wanted}"
        );
    }
}

#[tokio::test]
async fn one_connection_had_thousands_of_certificates_in_seconds() {
    let mesh = Issuers::three().await;
    let (n1, node) = (mesh.host(0), id("node/n1"));
    let renewal = request(&node);
    for (age, wanted, reason, longest) in [
        (Duration::from_secs(10), 0, "too_early", DAY / 3),
        (DAY / 2, 1, "too_often", Duration::from_secs(60)),
    ] {
        hold(&mesh, n1, DAY, age);
        let mut given = 0;
        let began = Instant::now();
        for _ in 0..1000 {
            let asked = ask(n1, "n2", &node, &renewal).await;
            if asked.is_ok() {
                given += 1;
                continue;
            }
            let (status, why, after) = refusal(asked);
            assert_eq!((status, why.as_str()), (429, reason));
            // The truth, and no more.
            let after = after.unwrap();
            assert!(after <= longest, "{after:?}");
            assert!(after + began.elapsed() + Duration::from_secs(11) > longest);
        }
        assert!(began.elapsed() < Duration::from_secs(59), "too slow");
        assert_eq!(given, wanted, "{reason}");
    }
}

#[tokio::test]
async fn a_bad_request_uses_up_the_turn_and_new_files_of_the_ca_give_no_other() {
    let mesh = Issuers::three().await;
    let (n1, node) = (mesh.host(0), id("node/n1"));
    hold(&mesh, n1, DAY, DAY / 2);
    let bad = Renewal {
        request: "no base64".to_owned(),
    };
    assert_eq!(refusal(ask(n1, "n2", &node, &bad).await).0, 400);
    let again = ask(n1, "n2", &node, &request(&node)).await;
    assert_eq!(refusal(again).1, "too_often");

    ask(n1, "n3", &node, &request(&node)).await.unwrap();
    let n3 = mesh.host(2);
    let before = n3.issuer.load_full();
    let role = Role::load(&before.as_ref().unwrap().state).unwrap();
    n3.issuer
        .store(Some(Arc::new(role.follow(before.as_deref()))));
    let again = ask(n1, "n3", &node, &request(&node)).await;
    assert_eq!(refusal(again).1, "too_often");
}

/// n4, which knows that the others are issuers. The turns of its node's line are taken at all of them.
async fn put_off(mesh: &Issuers, life: Duration, age: Duration) -> Agent {
    let agent = no_issuer(mesh).await;
    let host = &agent.host;
    for issuer in &mesh.agents {
        issuer.announce_issuer();
    }
    let are_known = async {
        let mut changes = host.membership.changes();
        let is_known = || {
            let catalogue = host.membership.catalogue();
            let members = catalogue.members.values();
            members
                .filter(|member| member.caps.has(Caps::ISSUER))
                .count()
                == 3
        };
        while !is_known() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), are_known)
        .await
        .expect("issuers are known");
    hold(mesh, host, life, age);
    // A service that is not due, so that all is about the node.
    let set = host.identities.current();
    host.identities.replace(IdentitySet {
        services: BTreeMap::from([(id("svc/web"), mesh.ca.aged(&id("svc/web"), life, life / 3))]),
        ..IdentitySet::clone(&set)
    });
    let node = id("node/n4");
    for issuer in ["n1", "n2", "n3"] {
        ask(host, issuer, &node, &request(&node)).await.unwrap();
    }
    agent
}

fn refusing(mesh: &Issuers) -> usize {
    let roles = mesh
        .agents
        .iter()
        .filter_map(|agent| agent.host.issuer.load_full());
    roles.filter(|role| role.renewals().has_refused()).count()
}

/// Runs a renewer until `is_over`, which sees what there is of trouble.
async fn renew_until(
    host: &Arc<Host>,
    state: &StateDir,
    mut is_over: impl FnMut(Option<&Trouble>) -> bool,
) {
    let mut tasks = JoinSet::new();
    tasks.spawn(Renewer::new(host.clone(), state.clone()).run());
    let over = async {
        while !is_over(host.renewal_trouble.load().as_deref()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over)
        .await
        .expect("it comes to that");
}

#[tokio::test]
async fn a_node_that_is_put_off_waits_and_has_no_trouble() {
    let mesh = Issuers::three().await;
    let life = Duration::from_secs(30);
    // Due at 60 % at the latest.
    let agent = put_off(&mesh, life, life.mul_f64(0.601)).await;
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    let mut refusing_most = 0;
    renew_until(&agent.host, &state, |trouble| {
        assert_eq!(trouble, None);
        refusing_most = refusing_most.max(refusing(&mesh));
        state.exists(NODE_CHAIN)
    })
    .await;
    // One issuer was asked, and then any, when it was time.
    assert_eq!(refusing_most, 1);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn a_node_that_is_put_off_until_late_says_so_and_asks_the_others() {
    let mesh = Issuers::three().await;
    let life = Duration::from_secs(1000);
    let agent = put_off(&mesh, life, life.mul_f64(0.8)).await;
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    renew_until(&agent.host, &state, |trouble| {
        trouble.is_some_and(|trouble| trouble.error().contains("too_often"))
    })
    .await;
    assert_eq!(refusing(&mesh), 3);
    assert!(!state.exists(NODE_CHAIN));
}
