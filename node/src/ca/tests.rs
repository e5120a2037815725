use std::process::Command;

use starling_transport::IdentityKind;

use super::*;

fn mesh() -> (tempfile::TempDir, StateDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    let authority = Authority::init(&state, &domain(), &node("n1")).unwrap();
    (dir, state, authority)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn svid(state: &StateDir, chain: &str, key: &str) -> Svid {
    Svid::from_pem(
        &state.read(chain).unwrap(),
        &state.read_secret(key).unwrap(),
    )
    .unwrap()
}

#[test]
fn a_bundle_proves_its_node_and_services() {
    let (dir, state, authority) = mesh();
    let out = StateDir::create(&dir.path().join("n2")).unwrap();
    authority
        .write_bundle(&out, &node("n2"), &[service("orders")], LIFETIME)
        .unwrap();
    let trust = TrustBundle::from_pem(domain(), &out.read(TRUST).unwrap()).unwrap();
    let now = SystemTime::now();
    let leaf = trust
        .verify_der(&svid(&out, NODE_CHAIN, NODE_KEY).chain(), now)
        .unwrap();
    assert_eq!(leaf.id.kind(), IdentityKind::Node("n2"));
    assert_eq!(leaf.serial.len(), 16);
    let left = leaf.time_left(now);
    assert!(
        left <= LIFETIME && left > LIFETIME - Duration::from_secs(5),
        "{left:?}"
    );
    assert!(leaf.not_before < now - Duration::from_secs(290));
    let leaf = trust
        .verify_der(&svid(&out, "svc/orders.pem", "svc/orders.key").chain(), now)
        .unwrap();
    assert_eq!(leaf.id.kind(), IdentityKind::Service("orders"));
    assert!(!out.exists("ca"), "a bundle carries no CA key");
    assert!(state.exists(ROOT_KEY));
}

#[test]
fn two_meshes_do_not_trust_each_other() {
    let (_a, state, _) = mesh();
    let (_b, _, other) = mesh();
    let trust = TrustBundle::from_pem(domain(), &state.read(TRUST).unwrap()).unwrap();
    let id = SpiffeId::node(&domain(), "n1").unwrap();
    let issued = other.issue(&id, LIFETIME).unwrap();
    let svid = Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    assert!(trust.verify_der(&svid.chain(), SystemTime::now()).is_err());
}

#[test]
fn init_does_not_replace_what_is_there() {
    let (_dir, state, _) = mesh();
    let before = state.read(ROOT_CERT).unwrap();
    let error = Authority::init(&state, &domain(), &node("n1")).unwrap_err();
    assert!(matches!(error, CaError::Exists { .. }), "{error}");
    assert_eq!(state.read(ROOT_CERT).unwrap(), before);
}

#[test]
fn init_does_not_replace_a_joined_host() {
    let (dir, _, authority) = mesh();
    let out = StateDir::create(&dir.path().join("n2")).unwrap();
    authority
        .write_bundle(&out, &node("n2"), &[], LIFETIME)
        .unwrap();
    assert!(matches!(
        Authority::init(&out, &domain(), &node("n1")),
        Err(CaError::Exists { .. })
    ));
}

#[test]
fn a_bundle_is_renewed_in_place_but_never_becomes_another_nodes() {
    let (dir, _, authority) = mesh();
    let out = StateDir::create(&dir.path().join("n2")).unwrap();
    authority
        .write_bundle(&out, &node("n2"), &[service("orders")], LIFETIME)
        .unwrap();
    let first = svid(&out, NODE_CHAIN, NODE_KEY);
    authority
        .write_bundle(&out, &node("n2"), &[service("orders")], LIFETIME)
        .unwrap();
    let second = svid(&out, NODE_CHAIN, NODE_KEY);
    assert_ne!(first.leaf().serial, second.leaf().serial);
    let error = authority
        .write_bundle(&out, &node("n3"), &[], LIFETIME)
        .unwrap_err();
    assert!(matches!(error, CaError::OtherNode { .. }), "{error}");
    assert_eq!(
        svid(&out, NODE_CHAIN, NODE_KEY).leaf().serial,
        second.leaf().serial
    );
}

#[test]
fn a_bundle_cut_short_by_a_crash_is_completed() {
    let (dir, _, authority) = mesh();
    let out = StateDir::create(&dir.path().join("n2")).unwrap();
    authority
        .write_bundle(&out, &node("n2"), &[], LIFETIME)
        .unwrap();
    let id = SpiffeId::node(&domain(), "n2").unwrap();
    out.write(
        NODE_KEY,
        authority.issue(&id, LIFETIME).unwrap().key_pem.as_bytes(),
    )
    .unwrap();
    authority
        .write_bundle(&out, &node("n2"), &[], LIFETIME)
        .unwrap();
    assert_eq!(svid(&out, NODE_CHAIN, NODE_KEY).id(), &id);
}

#[test]
fn a_ca_whose_files_do_not_belong_together_issues_nothing() {
    let (_a, state, _) = mesh();
    let (_b, other, _) = mesh();
    let id = SpiffeId::node(&domain(), "n1").unwrap();
    state
        .write(
            INTERMEDIATE_KEY,
            &other.read_secret(INTERMEDIATE_KEY).unwrap(),
        )
        .unwrap();
    let error = Authority::load(&state)
        .unwrap()
        .issue(&id, LIFETIME)
        .unwrap_err();
    assert!(matches!(error, CaError::Refused(_)), "{error}");

    let (_c, state, _) = mesh();
    state.write(TRUST, &other.read(TRUST).unwrap()).unwrap();
    let error = Authority::load(&state)
        .unwrap()
        .issue(&id, LIFETIME)
        .unwrap_err();
    assert!(matches!(error, CaError::Refused(_)), "{error}");
}

#[test]
fn a_broken_ca_is_refused() {
    for name in [INTERMEDIATE_CERT, INTERMEDIATE_KEY, TRUST] {
        for content in [
            &b""[..],
            b"garbage",
            b"\xff\xfe",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let (_dir, state, _) = mesh();
            state.write(name, content).unwrap();
            let _ = Authority::load(&state).expect_err(name);
        }
    }
    let (_dir, state, _) = mesh();
    let root = state.read(ROOT_CERT).unwrap();
    let leaf = state.read(NODE_CHAIN);
    assert!(leaf.is_err(), "init alone makes no leaf");
    // A root in place of the intermediate does not fit the intermediate's key.
    state.write(INTERMEDIATE_CERT, &root).unwrap();
    let id = SpiffeId::node(&domain(), "n1").unwrap();
    assert!(
        Authority::load(&state)
            .unwrap()
            .issue(&id, LIFETIME)
            .is_err()
    );
}

#[test]
fn lifetimes_are_bounded() {
    let (_dir, _, authority) = mesh();
    let id = SpiffeId::node(&domain(), "n1").unwrap();
    for lifetime in [
        Duration::ZERO,
        *LIFETIMES.end() + Duration::from_secs(1),
        Duration::MAX,
    ] {
        assert!(
            matches!(
                authority.issue(&id, lifetime),
                Err(CaError::Lifetime { .. })
            ),
            "{lifetime:?}"
        );
    }
    assert!(authority.issue(&id, *LIFETIMES.end()).unwrap().not_after <= authority.not_after);
}

/// The words of a tool that is not ours. OpenSSL is on every machine that builds this with git over https; where it is
/// not, the form is still checked by the transport crate's own reader above.
#[test]
fn openssl_accepts_the_chain() {
    let (_dir, state, authority) = mesh();
    authority
        .write_bundle(&state, &node("n1"), &[service("web")], LIFETIME)
        .unwrap();
    let path = |name: &str| state.path().join(name);
    let verify = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            "web.svc.example.org",
            "-CAfile",
        ])
        .args([
            path(TRUST),
            "-untrusted".into(),
            path(INTERMEDIATE_CERT),
            path("svc/web.pem"),
        ])
        .output();
    let Ok(verify) = verify else {
        println!("skipped: no openssl on this machine");
        return;
    };
    assert!(
        verify.status.success(),
        "{}",
        String::from_utf8_lossy(&verify.stderr)
    );
}

#[test]
fn a_bundle_begins_now_or_after_a_revocation_that_is_ahead_and_no_later() {
    let (dir, _, authority) = mesh();
    let minute = Duration::from_secs(60);
    let begins = |name: &str, ahead: Duration| {
        let out = StateDir::create(&dir.path().join(name)).unwrap();
        let before = SystemTime::now();
        let from = before + ahead;
        authority.write_bundle_from(&out, &node(name), &[], LIFETIME, from)?;
        let leaf = svid(&out, NODE_CHAIN, NODE_KEY).leaf().clone();
        assert!(leaf.not_before <= before, "it is good at once");
        Ok::<_, CaError>(leaf.begins.duration_since(before).unwrap_or_default())
    };
    assert!(begins("n2", Duration::ZERO).unwrap() <= Duration::from_secs(1));
    let ahead = begins("n3", 4 * minute).unwrap();
    assert!(ahead > 3 * minute && ahead <= 4 * minute, "{ahead:?}");
    let error = begins("n4", 6 * minute).unwrap_err();
    assert!(matches!(error, CaError::LineAhead), "{error}");
}
