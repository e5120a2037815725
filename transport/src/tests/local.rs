//! The judgement where no handshake is, and when it is asked again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use super::{BUDGET, dial};
use crate::testing::Ca;
use crate::{
    Callee, Identities, LocalRefusal, LocalSession, Protocol, Refusal, Revocations, Revoked, Svid,
};

const MINUTE: Duration = Duration::from_secs(60);

fn revoked(ca: &Ca, service: &str) -> Revocations {
    let mut revocations = Revocations::default();
    let later = SystemTime::now() + MINUTE;
    revocations.add(Revoked::Identity(ca.service(service)), later);
    revocations
}

fn open(ca: &Ca, held: &Arc<Identities>) -> Result<LocalSession, LocalRefusal> {
    LocalSession::open(held, &ca.service("web"), &ca.service("shop"))
}

#[tokio::test]
async fn a_call_within_a_host_goes_on_only_with_two_good_certificates() {
    let ca = Ca::new();
    let held = Identities::new(ca.set("a", &["web", "shop"]));
    for (service, refusal) in [
        ("web", LocalRefusal::Caller(Refusal::Revoked)),
        ("shop", LocalRefusal::Callee(Refusal::Revoked)),
    ] {
        let (mut waiting, mut polled) = (open(&ca, &held).unwrap(), open(&ca, &held).unwrap());
        assert_eq!(polled.has_ended(), None);
        held.revoke(revoked(&ca, service));
        assert_eq!(polled.has_ended(), Some(refusal), "{service}");
        let ended = timeout(BUDGET, waiting.ended()).await;
        assert_eq!(ended, Ok(refusal), "{service}");
        assert_eq!(open(&ca, &held).unwrap_err(), refusal, "{service}");
        held.revoke(Revocations::default());
        assert!(open(&ca, &held).is_ok(), "{service}");
    }
    // New certificates leave a call alone; none at all end it.
    let mut session = open(&ca, &held).unwrap();
    held.replace(ca.set("a", &["web", "shop"]));
    assert_eq!(session.has_ended(), None);
    held.replace(ca.set("a", &["shop"]));
    let gone = LocalRefusal::Caller(Refusal::NoCertificate);
    assert_eq!(session.has_ended(), Some(gone));
}

#[tokio::test]
async fn a_call_within_a_host_ends_with_the_first_certificate() {
    let ca = Ca::new();
    let mut set = ca.set("a", &["web"]);
    let ends = OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let intermediate = ca.intermediate(|p| p.not_after = ends);
    let shop = ca.service("shop");
    let svid: Svid = intermediate.svid(ca.params(&[shop.as_str()]));
    set.services.insert(shop, svid);
    let held = Identities::new(set);
    let mut session = open(&ca, &held).unwrap();
    let over = LocalRefusal::Callee(Refusal::Expired);
    assert_eq!(timeout(BUDGET, session.ended()).await, Ok(over));
    assert_eq!(open(&ca, &held).unwrap_err(), over);
}

#[tokio::test(start_paused = true)]
async fn a_judgement_is_asked_again_when_it_named_an_end_and_every_minute() {
    let ca = Ca::new();
    let held = Identities::new(ca.set("a", &[]));
    let mut answers = vec![
        Err(()),
        Ok(SystemTime::now() + 10 * MINUTE),
        Ok(SystemTime::now() + Duration::from_secs(10)),
    ];
    let began = Instant::now();
    let mut asked = Vec::new();
    held.until_refused(|| {
        asked.push(began.elapsed().as_secs());
        answers.pop().unwrap()
    })
    .await;
    // Real time passes too, so that the first wait is a moment shorter.
    assert!(matches!(asked[..], [0, 9 | 10, 69 | 70]), "{asked:?}");
}

#[tokio::test]
async fn what_is_revoked_here_is_not_spoken_for_here_but_in_gossip() {
    let ca = Ca::new();
    let (a, b) = (ca.endpoint("a", &["web"]), ca.endpoint("b", &["orders"]));
    let call = dial(&a.endpoint, &ca, "web", "orders", b.addr)
        .await
        .unwrap();
    let to = Callee::Exactly(ca.node("b"));
    let gossip = || {
        let node = ca.node("a");
        let (endpoint, to) = (a.endpoint.clone(), to.clone());
        async move {
            endpoint
                .dial(&node, &to, b.addr, Protocol::Gossip, BUDGET)
                .await
        }
    };
    let before = gossip().await.unwrap();
    let mut revocations = revoked(&ca, "web");
    revocations.add(Revoked::Host("a".into()), SystemTime::now() + MINUTE);
    a.identities.revoke(revocations);
    timeout(BUDGET, call.closed()).await.unwrap();
    let again = dial(&a.endpoint, &ca, "web", "orders", b.addr).await;
    assert_eq!(again.unwrap_err().reason(), "revoked");
    // By gossip it would hear that the revocation is taken back.
    assert!(before.is_open() && gossip().await.unwrap().is_open());
}
