//! Who may connect, over real sockets on loopback.

mod chains;
mod lines;
mod local;
mod revoked;

use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};
use time::OffsetDateTime;

use crate::testing::Ca;
use crate::{Callee, Courier, DialError, Endpoint, Protocol, Refusal, Session, Svid, SvidError};

const BUDGET: Duration = Duration::from_secs(5);

async fn dial(
    from: &Endpoint,
    ca: &Ca,
    caller: &str,
    callee: &str,
    to: std::net::SocketAddr,
) -> Result<Session, DialError> {
    let callee = Callee::Exactly(ca.service(callee));
    from.dial(&ca.service(caller), &callee, to, Protocol::H3, BUDGET)
        .await
}

#[tokio::test]
async fn both_ends_prove_the_identity_that_was_asked_for() {
    let ca = Ca::new();
    let (a, b) = (
        ca.endpoint("a", &["web", "shop"]),
        ca.endpoint("b", &["orders", "users"]),
    );
    for (caller, callee) in [("web", "orders"), ("shop", "users")] {
        let session = dial(&a.endpoint, &ca, caller, callee, b.addr)
            .await
            .unwrap();
        let accepted = b.endpoint.accept().await.unwrap();
        assert_eq!(
            (session.local(), session.peer()),
            (&ca.service(caller), &ca.service(callee))
        );
        assert_eq!(
            (accepted.local(), accepted.peer()),
            (&ca.service(callee), &ca.service(caller))
        );
    }
}

#[tokio::test]
async fn connections_are_told_of_while_they_are_open_and_once_more() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let open = a.endpoint.links();
    assert_eq!((open.len(), open[0].addr), (1, b.addr));
    assert!(open[0].is_open && open[0].counts.sent > 0 && open[0].mtu >= 1200);
    session.close();
    let ended = async {
        loop {
            let links = a.endpoint.links();
            if links.iter().any(|link| !link.is_open) {
                break links;
            }
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(BUDGET, ended).await.unwrap();
    assert_eq!((ended.len(), ended[0].id), (1, open[0].id));
    assert!(ended[0].counts.sent >= open[0].counts.sent);
    assert_eq!(a.endpoint.links(), []);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_no_session() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    assert!(matches!(
        dial(&a.endpoint, &ca, "web", "users", b.addr).await,
        Err(DialError::Handshake { .. })
    ));
    assert!(matches!(
        dial(&a.endpoint, &ca, "users", "orders", b.addr).await,
        Err(DialError::NotOurs { .. })
    ));
}

#[tokio::test]
async fn another_meshs_agent_is_refused_on_both_sides() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (a, b) = (ca.endpoint("a", &["web"]), other.endpoint("b", &["orders"]));
    assert!(matches!(
        dial(&a.endpoint, &ca, "web", "orders", b.addr).await,
        Err(DialError::WrongIdentity { .. })
    ));
    // The other way the dialler may see a handshake that went well (TLS 1.3 lets the client finish first) or the
    // refusal, whichever comes first; the callee must not take it.
    let _seen = dial(&b.endpoint, &other, "orders", "web", a.addr).await;
    let taken = tokio::time::timeout(Duration::from_millis(300), a.endpoint.accept()).await;
    assert!(taken.is_err());
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_trust_in_it() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    // A fresh leaf of the same identity leaves it alone; another mesh's roots end it.
    a.identities.replace(ca.set("a", &["web"]));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), session.closed())
            .await
            .is_err()
    );
    a.identities.replace(Ca::new().set("a", &["web"]));
    tokio::time::timeout(BUDGET, session.closed())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_does_not_outlive_a_leaf() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let mut set = ca.set("a", &[]);
    let mut params = ca.params(&[ca.service("web").as_str()]);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let (chain, key) = ca.sign(params);
    set.services.insert(
        ca.service("web"),
        Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap(),
    );
    a.identities.replace(set);
    dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let accepted = b.endpoint.accept().await.unwrap();
    tokio::time::timeout(BUDGET, accepted.closed())
        .await
        .unwrap();
    assert!(
        dial(&a.endpoint, &ca, "web", "orders", b.addr)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_restarted_agent_resets_the_connections_of_the_one_before() {
    let ca = Ca::new();
    let a = ca.endpoint("a", &["web"]);
    // Another runtime stands for a process that is killed: it says goodbye to nobody.
    let mut life = tokio::runtime::Builder::new_multi_thread();
    let life = life.worker_threads(1).enable_all().build().unwrap();
    let b = {
        let _in = life.enter();
        ca.endpoint("b", &["orders"])
    };
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let accepted = b.endpoint.accept().await.unwrap();
    let addr = b.addr;
    let dies = move || life.shutdown_timeout(BUDGET);
    tokio::task::spawn_blocking(dies).await.unwrap();
    drop((accepted, b));
    let _again = ca.endpoint_at(addr, "b", &["orders"]);
    let mut stream = session.quinn().open_uni().await.unwrap();
    stream.write_all(&[0; 100]).await.unwrap();
    let ended = session.quinn().closed().await;
    assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended}");
}

