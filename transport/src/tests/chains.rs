//! Whole chains: what an intermediate or a root must be, and that a connection ends with the first certificate to end.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use time::OffsetDateTime;

use super::{BUDGET, dial};
use crate::testing::Ca;
use crate::{Refusal, Svid, TrustBundle};

fn verdict(trust: &TrustBundle, svid: &Svid) -> Option<Refusal> {
    trust.verify_der(&svid.chain(), SystemTime::now()).err()
}

fn hours(h: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::hours(h)
}

fn seconds(s: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::seconds(s)
}

/// Every way in which an intermediate can be wrong, with a leaf that is good.
#[test]
fn an_intermediate_that_may_not_sign_certificates_vouches_for_nobody() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change, Option<Refusal>); 9] = [
        ("good", |_| (), None),
        (
            "no key usage",
            |p| p.key_usages.clear(),
            Some(Refusal::KeyUsage),
        ),
        (
            "signs no certificates",
            |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
            Some(Refusal::KeyUsage),
        ),
        (
            "no CA",
            |p| p.is_ca = IsCa::ExplicitNoCa,
            Some(Refusal::UnknownIssuer),
        ),
        (
            "for servers only",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Some(Refusal::KeyUsage),
        ),
        (
            "for both ends",
            |p| {
                p.extended_key_usages = vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ];
            },
            None,
        ),
        (
            "expired",
            |p| {
                p.not_before = hours(-2);
                p.not_after = hours(-1);
            },
            Some(Refusal::Expired),
        ),
        (
            "early",
            |p| {
                p.not_before = hours(1);
                p.not_after = hours(2);
            },
            Some(Refusal::NotYetValid),
        ),
        (
            "signs data too",
            |p| p.key_usages.push(KeyUsagePurpose::DigitalSignature),
            None,
        ),
    ];
    let ca = Ca::new();
    for (name, change, expected) in cases {
        let svid = ca
            .intermediate(change)
            .svid(ca.params(&[ca.service("web").as_str()]));
        assert_eq!(verdict(&ca.bundle(), &svid), expected, "{name}");
    }
}

/// TLS lets a peer show more than its path takes; each of them is held to the same.
#[test]
fn an_intermediate_is_judged_also_where_no_path_needs_it() {
    let ca = Ca::new();
    let (chain, key) = ca.sign(ca.params(&[ca.service("web").as_str()]));
    let shown = |other: &str| {
        let chain = format!("{chain}{other}");
        Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    };
    let good = ca.intermediate(|_| ());
    assert_eq!(verdict(&ca.bundle(), &shown(&good.pem)), None);
    let ended = ca.intermediate(|p| p.not_after = hours(-1));
    assert_eq!(
        verdict(&ca.bundle(), &shown(&ended.pem)),
        Some(Refusal::Expired)
    );
}

#[test]
fn a_root_that_has_ended_vouches_for_nobody() {
    let leaf = |ca: &Ca| ca.svid(&ca.service("web"));
    let ended = Ca::with(|p| {
        p.not_before = hours(-2);
        p.not_after = hours(-1);
    });
    assert_eq!(
        verdict(&ended.bundle(), &leaf(&ended)),
        Some(Refusal::Expired)
    );
    let early = Ca::with(|p| {
        p.not_before = hours(1);
        p.not_after = hours(2);
    });
    assert_eq!(
        verdict(&early.bundle(), &leaf(&early)),
        Some(Refusal::NotYetValid)
    );
}

#[test]
fn a_root_s_limit_on_cas_below_it_holds() {
    let ca = Ca::with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(verdict(&ca.bundle(), &ca.svid(&ca.service("web"))), None);
    let below = ca
        .intermediate(|_| ())
        .svid(ca.params(&[ca.service("web").as_str()]));
    assert_eq!(verdict(&ca.bundle(), &below), Some(Refusal::UnknownIssuer));
}

#[test]
fn a_certificate_that_may_not_sign_certificates_is_no_root() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 3] = [
        ("no CA", |p| p.is_ca = IsCa::ExplicitNoCa),
        ("no key usage", |p| p.key_usages.clear()),
        ("signs data only", |p| {
            p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
    ];
    for (name, change) in cases {
        assert!(Ca::with(change).try_bundle().is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_connection_does_not_outlive_an_intermediate() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let mut set = ca.set("a", &[]);
    let intermediate = ca.intermediate(|p| p.not_after = seconds(3));
    let svid = intermediate.svid(ca.params(&[ca.service("web").as_str()]));
    set.services.insert(ca.service("web"), svid);
    a.identities.replace(set);
    dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let accepted = b.endpoint.accept().await.unwrap();
    assert!(accepted.ends() < SystemTime::now() + Duration::from_secs(4));
    tokio::time::timeout(BUDGET, accepted.closed())
        .await
        .unwrap();
    // The caller knows it too, and does not try.
    let again = dial(&a.endpoint, &ca, "web", "orders", b.addr).await;
    assert_eq!(again.unwrap_err().reason(), "expired");
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_root() {
    let ca = Ca::with(|p| p.not_after = seconds(3));
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let session = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let accepted = b.endpoint.accept().await.unwrap();
    for session in [session, accepted] {
        tokio::time::timeout(BUDGET, session.closed())
            .await
            .unwrap();
    }
}
