use std::time::SystemTime;

use proptest::prelude::*;
use starling_gossip::{ProofError, Proven, Verifier};
use starling_transport::{TrustBundle, TrustDomain};

use super::admit::Judge;
use super::*;
use crate::ca::{Authority, RootKey};
use crate::mesh::unix_s;
use crate::state::{StateDir, TRUST};

/// A mesh's root, and what its nodes trust.
struct Mesh {
    state: StateDir,
    trust: TrustBundle,
    _dir: tempfile::TempDir,
}

impl Mesh {
    fn new(domain: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse(domain).unwrap();
        Authority::init(&state, &domain, &node("n1")).unwrap();
        let trust = TrustBundle::from_pem(domain, &state.read(TRUST).unwrap()).unwrap();
        Self {
            state,
            trust,
            _dir: dir,
        }
    }

    fn operator(&self, kinds: &[&str]) -> Operator {
        let root = RootKey::load(&self.state).unwrap();
        let kinds = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
        Operator::make(|public_key| -> anyhow::Result<_> {
            Ok(root.grant("alice".parse()?, public_key, kinds, 1, DAY)?)
        })
        .unwrap()
    }

    fn judge(&self, now_s: u64) -> Judge<'_> {
        Judge {
            trust_domain: self.trust.trust_domain().as_str(),
            verifier: self,
            is_revoked: &|_grant| false,
            is_unsure: false,
            now_s,
        }
    }

    /// Why n1 may not tap orders with it, if so.
    fn tap(&self, text: &str, now_s: u64) -> Option<PassError> {
        let (callee, carrier) = (service("orders"), node("n1"));
        let wish = Wish::Tap {
            callee: &callee,
            headers: &[],
        };
        self.judge(now_s).admit(text, &carrier, wish).err()
    }
}

impl Verifier for Mesh {
    fn prove(&self, _chain: &[Vec<u8>]) -> Result<Proven, ProofError> {
        Err(ProofError::Chain)
    }

    fn verify(&self, _: &Proven, _: &[u8], _: &[u8]) -> Result<(), ProofError> {
        Err(ProofError::Signature)
    }

    fn root(&self, message: &[u8], signature: &[u8]) -> Result<(), ProofError> {
        let verdict = self.trust.verify_root_signature(message, signature);
        verdict.map_err(|_refusal| ProofError::Signature)
    }
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn now() -> u64 {
    unix_s(SystemTime::now())
}

/// For orders, carried by n1, good for five minutes.
fn pass() -> Pass {
    Pass {
        node: node("n1"),
        sees: false,
        taps: Taps::Only([service("orders")].into()),
        headers: ["x-tenant".parse().unwrap()].into(),
        not_before: now(),
        not_after: now() + 300,
        serial: Serial([7; 8]),
    }
}

#[test]
fn a_pass_opens_what_it_names_and_nothing_else() {
    let mesh = Mesh::new("mesh.test");
    let text = pass().sign(&mesh.operator(&["tap"])).unwrap();
    let (orders, n1) = (service("orders"), node("n1"));
    let check = |carrier: &str, wish: Wish<'_>| {
        let admitted = mesh.judge(now()).admit(&text, &node(carrier), wish);
        admitted.map(|admitted| admitted.operator.to_string())
    };
    let alice = Ok("alice".to_owned());
    let no_headers = Wish::Tap {
        callee: &orders,
        headers: &[],
    };
    assert_eq!(check("n1", no_headers), alice);
    // A node that was asked cannot ask with it in turn.
    assert_eq!(check("n2", no_headers), Err(PassError::Node));
    for (header, expected) in [("x-tenant", alice), ("x-other", Err(PassError::Header))] {
        let wish = Wish::Tap {
            callee: &orders,
            headers: &[header.parse().unwrap()],
        };
        assert_eq!(check("n1", wish), expected, "{header}");
    }
    let stock = Wish::Tap {
        callee: &service("stock"),
        headers: &[],
    };
    assert_eq!(check("n1", stock), Err(PassError::Callee));
    assert_eq!(check("n1", Wish::See), Err(PassError::See));
    let all = Pass {
        taps: Taps::All,
        sees: true,
        ..pass()
    };
    let all = all.sign(&mesh.operator(&["tap"])).unwrap();
    assert_eq!(mesh.tap(&all, now()), None);
    let see = mesh.judge(now()).admit(&all, &n1, Wish::See);
    assert_eq!(see.unwrap_err(), PassError::Right);
}

#[test]
fn only_who_has_the_right_gives_passes() {
    let mesh = Mesh::new("mesh.test");
    let old = pass().sign(&mesh.operator(&["policy", "route"])).unwrap();
    assert_eq!(mesh.tap(&old, now()), Some(PassError::Right));
    let other = Mesh::new("mesh.test");
    let foreign = pass().sign(&other.operator(&["tap"])).unwrap();
    assert_eq!(mesh.tap(&foreign, now()), Some(PassError::Grant));
    let elsewhere = Mesh::new("other.test");
    let elsewhere = pass().sign(&elsewhere.operator(&["tap"])).unwrap();
    assert_eq!(mesh.tap(&elsewhere, now()), Some(PassError::OtherMesh));
}

