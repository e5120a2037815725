use std::sync::Arc;
use std::time::UNIX_EPOCH;

use starling_gossip::ServiceName;
use starling_transport::{Revoked, TrustDomain};

use super::*;
use crate::ca::{Asking, LIFETIME};
use crate::invites::{Invite, REPEAT_S};
use crate::token::Token;

const BINDING: [u8; 32] = [9; 32];

struct Mesh {
    role: Role,
    state: StateDir,
    _dir: tempfile::TempDir,
}

/// What a joiner has: its token and the requests for its keys.
#[derive(Clone)]
struct Joiner {
    token: Token,
    wish: Wish,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        Authority::init(&state, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        Self {
            role: Role::load(&state).unwrap(),
            state,
            _dir: dir,
        }
    }

    /// An invitation that was made at the second 1.
    fn invite(&self, id: u8) -> Joiner {
        let token = Token {
            trust_domain: TrustDomain::parse("example.org").unwrap(),
            root_sha256: [0; 32],
            id: InviteId([id; 16]),
            seed: [id; 32],
            node: NodeName::parse("n2").unwrap(),
            services: vec![ServiceName::parse("orders").unwrap()],
            not_after: 1000,
            home: NodeName::parse("n1").unwrap(),
            issuers: vec!["10.0.0.1:7402".into()],
        };
        Invites(&self.state)
            .add(token.id, &Invite::of(&token, 1), 0)
            .unwrap();
        let wish = Wish {
            invite: token.id.to_string(),
            home: "n1".into(),
            node: "n2".into(),
            services: vec!["orders".into()],
            requests: requests(),
        };
        Joiner { token, wish }
    }

    /// How asking ends, at the second `now`.
    fn ask(&self, joiner: &Joiner, now: u64, is_alive: bool) -> Outcome {
        let asked = Asked::new(&joiner.wish, &joiner.token, &BINDING);
        self.decide(&asked, now, is_alive)
    }

    fn decide(&self, asked: &Asked, now: u64, is_alive: bool) -> Outcome {
        let moment = Moment {
            is_alive,
            ..moment(now)
        };
        outcome(self.role.redeem(asked, &BINDING, "10.0.0.2:5", &moment))
    }

    /// What asking gets at the second `now`, while this is revoked.
    fn redeem(&self, joiner: &Joiner, now: u64, revoked: &Revocations) -> Result<Joined, Turned> {
        let moment = Moment {
            revocations: Arc::new(revoked.clone()),
            ..moment(now)
        };
        let asked = Asked::new(&joiner.wish, &joiner.token, &BINDING);
        self.role.redeem(&asked, &BINDING, "10.0.0.2:5", &moment)
    }
}

fn moment(now: u64) -> Moment {
    Moment {
        now: UNIX_EPOCH + Duration::from_secs(now),
        lifetime: LIFETIME,
        is_alive: false,
        seeds: vec!["10.0.0.1:7400".into()],
        revocations: Arc::default(),
    }
}

fn revoked(what: Revoked, before: u64) -> Revocations {
    let mut revocations = Revocations::default();
    revocations.add(what, UNIX_EPOCH + Duration::from_secs(before));
    revocations
}

fn outcome(redeemed: Result<Joined, Turned>) -> Outcome {
    redeemed.map_or_else(
        |turned| turned.outcome,
        |joined| {
            assert_eq!(joined.leaves.len(), 2);
            Outcome::Joined
        },
    )
}

fn requests() -> Vec<String> {
    let ids = [
        "spiffe://example.org/node/n2",
        "spiffe://example.org/svc/orders",
    ];
    let request = |id: &str| {
        let asking = Asking::new(&SpiffeId::parse(id).unwrap()).unwrap();
        STANDARD.encode(asking.request)
    };
    ids.map(request).into()
}

#[test]
fn an_invitation_lets_one_host_in() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Joined);
    let mut other = joiner.clone();
    other.wish.requests = requests();
    assert_eq!(mesh.ask(&other, 11, false), Outcome::Spent);
    // The answer may have been lost: the same keys hear it again, even if the host is up already.
    assert_eq!(mesh.ask(&joiner, 12, true), Outcome::Joined);
    assert_eq!(mesh.ask(&joiner, 1001, false), Outcome::Spent);
}