#[tokio::test]
async fn messages_and_questions_arrive_with_their_senders_name() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &[]), ca.endpoint("b", &[]));
    let courier = Courier::new(a.endpoint, ca.node("a"));
    let peer = Courier::new(b.endpoint.clone(), ca.node("b"));
    assert_eq!(
        courier
            .send(b.addr, Bytes::from_static(b"hello"))
            .await
            .unwrap(),
        ca.node("b")
    );
    peer.adopt(b.endpoint.accept().await.unwrap());
    let parcel = peer.receive().await.unwrap();
    assert_eq!(
        (parcel.peer, &parcel.body[..], parcel.from),
        (ca.node("a"), &b"hello"[..], a.addr)
    );
    // The answer travels over the link that `a` dialled.
    let (answer, ()) = tokio::join!(peer.ask(a.addr, Bytes::from_static(b"?"), 10), async {
        let question = courier.receive().await.unwrap();
        question
            .answer
            .unwrap()
            .send(Bytes::from_static(b"!"))
            .unwrap();
    });
    assert_eq!(answer.unwrap(), (ca.node("a"), Bytes::from_static(b"!")));
}

/// Every way in which a leaf can be wrong, judged by the one function that judges them all.
#[test]
fn leaves_are_refused_each_for_its_own_reason() {
    let ca = Ca::new();
    let good = "spiffe://test.example/svc/a";
    let change = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca.params(&[good]);
        change(&mut params);
        ca.sign(params).0
    };
    let hours = |h: i64| OffsetDateTime::now_utc() + time::Duration::hours(h);
    let cases = [
        ("good", change(&|_| ()), None),
        (
            "no uri",
            change(&|p| p.subject_alt_names.clear()),
            Some(Refusal::NoUriName),
        ),
        (
            "dns only",
            change(&|p| p.subject_alt_names = vec![SanType::DnsName("a".try_into().unwrap())]),
            Some(Refusal::NoUriName),
        ),
        (
            "two uris",
            ca.sign(ca.params(&[good, "spiffe://test.example/svc/b"])).0,
            Some(Refusal::SeveralUriNames),
        ),
        (
            "not spiffe",
            ca.sign(ca.params(&["https://test.example/svc/a"])).0,
            Some(Refusal::NotSpiffe),
        ),
        (
            "other domain",
            ca.sign(ca.params(&["spiffe://other.example/svc/a"])).0,
            Some(Refusal::OtherTrustDomain),
        ),
        (
            "expired",
            change(&|p| {
                p.not_before = hours(-2);
                p.not_after = hours(-1)
            }),
            Some(Refusal::Expired),
        ),
        (
            "early",
            change(&|p| {
                p.not_before = hours(1);
                p.not_after = hours(2)
            }),
            Some(Refusal::NotYetValid),
        ),
        (
            "ca",
            change(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            Some(Refusal::CaAsLeaf),
        ),
        (
            "no usage",
            change(&|p| p.key_usages.clear()),
            Some(Refusal::KeyUsage),
        ),
        (
            "cert sign",
            change(&|p| p.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign)),
            Some(Refusal::KeyUsage),
        ),
        (
            "server only",
            change(&|p| drop(p.extended_key_usages.pop())),
            Some(Refusal::KeyUsage),
        ),
        (
            "client only",
            change(&|p| drop(p.extended_key_usages.remove(0))),
            Some(Refusal::KeyUsage),
        ),
        (
            "stranger",
            {
                let other = Ca::new();
                other.sign(other.params(&[good])).0
            },
            Some(Refusal::UnknownIssuer),
        ),
    ];
    for (name, pem, expected) in cases {
        let der = pem_der(&pem);
        let verdict = ca.bundle().verify_der(&[der], std::time::SystemTime::now());
        assert_eq!(verdict.err(), expected, "{name}");
    }
    assert_eq!(
        ca.bundle().verify_der(&[], std::time::SystemTime::now()),
        Err(Refusal::NoCertificate)
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new();
    let (chain, _) = ca.sign(ca.params(&["spiffe://test.example/svc/a"]));
    let (_, key) = ca.sign(ca.params(&["spiffe://test.example/svc/a"]));
    assert!(matches!(
        Svid::from_pem(chain.as_bytes(), key.as_bytes()),
        Err(SvidError::Key(_))
    ));
}

#[test]
fn signatures_verify_under_the_leaf_only() {
    let ca = Ca::new();
    let (a, b) = (ca.svid(&ca.node("a")), ca.svid(&ca.node("b")));
    let signature = a.sign(b"message").unwrap();
    assert_eq!(a.leaf().verify_signature(b"message", &signature), Ok(()));
    assert_eq!(
        a.leaf().verify_signature(b"massage", &signature),
        Err(Refusal::BadSignature)
    );
    assert_eq!(
        b.leaf().verify_signature(b"message", &signature),
        Err(Refusal::BadSignature)
    );
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn a_refusal_tells_the_peer_no_more_than_its_alert() {
    let all = [
        Refusal::NoCertificate,
        Refusal::BadEncoding,
        Refusal::ChainTooLong,
        Refusal::NotSpiffe,
        Refusal::OtherTrustDomain,
        Refusal::UnknownIssuer,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::Revoked,
        Refusal::RevokedIssuer,
        Refusal::WrongIdentity,
        Refusal::BadSignature,
    ];
    let mut texts = std::collections::BTreeMap::new();
    for refusal in all {
        let rustls::Error::InvalidCertificate(error) = refusal.to_tls() else {
            panic!("{refusal:?} is told otherwise");
        };
        let text = refusal.to_tls().to_string();
        let alert = u8::from(rustls::AlertDescription::from(error));
        assert_eq!(
            *texts.entry(alert).or_insert_with(|| text.clone()),
            text,
            "{refusal:?}"
        );
    }
    assert!(texts.len() > 3, "{texts:?}");
}