#[test]
fn a_revoked_operator_opens_nothing_nor_does_anybody_while_revocations_are_missing() {
    let mesh = Mesh::new("mesh.test");
    let operator = mesh.operator(&["tap"]);
    let text = pass().sign(&operator).unwrap();
    assert_eq!(mesh.tap(&text, now()), None);
    let (orders, n1) = (service("orders"), node("n1"));
    let wish = Wish::Tap {
        callee: &orders,
        headers: &[],
    };
    let unsure = Judge {
        is_unsure: true,
        ..mesh.judge(now())
    };
    let refused = unsure.admit(&text, &n1, wish).unwrap_err();
    assert_eq!(refused, PassError::Unsure);
    let revoked = Judge {
        is_revoked: &|grant| grant == operator.grant(),
        ..mesh.judge(now())
    };
    let refused = revoked.admit(&text, &n1, wish).unwrap_err();
    assert_eq!(refused, PassError::Revoked);
}

#[test]
fn a_pass_is_good_from_its_beginning_to_its_end_give_or_take_a_minute() {
    let mesh = Mesh::new("mesh.test");
    let operator = mesh.operator(&["tap"]);
    let pass = pass();
    let text = pass.sign(&operator).unwrap();
    let (from, until) = (pass.not_before, pass.not_after);
    for (at, expected) in [
        (from - 61, Some(PassError::Early)),
        (from - 60, None),
        (until + 60, None),
        (until + 61, Some(PassError::Ended)),
        (operator.grant().not_after + 61, Some(PassError::GrantDates)),
    ] {
        assert_eq!(mesh.tap(&text, at), expected, "{at}");
    }
    let eternal = Pass {
        not_after: from + LIFETIME_MAX.as_secs() + 1,
        ..pass
    };
    let eternal = eternal.sign(&operator).unwrap();
    assert_eq!(mesh.tap(&eternal, from), Some(PassError::TooLong));
}

/// What an operator signs as a document opens nothing, even if its text is that of a pass.
#[test]
fn a_documents_signature_is_no_passs() {
    let mesh = Mesh::new("mesh.test");
    let operator = mesh.operator(&["tap", "policy"]);
    let content = serde_json::to_vec(&Content::of(&pass())).unwrap();
    let document = starling_gossip::documents::Draft {
        kind: "policy".parse().unwrap(),
        issued: now(),
        rows: vec![starling_gossip::documents::DraftRow {
            name: "orders".parse().unwrap(),
            revision: 1,
            replaces: None,
            deleted: false,
            body: String::from_utf8(content.clone()).unwrap(),
        }],
    };
    let (grant, _) = operator.vouch(|_| Vec::new()).unwrap();
    let signed = operator.sign(&document).unwrap();
    let signature = signed[signed.len() - 64..].to_vec();
    let parts = [content, grant, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
    let forged = format!("{PREFIX}{}", parts.join("."));
    assert_eq!(mesh.tap(&forged, now()), Some(PassError::Signature));
}

fn any_pass() -> impl Strategy<Value = Pass> {
    let name = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    let services = prop::collection::btree_set(name, 0..=TAPS_MAX);
    let headers = prop::collection::btree_set("[a-z][a-z0-9-]{0,30}", 0..=HEADERS_MAX);
    let dates = (any::<u32>(), any::<u32>());
    let parts = (
        name,
        any::<bool>(),
        services,
        headers,
        dates,
        any::<[u8; 8]>(),
    );
    parts.prop_map(|(node, sees, taps, headers, (from, length), serial)| Pass {
        node: NodeName::parse(&node).unwrap(),
        sees,
        taps: match taps.is_empty() && sees {
            true => Taps::All,
            false => Taps::Only(taps.iter().map(|name| service(name)).collect()),
        },
        headers: headers.iter().map(|name| name.parse().unwrap()).collect(),
        not_before: from.into(),
        not_after: u64::from(from) + u64::from(length),
        serial: Serial(serial),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_is_what_is_read(pass in any_pass()) {
        let mesh = Mesh::new("mesh.test");
        let text = pass.sign(&mesh.operator(&["tap"])).unwrap();
        prop_assert!(text.len() <= TEXT_BYTES_MAX);
        prop_assert_eq!(Signed::parse(&text).unwrap().pass, pass);
    }

    #[test]
    fn nothing_of_a_pass_can_be_changed(at in any::<prop::sample::Index>(), to in 0_usize..64) {
        let mesh = Mesh::new("mesh.test");
        let text = pass().sign(&mesh.operator(&["tap"])).unwrap();
        let at = at.index(text.len());
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut changed = text.clone().into_bytes();
        changed[at] = digits[to];
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != text);
        prop_assert!(mesh.tap(&changed, now()).is_some());
        prop_assert!(mesh.tap(&text[..at], now()).is_some());
    }

    #[test]
    fn no_text_makes_it_panic(text in "(starling-pass1\\.)?[ -~]{0,200}(\\.[a-zA-Z0-9_-]{0,50}){0,3}") {
        prop_assert!(Signed::parse(&text).is_none());
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
