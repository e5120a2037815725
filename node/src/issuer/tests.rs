use std::sync::Arc;
use std::time::UNIX_EPOCH;

use starling_gossip::ServiceName;
use starling_transport::TrustDomain;

use super::*;
use crate::ca::{Asking, LIFETIME};
use crate::invites::Invite;
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
            .add(token.id, &Invite::of(&token, 0), 0)
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
            now: UNIX_EPOCH + Duration::from_secs(now),
            lifetime: LIFETIME,
            is_alive,
            seeds: vec!["10.0.0.1:7400".into()],
            revocations: Arc::default(),
        };
        let redeemed = self.role.redeem(asked, &BINDING, "10.0.0.2:5", &moment);
        redeemed.map_or_else(
            |turned| turned.outcome,
            |joined| {
                assert_eq!(joined.leaves.len(), 2);
                Outcome::Joined
            },
        )
    }
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
    assert_eq!(mesh.ask(&joiner, 1001, false), Outcome::Expired);
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
        let key = other
            .state
            .read_secret(crate::ca::INTERMEDIATE_KEY)
            .unwrap();
        mesh.state.write(crate::ca::INTERMEDIATE_KEY, &key).unwrap();
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