#[test]
fn a_spent_token_let_its_first_user_in_again_until_it_expired() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let none = Revocations::default();
    let first = mesh.redeem(&joiner, 10, &none).unwrap();
    let again = mesh.redeem(&joiner, 10 + REPEAT_S, &none);
    assert_eq!(again, Ok(first), "the very certificates");
    let late = mesh.redeem(&joiner, 11 + REPEAT_S, &none);
    assert_eq!(outcome(late), Outcome::Spent);
}

#[test]
fn an_issuer_that_crashed_between_spending_and_answering_gives_that_answer() {
    let mut mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let none = Revocations::default();
    let first = mesh.redeem(&joiner, 10, &none).unwrap();
    mesh.role = Role::load(&mesh.state).unwrap();
    assert_eq!(mesh.redeem(&joiner, 12, &none), Ok(first));
}

#[test]
fn an_invitation_outlived_the_revocation_of_its_name() {
    let id = |text: &str| SpiffeId::parse(text).unwrap();
    let orders = id("spiffe://example.org/svc/orders");
    let named = [
        Revoked::Host("n2".into()),
        Revoked::Identity(id("spiffe://example.org/node/n2")),
        Revoked::Identity(orders.clone()),
        Revoked::IdentityOn(orders.clone(), "n2".into()),
    ];
    for what in named {
        let mesh = Mesh::new();
        let (open, used) = (mesh.invite(1), mesh.invite(2));
        assert_eq!(mesh.ask(&used, 10, false), Outcome::Joined);
        for before in [1, 11] {
            let revoked = revoked(what.clone(), before);
            for joiner in [&open, &used] {
                let turned = mesh.redeem(joiner, 12, &revoked).unwrap_err();
                assert_eq!(turned.outcome, Outcome::Revoked, "{what:?} {before}");
            }
        }
        let earlier = mesh.redeem(&open, 12, &revoked(what, 0));
        assert_eq!(outcome(earlier), Outcome::Joined);
    }
    let others = [
        Revoked::Host("n3".into()),
        Revoked::Identity(id("spiffe://example.org/svc/web")),
        Revoked::IdentityOn(orders, "n3".into()),
    ];
    for what in others {
        let mesh = Mesh::new();
        let joined = mesh.redeem(&mesh.invite(1), 12, &revoked(what, 11));
        assert_eq!(outcome(joined), Outcome::Joined);
    }
}

#[test]
fn what_was_issued_is_not_given_again_when_its_key_is_revoked() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let first = mesh.redeem(&joiner, 10, &Revocations::default()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(first.leaves[0].as_bytes()).unwrap();
    let mut revoked = Revocations::default();
    revoked.add_key(starling_transport::KeyHash::of_certificate(&pem.contents).unwrap());
    let again = mesh.redeem(&joiner, 11, &revoked);
    assert_eq!(outcome(again), Outcome::Revoked);
}

#[test]
fn a_revoked_issuer_spends_nothing() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let mut revoked = Revocations::default();
    let later = SystemTime::now() + Duration::from_secs(60);
    revoked.add(Revoked::Issuer("n1".into()), later);
    let turned = mesh.redeem(&joiner, 10, &revoked).unwrap_err();
    assert!(turned.outcome.is_passing(), "{turned:?}");
    assert_eq!(mesh.ask(&joiner, 11, false), Outcome::Joined);
}

#[test]
fn an_end_that_cannot_be_read_or_written_lets_nobody_in() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let end = mesh
        .state
        .path()
        .join(format!("invites/{}.end", joiner.token.id));
    // As a directory it can neither be made a file nor read.
    std::fs::create_dir(&end).unwrap();
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Internal);
    std::fs::remove_dir(&end).unwrap();
    std::fs::write(&end, "{\"how\"").unwrap();
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Internal);
    std::fs::remove_file(&end).unwrap();
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Joined);
}

