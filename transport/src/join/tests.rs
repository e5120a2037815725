use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    SigningKey,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::identities::Identities;
use crate::identity::TrustDomain;
use crate::svid::{Refusal, TrustBundle};
use crate::testing::Ca;
use crate::{Revocations, Revoked};

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

/// The key and the certificate of an intermediate.
struct Authority {
    key: KeyPair,
    intermediate: Vec<u8>,
}

impl Authority {
    fn new(ca: &Ca, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = ca.sign_with(params, &key);
        let intermediate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Self {
            key,
            intermediate: intermediate.to_vec(),
        }
    }

    fn sign(&self, binding: &[u8; 32], request: &[u8], answer: &[u8]) -> SignedAnswer {
        let message = SignedAnswer::message(binding, request, answer);
        SignedAnswer {
            answer: answer.to_vec(),
            signature: IssuerSignature {
                intermediate: self.intermediate.clone(),
                signature: self.key.sign(&message).unwrap(),
            },
        }
    }
}

type Listening = (SocketAddr, tokio::task::JoinHandle<()>);

/// A node that answers each request as `answer` says.
fn listen(
    identities: Arc<Identities>,
    answer: impl Fn(&Visitor) -> SignedAnswer + Send + 'static,
) -> Listening {
    let listener = JoinListener::bind(([127, 0, 0, 1], 0).into(), identities).unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Some(visitor) = listener.accept().await {
            let answer = answer(&visitor);
            visitor.answer(&answer).await;
        }
    });
    (addr, task)
}

/// An issuer that answers each request with what it saw, reversed and bound.
fn issuer(ca: &Ca) -> Listening {
    let authority = Authority::new(ca, Ca::intermediate_params());
    listen(Identities::new(ca.set("n1", &["web"])), move |visitor| {
        let mut answer = visitor.request.clone();
        answer.reverse();
        answer.extend(visitor.binding);
        authority.sign(&visitor.binding, &visitor.request, &answer)
    })
}

/// Why the answer of a node of the mesh is none.
async fn refusal(ca: &Ca, answer: impl Fn(&Visitor) -> SignedAnswer + Send + 'static) -> Refusal {
    let (addr, _task) = listen(Identities::new(ca.set("n1", &[])), answer);
    let asked = ask(addr, &pinned(ca), |_| b"abc".to_vec(), BUDGET).await;
    match asked.unwrap_err() {
        JoinError::NotAnIssuer { source, .. } => source,
        error => panic!("{error:?}"),
    }
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

#[tokio::test]
async fn a_node_that_is_no_issuer_ended_a_join_with_its_word() {
    let ca = Ca::new();
    let set = ca.set("n1", &[]);
    let node = set.node.clone();
    let by_node = move |visitor: &Visitor| {
        let message = SignedAnswer::message(&visitor.binding, &visitor.request, b"spent");
        SignedAnswer {
            answer: b"spent".to_vec(),
            signature: IssuerSignature {
                intermediate: node.chain()[0].clone(),
                signature: node.sign(&message).unwrap(),
            },
        }
    };
    assert_eq!(refusal(&ca, by_node).await, Refusal::KeyUsage);
    let unsigned = |_: &Visitor| SignedAnswer {
        answer: b"spent".to_vec(),
        signature: IssuerSignature {
            intermediate: Vec::new(),
            signature: Vec::new(),
        },
    };
    assert_eq!(refusal(&ca, unsigned).await, Refusal::BadEncoding);
}

#[tokio::test]
async fn an_answer_counts_on_its_connection_for_its_request_only() {
    let ca = Ca::new();
    let with = |answer: fn(&Authority, &Visitor) -> SignedAnswer| {
        let authority = Authority::new(&ca, Ca::intermediate_params());
        refusal(&ca, move |visitor| answer(&authority, visitor))
    };
    let replayed = with(|authority, visitor| authority.sign(&[9; 32], &visitor.request, b"x"));
    assert_eq!(replayed.await, Refusal::BadSignature);
    let to_another = with(|authority, visitor| authority.sign(&visitor.binding, b"abd", b"x"));
    assert_eq!(to_another.await, Refusal::BadSignature);
    let changed = with(|authority, visitor| {
        let mut signed = authority.sign(&visitor.binding, &visitor.request, b"joined");
        signed.answer = b"spent".to_vec();
        signed
    });
    assert_eq!(changed.await, Refusal::BadSignature);
}

#[tokio::test]
async fn only_an_intermediate_under_the_pinned_root_signs_answers() {
    let (ca, other) = (Ca::new(), Ca::new());
    let with = |signer: &Ca, change: fn(&mut CertificateParams)| {
        let mut params = Ca::intermediate_params();
        change(&mut params);
        let authority = Authority::new(signer, params);
        refusal(&ca, move |visitor| {
            authority.sign(&visitor.binding, &visitor.request, b"x")
        })
    };
    // Of the same name as the pinned root, which it is not.
    assert_eq!(with(&other, |_| {}).await, Refusal::UnknownIssuer);
    let no_ca = with(&ca, |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(no_ca.await, Refusal::KeyUsage);
    let no_usage = with(&ca, |params| params.key_usages.clear());
    assert_eq!(no_usage.await, Refusal::KeyUsage);
    let other_usage = with(&ca, |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    assert_eq!(other_usage.await, Refusal::KeyUsage);
    let ended = with(&ca, |params| {
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::minutes(1);
    });
    assert_eq!(ended.await, Refusal::Expired);
    let early = with(&ca, |params| {
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::minutes(1);
    });
    assert_eq!(early.await, Refusal::NotYetValid);
    // Below another intermediate, where no root's signature is.
    let above = CertifiedIssuer::signed_by(
        Ca::intermediate_params(),
        KeyPair::generate().unwrap(),
        ca.issuer(),
    );
    let key = KeyPair::generate().unwrap();
    let mut params = Ca::intermediate_params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let below = params.signed_by(&key, &above.unwrap()).unwrap();
    let authority = Authority {
        key,
        intermediate: below.der().to_vec(),
    };
    let two_steps = refusal(&ca, move |visitor| {
        authority.sign(&visitor.binding, &visitor.request, b"x")
    });
    assert_eq!(two_steps.await, Refusal::UnknownIssuer);
}

#[test]
fn a_revoked_issuer_signs_nothing_that_a_node_believes() {
    let ca = Ca::new();
    let authority = Authority::new(&ca, Ca::intermediate_params());
    let signed = authority.sign(&[1; 32], b"abc", b"x");
    let now = crate::endpoint::now();
    let judge = |trust: &TrustBundle| signed.verify(&[1; 32], b"abc", trust, now);
    assert_eq!(judge(&ca.bundle()), Ok(()));
    let mut revocations = Revocations::default();
    revocations.add(Revoked::Issuer("n1".into()), now);
    let trust = ca.bundle().without(Arc::new(revocations));
    assert_eq!(judge(&trust), Err(Refusal::RevokedIssuer));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_signed_answer_or_none(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        if let Some(answer) = SignedAnswer::decode(&bytes) {
            assert_eq!(answer.encode(), Some(bytes));
        }
    }
}
