//! What the book of this issuer knows of a leaked key, and of the hosts that go with an issuer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_transport::{HostHash, KeyHash, Leaf, TrustBundle};
use tokio::time::Instant;

use super::ended::BUSY;
use super::questions::role;
use crate::admin::view::LineQuestion;
use crate::ca::Signed;
use crate::control::Refused;
use crate::host::Host;
use crate::mesh::unix_s;

/// What one issuer knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booked {
    /// The certificate with the key, or of the name the one whose line began last; and its issuer's. DER, base64.
    certificate: Option<[String; 2]>,
    /// Hosts, and those of their identities whose newest leaf here has the issuer in question in its line; with the time when that
    /// leaf was issued, in seconds since 1970.
    pub holders: BTreeMap<String, BTreeMap<String, u64>>,
    /// So many hosts more.
    pub left_out: usize,
}

impl Booked {
    /// The leaf that was asked for. A node that is no issuer could say anything, so the certificate has to prove itself.
    pub fn leaf(&self, question: &LineQuestion, trust: &TrustBundle) -> Option<Leaf> {
        let chain = self.certificate.as_ref()?;
        let der = |text: &String| STANDARD.decode(text).ok();
        let chain = vec![der(&chain[0])?, der(&chain[1])?];
        // It may be one that is revoked.
        let trust = trust.without(Arc::default());
        let leaf = trust.verify_der(&chain, SystemTime::now()).ok()?;
        is_about(question, &leaf).then_some(leaf)
    }

    /// From the certificates in a book.
    fn of(signed: &[Signed], question: &LineQuestion) -> Self {
        let mut booked = Self::default();
        let found = signed
            .iter()
            .filter(|signed| is_about(question, &signed.leaf));
        let found = found.max_by_key(|signed| signed.leaf.begins);
        booked.certificate =
            found.map(|found| found.chain.each_ref().map(|der| STANDARD.encode(der)));
        if let Some(issuer) = &question.issuer {
            let issuer = HostHash::of(issuer);
            let mut newest: BTreeMap<_, &Leaf> = BTreeMap::new();
            for leaf in signed.iter().map(|signed| &signed.leaf) {
                let of = newest.entry((&leaf.host, &leaf.id)).or_insert(leaf);
                if of.issued() <= leaf.issued() {
                    *of = leaf;
                }
            }
            let newest = newest.into_values();
            booked.hold(newest.filter(|leaf| leaf.signers.has(issuer)));
        }
        booked
    }

    /// Lists all hosts that it can, and identities as far as there is room.
    fn hold<'l>(&mut self, leaves: impl Iterator<Item = &'l Leaf>) {
        let (mut left_out, mut room) = (BTreeSet::new(), IDENTITIES_BYTES);
        for leaf in leaves {
            let host = leaf.host.clone().unwrap_or_default();
            if self.holders.len() >= HOSTS_MAX && !self.holders.contains_key(&host) {
                left_out.insert(host);
                continue;
            }
            let identities = self.holders.entry(host).or_default();
            let id = leaf.id.to_string();
            if identities.len() >= IDENTITIES_MAX {
                continue;
            }
            // Quotes, a colon, a time, a comma.
            if let Some(left) = room.checked_sub(id.len() + 16) {
                room = left;
                identities.insert(id, unix_s(leaf.issued()));
            }
        }
        self.left_out = left_out.len();
    }
}

/// Whether a leaf has the key, or is of the host or service, that a question is about.
pub fn is_about(question: &LineQuestion, leaf: &Leaf) -> bool {
    if let Some(key) = &question.key {
        return key.parse::<KeyHash>().is_ok_and(|key| key == leaf.key_hash);
    }
    let (host, service) = (question.host.as_deref(), question.service.as_deref());
    let is_on = host.is_none_or(|host| leaf.host.as_deref() == Some(host));
    let is_of = service.is_none_or(|service| leaf.id.service_name() == Some(service));
    (host.is_some() || service.is_some()) && is_on && is_of
}

