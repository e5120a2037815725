use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::*;
use crate::identities::Identities;
use crate::identity::TrustDomain;
use crate::testing::Ca;

const BUDGET: Duration = Duration::from_secs(10);

fn pinned(ca: &Ca) -> Pinned {
    let root = ca.bundle().roots()[0].clone();
    let mut root_sha256 = [0; 32];
    root_sha256.copy_from_slice(digest(&SHA256, &root).as_ref());
    Pinned {
        trust_domain: TrustDomain::parse("test.example").unwrap(),
        root_sha256,
    }
}

/// An issuer that answers each request with what it saw, reversed and bound.
fn issuer(ca: &Ca) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let identities = Identities::new(ca.set("n1", &["web"]));
    let listener = JoinListener::bind(([127, 0, 0, 1], 0).into(), identities).unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Some(visitor) = listener.accept().await {
            let mut answer = visitor.request.clone();
            answer.reverse();
            answer.extend(visitor.binding);
            visitor.answer(&answer).await;
        }
    });
    (addr, task)
}

#[tokio::test]
async fn a_joiner_asks_an_issuer_that_its_root_vouches_for() {
    let ca = Ca::new();
    let (addr, _task) = issuer(&ca);
    let mut seen = None;
    let request = |binding: &[u8; 32]| {
        seen = Some(*binding);
        b"abc".to_vec()
    };
    let said = ask(addr, &pinned(&ca), request, BUDGET).await.unwrap();
    assert_eq!(said.issuer, ca.node("n1"));
    assert_eq!(said.answer[..3], *b"cba");
    assert_eq!(said.answer[3..], seen.unwrap(), "both ends see one binding");
    assert_eq!(said.root, ca.bundle().roots()[0].to_vec());
}

#[tokio::test]
async fn every_connection_has_a_binding_of_its_own() {
    let ca = Ca::new();
    let (addr, _task) = issuer(&ca);
    let pinned = pinned(&ca);
    let first = ask(addr, &pinned, |_| Vec::new(), BUDGET).await.unwrap();
    let second = ask(addr, &pinned, |_| Vec::new(), BUDGET).await.unwrap();
    assert_ne!(first.answer, second.answer);
}

#[tokio::test]
async fn an_issuer_of_another_root_or_name_is_told_nothing() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (addr, _task) = issuer(&other);
    let never = |_: &[u8; 32]| -> Vec<u8> { panic!("a request to a stranger") };
    let error = ask(addr, &pinned(&ca), never, BUDGET).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherMesh { .. }), "{error:?}");
    let renamed = Pinned {
        trust_domain: TrustDomain::parse("other.example").unwrap(),
        ..pinned(&other)
    };
    let error = ask(addr, &renamed, never, BUDGET).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherMesh { .. }), "{error:?}");
}

#[tokio::test]
async fn a_service_is_no_issuer() {
    let ca = Ca::new();
    let mut set = ca.set("n1", &["web"]);
    set.node = set.services[&ca.service("web")].clone();
    let listener = JoinListener::bind(([127, 0, 0, 1], 0).into(), Identities::new(set)).unwrap();
    let addr = listener.local_addr().unwrap();
    let error = ask(addr, &pinned(&ca), |_| Vec::new(), BUDGET)
        .await
        .unwrap_err();
    assert!(matches!(error, JoinError::OtherMesh { .. }), "{error:?}");
}

#[tokio::test]
async fn the_join_port_is_no_mesh_port_and_the_other_way_round() {
    let ca = Ca::new();
    let (addr, _task) = issuer(&ca);
    let host = ca.endpoint("n2", &[]);
    let caller = ca.node("n2");
    let dialled = host.endpoint.dial(
        &caller,
        &crate::Callee::AnyNode,
        addr,
        crate::Protocol::Gossip,
        BUDGET,
    );
    assert!(dialled.await.is_err());
    let asked = ask(host.addr, &pinned(&ca), |_| Vec::new(), BUDGET).await;
    assert!(matches!(
        asked,
        Err(JoinError::Handshake { .. } | JoinError::Lost { .. })
    ));
}

#[tokio::test]
async fn too_long_a_request_gets_no_answer() {
    let ca = Ca::new();
    let (addr, _task) = issuer(&ca);
    let long = |_: &[u8; 32]| vec![7; REQUEST_BYTES_MAX + 1];
    let error = ask(addr, &pinned(&ca), long, BUDGET).await.unwrap_err();
    assert!(matches!(error, JoinError::Lost { .. }), "{error:?}");
    let whole = |_: &[u8; 32]| vec![7; REQUEST_BYTES_MAX];
    let said = ask(addr, &pinned(&ca), whole, BUDGET).await.unwrap();
    assert_eq!(said.answer.len(), REQUEST_BYTES_MAX + 32);
}

#[tokio::test]
async fn dropping_the_listener_frees_the_port() {
    let ca = Ca::new();
    let identities = Identities::new(ca.set("n1", &[]));
    let bind = |addr| JoinListener::bind(addr, Arc::clone(&identities));
    let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = first.local_addr().unwrap();
    assert!(bind(addr).is_err());
    drop(first);
    let deadline = tokio::time::Instant::now() + BUDGET;
    while bind(addr).is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
