//! What a revocation reaches through renewals: certificates are judged by their line.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, CustomExtension};
use rustls::quic::{ClientConnection, KeyChange, ServerConnection, Version};
use rustls_pki_types::ServerName;

use crate::endpoint::tls;
use crate::identities::CalleeVerifier;
use crate::line::SIGNERS_MAX;
use crate::testing::Ca;
use crate::{
    Callee, HostHash, Identities, Line, LineName, Protocol, Refusal, Revocations, Revoked, Signers,
    Svid, TrustBundle, issuer_name,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Whole seconds, as certificates count.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn line(begins: SystemTime) -> Line {
    Line {
        name: LineName([3; 16]),
        begins,
        first: begins,
        signers: Signers::default(),
    }
}

fn carry(params: &mut CertificateParams, line: &Line) {
    let content = line.to_extension().unwrap();
    params.custom_extensions = vec![CustomExtension::from_oid_content(Line::OID, content)];
}

/// A leaf of the issuer on n1, with this line or without one.
fn leaf(ca: &Ca, service: &str, line: Option<&Line>) -> Svid {
    let issuer = ca.intermediate(|params| *params = Ca::intermediate_params());
    let mut params = ca.params(&[ca.service(service).as_str()]);
    if let Some(line) = line {
        carry(&mut params, line);
    }
    issuer.svid(params)
}

fn verdict(trust: &TrustBundle, revoked: Revocations, svid: &Svid) -> Option<Refusal> {
    let trust = trust.without(Arc::new(revoked));
    trust.verify_der(&svid.chain(), SystemTime::now()).err()
}

fn revoked(what: Revoked, before: SystemTime) -> Revocations {
    let mut revocations = Revocations::default();
    revocations.add(what, before);
    revocations
}

#[test]
fn a_certificate_that_was_renewed_after_its_revocation_stays_revoked() {
    let ca = Ca::new();
    let web = || Revoked::Identity(ca.service("web"));
    let old = leaf(&ca, "web", Some(&line(now() - 60 * MINUTE)));
    // Its leaf became valid after the moment, its line before.
    let before = now() - 10 * MINUTE;
    assert!(old.leaf().not_before > before);
    assert_eq!(
        verdict(&ca.bundle(), revoked(web(), before), &old),
        Some(Refusal::Revoked)
    );
    let new = leaf(&ca, "web", Some(&line(before)));
    assert_eq!(verdict(&ca.bundle(), revoked(web(), before), &new), None);
    let mut by_line = Revocations::default();
    by_line.add_line(LineName([3; 16]), ca.service("web"));
    assert_eq!(
        verdict(&ca.bundle(), by_line.clone(), &new),
        Some(Refusal::Revoked)
    );
    let other = Line {
        name: LineName([4; 16]),
        ..line(before)
    };
    assert_eq!(
        verdict(&ca.bundle(), by_line, &leaf(&ca, "web", Some(&other))),
        None
    );
}

/// With an issuer's key one can write any line into a leaf. Its revocation must not throw out the host whose line that is.
#[test]
fn a_leaf_that_names_another_s_line_does_not_take_the_other_along() {
    let ca = Ca::new();
    let begun = line(now() - MINUTE);
    let honest = leaf(&ca, "web", Some(&begun));
    let forged = leaf(&ca, "evil", Some(&begun));
    let mut revocations = Revocations::default();
    revocations.add_line(begun.name, ca.service("evil"));
    assert_eq!(
        verdict(&ca.bundle(), revocations.clone(), &forged),
        Some(Refusal::Revoked)
    );
    assert_eq!(verdict(&ca.bundle(), revocations, &honest), None);
}

#[test]
fn a_certificate_of_ours_without_a_line_began_before_everything() {
    let ca = Ca::new();
    let long_ago = revoked(
        Revoked::Identity(ca.service("web")),
        UNIX_EPOCH + Duration::from_secs(1),
    );
    let ours = leaf(&ca, "web", None);
    assert_eq!(ours.leaf().begins, UNIX_EPOCH);
    assert_eq!(
        verdict(&ca.bundle(), long_ago.clone(), &ours),
        Some(Refusal::Revoked)
    );
    // One of another CA counts from when it became valid.
    let theirs = ca.intermediate(|_| ());
    let theirs = theirs.svid(ca.params(&[ca.service("web").as_str()]));
    assert_eq!(theirs.leaf().begins, theirs.leaf().not_before);
    assert_eq!(verdict(&ca.bundle(), long_ago, &theirs), None);
}

#[test]
fn a_line_that_begins_after_its_leaf_is_refused() {
    let ca = Ca::new();
    let begins = |ahead: Duration| {
        let mut params = ca.params(&[ca.service("web").as_str()]);
        let not_before: SystemTime = params.not_before.into();
        let since = not_before.duration_since(UNIX_EPOCH).unwrap().as_secs();
        carry(
            &mut params,
            &line(UNIX_EPOCH + Duration::from_secs(since) + ahead),
        );
        let (chain, _) = ca.sign(params);
        let der = super::pem_der(&chain);
        ca.bundle().verify_der(&[der], SystemTime::now()).err()
    };
    assert_eq!(begins(5 * MINUTE), None);
    assert_eq!(
        begins(5 * MINUTE + Duration::from_secs(1)),
        Some(Refusal::LineAhead)
    );
}

#[test]
fn a_leaf_with_two_lines_or_a_damaged_one_is_refused() {
    let ca = Ca::new();
    let verdict = |contents: &[Vec<u8>]| {
        let mut params = ca.params(&[ca.service("web").as_str()]);
        let extension =
            |content: &Vec<u8>| CustomExtension::from_oid_content(Line::OID, content.clone());
        params.custom_extensions = contents.iter().map(extension).collect();
        let (chain, _) = ca.sign(params);
        ca.bundle()
            .verify_der(&[super::pem_der(&chain)], SystemTime::now())
            .err()
    };
    let good = line(now() - MINUTE).to_extension().unwrap();
    assert_eq!(verdict(std::slice::from_ref(&good)), None);
    let bad = Some(Refusal::BadEncoding);
    assert_eq!(verdict(&[good[..20].to_vec()]), bad);
    assert!(verdict(&[good.clone(), good]).is_some());
}

#[test]
fn a_leaf_that_a_stolen_issuer_signed_is_refused_also_after_an_honest_renewal() {
    let ca = Ca::new();
    let mut renewed = line(now() - MINUTE);
    renewed
        .signers
        .add(HostHash::of("stolen"), now() - 9 * MINUTE);
    let renewed = leaf(&ca, "web", Some(&renewed));
    assert!(
        renewed.leaf().signers.has(HostHash::of("n1")),
        "the one that it shows"
    );
    let issuer = |host: &str, before| revoked(Revoked::Issuer(host.into()), before);
    let refused = Some(Refusal::RevokedIssuer);
    assert_eq!(
        verdict(&ca.bundle(), issuer("stolen", now()), &renewed),
        refused
    );
    assert_eq!(
        verdict(&ca.bundle(), issuer("n1", now() + MINUTE), &renewed),
        refused
    );
    // A host whose issuer was made anew stays in.
    let anew = issuer("stolen", now() - 9 * MINUTE);
    assert_eq!(verdict(&ca.bundle(), anew, &renewed), None);
    assert_eq!(verdict(&ca.bundle(), issuer("n2", now()), &renewed), None);
}

#[test]
fn a_renewal_goes_on_with_the_line_and_keeps_its_signers() {
    let ca = Ca::new();
    let mut begun = line(now() - 60 * MINUTE);
    begun.signers.add(HostHash::of("n7"), now() - 90 * MINUTE);
    let svid = leaf(&ca, "web", Some(&begun));
    let renewed = Line::renewed(svid.leaf(), LineName([9; 16]));
    assert_eq!(
        (renewed.name, renewed.begins, renewed.first),
        (begun.name, begun.begins, begun.first)
    );
    assert!(renewed.signers.has(HostHash::of("n7")) && renewed.signers.has(HostHash::of("n1")));
    let without = leaf(&ca, "web", None);
    let renewed = Line::renewed(without.leaf(), LineName([9; 16]));
    assert_eq!(
        (renewed.name, renewed.begins),
        (LineName([9; 16]), UNIX_EPOCH)
    );
}

/// Bytes of the server's first flight between two nodes that show the longest lines there are.
#[test]
fn the_longest_line_keeps_a_handshake_within_what_an_unproved_address_may_be_sent() {
    let ca = Ca::new();
    let mut longest = line(now() - MINUTE);
    for host in 0..SIGNERS_MAX {
        longest.signers.add(HostHash::of(&host.to_string()), now());
    }
    let (id, host) = (ca.service(&"s".repeat(63)), "h".repeat(63));
    let issuer = ca.intermediate(|params| {
        *params = Ca::intermediate_params();
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, issuer_name(&host, 7));
        params.distinguished_name = name;
    });
    let mut params = ca.params(&[id.as_str()]);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, &host);
    carry(&mut params, &longest);
    let svid = issuer.svid(params);
    assert_eq!(svid.leaf().line.as_ref(), Some(&longest));

    let mut set = ca.set("a", &[]);
    set.services.insert(id.clone(), svid);
    let identities = Identities::new(set);
    let server = tls::callee(&identities).unwrap();
    let verifier = CalleeVerifier {
        trust: ca.bundle(),
        expected: Callee::Exactly(id.clone()),
    };
    let current = identities.current();
    let caller = current.service(&"s".repeat(63)).unwrap();
    let client = tls::caller(caller, verifier, Protocol::H3).unwrap();
    let name = ServerName::try_from(id.dns_name()).unwrap();
    let client = ClientConnection::new(Arc::new(client), Version::V1, name, vec![0; 64]);
    let server = ServerConnection::new(Arc::new(server), Version::V1, vec![0; 64]);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let mut hello = Vec::new();
    client.write_hs(&mut hello);
    server.read_hs(&hello).unwrap();
    let mut flight = Vec::new();
    while let Some(KeyChange::Handshake { .. } | KeyChange::OneRtt { .. }) =
        server.write_hs(&mut flight)
    {}
    // Of three datagrams of 1,200 bytes, headers and tags take at most 100 each.
    assert!(
        flight.len() > 1800 && flight.len() <= 3 * 1100,
        "{} bytes",
        flight.len()
    );
}