#[test]
fn each_wrong_wish_is_refused_for_what_is_wrong() {
    let mesh = Mesh::new();
    let check = |change: fn(&mut Joiner), outcome| {
        let mut joiner = mesh.invite(1);
        change(&mut joiner);
        assert_eq!(mesh.ask(&joiner, 10, false), outcome);
    };
    check(|j| j.token.seed[0] ^= 1, Outcome::Tampered);
    check(|j| j.wish.invite = "ab".repeat(16), Outcome::Unknown);
    check(|j| j.wish.invite = "ab".repeat(15), Outcome::Malformed);
    check(|j| j.wish.node = "n3".into(), Outcome::OtherNode);
    check(
        |j| j.wish.services = vec!["pay".into()],
        Outcome::OtherServices,
    );
    check(|j| j.wish.services.clear(), Outcome::OtherServices);
    check(|j| j.wish.requests.truncate(1), Outcome::Malformed);
    check(|j| j.wish.requests.swap(0, 1), Outcome::BadRequest);
    check(|j| j.wish.requests[0] = "?".into(), Outcome::BadRequest);
    check(
        |j| j.wish.requests[1] = j.wish.requests[0].clone(),
        Outcome::BadRequest,
    );
    // None of these has spent it.
    assert_eq!(mesh.ask(&mesh.invite(1), 10, false), Outcome::Joined);
}

#[test]
fn what_was_signed_for_another_connection_is_tampered_with() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let asked = Asked::new(&joiner.wish, &joiner.token, &[8; 32]);
    assert_eq!(mesh.decide(&asked, 10, false), Outcome::Tampered);
    let asked = Asked {
        wish: "{}".into(),
        ..asked
    };
    assert_eq!(mesh.decide(&asked, 10, false), Outcome::Malformed);
}

#[test]
fn too_late_taken_back_and_taken_names_are_refused() {
    let mesh = Mesh::new();
    let joiner = mesh.invite(1);
    assert_eq!(mesh.ask(&joiner, 1001, false), Outcome::Expired);
    assert_eq!(mesh.ask(&joiner, 10, true), Outcome::NodeAlive);
    let revoked = End::Revoked { at: 5 };
    assert!(
        Invites(&mesh.state)
            .finish(joiner.token.id, &revoked)
            .unwrap()
    );
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Revoked);
}

#[test]
fn an_issuer_that_cannot_issue_spends_nothing() {
    let mut mesh = Mesh::new();
    let joiner = mesh.invite(1);
    let good = std::mem::replace(&mut mesh.role, {
        let other = Mesh::new();
        // The certificate of one CA with the key of another, as half a copy leaves it.
        let key = other.state.read_secret(ca::INTERMEDIATE_KEY).unwrap();
        mesh.state.write(ca::INTERMEDIATE_KEY, &key).unwrap();
        Role::load(&mesh.state).unwrap()
    });
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Internal);
    mesh.role = good;
    assert_eq!(mesh.ask(&joiner, 10, false), Outcome::Joined);
}

#[test]
fn of_many_hosts_with_one_token_one_gets_in() {
    let mesh = Arc::new(Mesh::new());
    let joiner = mesh.invite(1);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..32)
            .map(|_| {
                let mut joiner = joiner.clone();
                joiner.wish.requests = requests();
                let mesh = &mesh;
                scope.spawn(move || mesh.ask(&joiner, 10, false))
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |outcome| outcomes.iter().filter(|o| **o == outcome).count();
    assert_eq!((count(Outcome::Joined), count(Outcome::Spent)), (1, 31));
}

#[test]
fn spent_invitations_of_others_are_remembered_within_bounds() {
    let mesh = Mesh::new();
    let home = NodeName::parse("n3").unwrap();
    for n in 0..SPENT_MAX as u128 + 10 {
        mesh.role.note_spent(&home, InviteId(n.to_be_bytes()));
    }
    let last = InviteId((SPENT_MAX as u128 + 9).to_be_bytes());
    assert!(mesh.role.is_spent(&home, last));
    assert!(!mesh.role.is_spent(&NodeName::parse("n4").unwrap(), last));
    assert_eq!(mesh.role.spent_elsewhere.lock().unwrap().len(), SPENT_MAX);
}
