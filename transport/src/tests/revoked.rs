//! Who is refused, and cut off, although its certificate has not ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;

use super::{BUDGET, dial, pem_der};
use crate::testing::Ca;
use crate::{
    DialError, KeyHash, Refusal, RefusedByPeer, Revocations, Revoked, Svid, WhyRefused, issuer_name,
};

const MINUTE: Duration = Duration::from_secs(60);

/// In force from a minute after every certificate here began to be valid.
fn identity(ca: &Ca, service: &str) -> Revocations {
    let mut revocations = Revocations::default();
    revocations.add(
        Revoked::Identity(ca.service(service)),
        SystemTime::now() + MINUTE,
    );
    revocations
}

#[tokio::test]
async fn live_connections_of_the_revoked_end_and_no_others() {
    let ca = Ca::new();
    let (a, b) = (
        ca.endpoint("a", &["web", "shop"]),
        ca.endpoint("b", &["orders"]),
    );
    let web = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let shop = dial(&a.endpoint, &ca, "shop", "orders", b.addr)
        .await
        .unwrap();
    b.identities.revoke(identity(&ca, "web"));
    tokio::time::timeout(BUDGET, web.closed()).await.unwrap();
    assert!(shop.is_open());
}

#[tokio::test]
async fn the_revoked_come_back_only_with_a_certificate_issued_later() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    b.identities.revoke(identity(&ca, "web"));
    // TLS 1.3 lets the client finish before it is refused.
    if let Ok(session) = dial(&a.endpoint, &ca, "web", "orders", b.addr).await {
        tokio::time::timeout(BUDGET, session.closed())
            .await
            .unwrap();
    }
    let told = tokio::time::timeout(BUDGET, async {
        loop {
            if let Some(refused) = a.identities.refused_by_peer() {
                return refused;
            }
            tokio::task::yield_now().await;
        }
    });
    let told = told.await.unwrap();
    assert_eq!(
        (told.why, &told.id),
        (WhyRefused::Revoked, &ca.service("web"))
    );

    let mut past = Revocations::default();
    past.add(
        Revoked::Identity(ca.service("web")),
        SystemTime::now() - 60 * MINUTE,
    );
    b.identities.revoke(past);
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let accepted = b.endpoint.accept().await.unwrap();
    assert!(session.is_open() && accepted.is_open());
}

#[tokio::test]
async fn a_refusal_was_shown_after_its_revocation_was_taken_back() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let refused = RefusedByPeer {
        id: ca.service("web"),
        by: b.addr,
        why: WhyRefused::Revoked,
        at: SystemTime::now() + Duration::from_secs(1),
    };
    a.identities.refused(refused.clone());
    let is_shown = || a.identities.refused_by_peer().is_some();
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    let (before, after) = (SystemTime::now(), refused.at + MINUTE);
    a.identities.accepted(&refused.id, b.addr, before);
    a.identities.accepted(&refused.id, elsewhere, after);
    a.identities.accepted(&ca.node("a"), b.addr, after);
    assert!(is_shown());
    a.identities.accepted(&refused.id, b.addr, after);
    assert!(!is_shown());

    // A connection that stands says so by itself.
    let at = SystemTime::now() - MINUTE;
    let refused = RefusedByPeer { at, ..refused };
    a.identities.replace(ca.set("a", &["web"]));
    a.identities.refused(refused);
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr).await;
    let _session = session.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(a.identities.refused.load().is_none());
}

#[tokio::test]
async fn a_revoked_callee_is_refused_by_its_callers() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let callee = b.identities.current();
    let mut revocations = Revocations::default();
    revocations.add_key(callee.service("orders").unwrap().leaf().key_hash);
    a.identities.revoke(revocations);
    assert!(matches!(
        dial(&a.endpoint, &ca, "web", "orders", b.addr).await,
        Err(DialError::WrongIdentity { .. })
    ));
    // New certificates of our own do not make us forget.
    a.identities.replace(ca.set("a", &["web"]));
    assert!(
        dial(&a.endpoint, &ca, "web", "orders", b.addr)
            .await
            .is_err()
    );
}

#[test]
fn a_revoked_issuer_vouches_for_nobody() {
    let ca = Ca::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, issuer_name("n3", 7));
    let intermediate = ca.sign_with(params.clone(), &key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = ca
        .params(&[ca.service("web").as_str()])
        .signed_by(&leaf_key, &Issuer::new(params, key))
        .unwrap();
    let chain = [
        leaf.der().clone(),
        CertificateDer::from(pem_der(&intermediate)),
    ];
    let now = SystemTime::now();
    assert!(ca.bundle().verify(&chain, now).is_ok());

    let mut by_key = Revocations::default();
    by_key.add_key(KeyHash::of_certificate(&chain[1]).unwrap());
    let mut by_host = Revocations::default();
    // rcgen's certificates are valid from 1975 on.
    by_host.add(Revoked::Issuer("n3".into()), now);
    for revocations in [by_key, by_host] {
        let trust = ca.bundle().without(Arc::new(revocations));
        assert_eq!(trust.verify(&chain, now), Err(Refusal::RevokedIssuer));
        // Without it there is no path.
        assert_eq!(trust.verify(&chain[..1], now), Err(Refusal::UnknownIssuer));
    }
    let mut another = Revocations::default();
    another.add(Revoked::Issuer("n".into()), now);
    another.add(Revoked::Issuer("n3".into()), SystemTime::UNIX_EPOCH);
    let trust = ca.bundle().without(Arc::new(another));
    assert!(trust.verify(&chain, now).is_ok());
}

#[test]
fn what_a_host_holds_is_revoked_there_only() {
    let ca = Ca::new();
    let on = |host: &str, service: &str| {
        let mut params = ca.params(&[ca.service(service).as_str()]);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        let (chain, key) = ca.sign(params);
        let svid = Svid::from_pem(chain.as_bytes(), key.as_bytes());
        svid.unwrap().leaf().clone()
    };
    let later = SystemTime::now() + MINUTE;
    let node = ca.svid(&ca.node("n3")).leaf().clone();
    let mut host = Revocations::default();
    host.add(Revoked::Host("n3".into()), later);
    assert!(host.has_leaf(&node) && host.has_leaf(&on("n3", "web")));
    assert!(!host.has_leaf(&on("n2", "web")) && !host.has_leaf(&on("n33", "web")));
    let mut held = Revocations::default();
    held.add(Revoked::IdentityOn(ca.service("web"), "n3".into()), later);
    assert!(held.has_leaf(&on("n3", "web")));
    assert!(!held.has_leaf(&on("n3", "shop")) && !held.has_leaf(&on("n2", "web")));
    assert!(!held.has_leaf(&node));
}

#[test]
fn the_later_of_two_revocations_counts() {
    let ca = Ca::new();
    let leaf = ca.svid(&ca.service("web")).leaf().clone();
    let (before, after) = (leaf.not_before - MINUTE, leaf.not_before + MINUTE);
    for times in [[before, after], [after, before]] {
        let mut revocations = Revocations::default();
        for time in times {
            revocations.add(Revoked::Identity(ca.service("web")), time);
        }
        assert!(revocations.has_leaf(&leaf));
    }
    let mut revocations = Revocations::default();
    revocations.add(Revoked::Identity(ca.service("web")), before);
    assert!(!revocations.has_leaf(&leaf));
}