/// `/v1/lines`: what the book of this issuer knows. Any node may ask: certificates are no secret.
pub async fn lines(host: Arc<Host>, peer: Leaf, question: LineQuestion) -> Result<Booked, Refused> {
    let role = role(&host)?;
    let turn = role.readings.take(peer.id.as_str(), Instant::now());
    let _turn = turn.ok_or_else(|| {
        let why = "this issuer is reading its book for others; ask again";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, why)
    })?;
    let read = {
        let role = role.clone();
        move || role.authority().book().good(SystemTime::now())
    };
    let signed = tokio::task::spawn_blocking(read).await;
    let signed = signed.map_err(|error| Refused::internal(error.to_string()))?;
    let signed =
        signed.map_err(|error| Refused::internal(format!("the book cannot be read: {error}")))?;
    Ok(Booked::of(&signed, &question))
}

/// Hosts that are listed: those of a full mesh. With names of 63 characters they are 35 KiB of an answer's 128.
const HOSTS_MAX: usize = 512;

/// Of one host; an operator is shown the host.
const IDENTITIES_MAX: usize = 8;

/// Of all identities together: what hosts and the certificate leave of an answer, with some to spare.
const IDENTITIES_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use starling_gossip::NodeName;
    use starling_transport::{SpiffeId, TrustDomain};

    use super::*;
    use crate::ca::Authority;
    use crate::control::BODY_BYTES_MAX;
    use crate::state::{StateDir, TRUST};

    struct Mesh {
        authority: Authority,
        trust: TrustBundle,
        id: SpiffeId,
        _dir: tempfile::TempDir,
    }

    impl Mesh {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::create(&dir.path().join("state")).unwrap();
            let domain = TrustDomain::parse("example.org").unwrap();
            let node = NodeName::parse("n1").unwrap();
            let authority = Authority::init(&state, &domain, &node).unwrap();
            let trust = TrustBundle::from_pem(domain.clone(), &state.read(TRUST).unwrap()).unwrap();
            let id = SpiffeId::node(&domain, "n2").unwrap();
            authority.issue(&id, Duration::from_secs(60)).unwrap();
            Self {
                authority,
                trust,
                id,
                _dir: dir,
            }
        }

        fn signed(&self) -> Vec<Signed> {
            self.authority.book().good(SystemTime::now()).unwrap()
        }

        fn ask(&self, question: &LineQuestion) -> Booked {
            Booked::of(&self.signed(), question)
        }
    }

    fn with_key(key: KeyHash) -> LineQuestion {
        LineQuestion {
            key: Some(key.to_string()),
            ..LineQuestion::default()
        }
    }

    fn signed_by(issuer: &str) -> LineQuestion {
        LineQuestion {
            issuer: Some(issuer.into()),
            ..LineQuestion::default()
        }
    }

    #[test]
    fn the_certificate_of_a_key_comes_with_its_proof() {
        let mesh = Mesh::new();
        let known = mesh.signed()[0].leaf.clone();
        let question = with_key(known.key_hash);
        let booked = mesh.ask(&question);
        assert_eq!(booked.leaf(&question, &mesh.trust), Some(known));
        let other = with_key(KeyHash::from_bytes([1; 32]));
        assert_eq!(booked.leaf(&other, &mesh.trust), None, "of another key");
        assert_eq!(mesh.ask(&other).leaf(&other, &mesh.trust), None);
        // Another mesh's issuer says what it likes.
        assert_eq!(booked.leaf(&question, &Mesh::new().trust), None);
    }

    #[test]
    fn of_a_host_the_line_that_began_last_is_known() {
        let mesh = Mesh::new();
        let line = crate::ca::new_line(SystemTime::now() + Duration::from_secs(60)).unwrap();
        let terms = crate::ca::Terms {
            host: None,
            lifetime: Duration::from_secs(60),
            line,
        };
        mesh.authority.issue_on(&mesh.id, &terms).unwrap();
        mesh.authority
            .issue(&mesh.id, Duration::from_secs(60))
            .unwrap();
        let of = |host: &str| LineQuestion {
            host: Some(host.into()),
            ..LineQuestion::default()
        };
        let youngest = mesh.signed()[1].leaf.clone();
        let booked = mesh.ask(&of("n2"));
        assert_eq!(booked.leaf(&of("n2"), &mesh.trust), Some(youngest));
        assert_eq!(booked.leaf(&of("n3"), &mesh.trust), None, "of another host");
        let service = LineQuestion {
            service: Some("orders".into()),
            ..of("n2")
        };
        assert_eq!(mesh.ask(&service), Booked::default());
    }

    #[test]
    fn the_hosts_of_an_issuer_are_listed_once_each() {
        let mesh = Mesh::new();
        mesh.authority
            .issue(&mesh.id, Duration::from_secs(60))
            .unwrap();
        let booked = mesh.ask(&signed_by("n1"));
        let newest = mesh.signed()[1].leaf.issued();
        let identities = BTreeMap::from([(mesh.id.to_string(), unix_s(newest))]);
        assert_eq!(
            booked.holders,
            BTreeMap::from([("n2".to_owned(), identities)])
        );
        assert_eq!(mesh.ask(&signed_by("n2")), Booked::default());
    }

    #[test]
    fn a_host_that_was_set_up_anew_was_listed_by_its_old_line() {
        let mesh = Mesh::new();
        let mut line = crate::ca::new_line(SystemTime::now()).unwrap();
        line.signers.add(HostHash::of("n0"), SystemTime::now());
        let terms = crate::ca::Terms {
            host: None,
            lifetime: Duration::from_secs(600),
            line,
        };
        mesh.authority.issue_on(&mesh.id, &terms).unwrap();
        assert_eq!(mesh.ask(&signed_by("n0")).holders.len(), 1);
        mesh.authority
            .issue(&mesh.id, Duration::from_secs(60))
            .unwrap();
        assert_eq!(mesh.ask(&signed_by("n0")).holders.len(), 0);
    }

    /// Leaves of nodes with so many services each, the longest names there are. Only the names count here.
    fn full(mesh: &Mesh, hosts: usize, services: usize) -> Vec<Signed> {
        let one = &mesh.signed()[0];
        let domain = TrustDomain::parse(&"d".repeat(63)).unwrap();
        let mut signed = Vec::new();
        for nth in 0..hosts {
            let host = format!("{nth:03}{}", "h".repeat(60));
            let node = SpiffeId::node(&domain, &host).unwrap();
            let services = (0..services).map(|service| {
                let name = format!("{service:03}{}", "s".repeat(60));
                SpiffeId::service(&domain, &name).unwrap()
            });
            for id in std::iter::once(node).chain(services) {
                let mut one = one.clone();
                (one.leaf.id, one.leaf.host) = (id, Some(host.clone()));
                signed.push(one);
            }
        }
        signed
    }

    #[test]
    fn the_hosts_of_an_issuer_of_a_full_mesh_fit_an_answer() {
        let mesh = Mesh::new();
        let signed = full(&mesh, HOSTS_MAX, 128);
        let booked = Booked::of(&signed, &signed_by("n1"));
        assert_eq!((booked.holders.len(), booked.left_out), (HOSTS_MAX, 0));
        let size = serde_json::to_vec(&booked).unwrap().len();
        assert!(size <= BODY_BYTES_MAX, "{size}");
        assert!(
            booked
                .holders
                .values()
                .any(|identities| !identities.is_empty())
        );
    }

    #[test]
    fn a_host_that_is_left_out_counts_once_whatever_it_holds() {
        let mesh = Mesh::new();
        let signed = full(&mesh, HOSTS_MAX + 2, 5);
        let booked = Booked::of(&signed, &signed_by("n1"));
        assert_eq!((booked.holders.len(), booked.left_out), (HOSTS_MAX, 2));
    }
}
