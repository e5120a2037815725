use std::time::{Duration, UNIX_EPOCH};

use starling_transport::Revoked;

use super::*;
use crate::ca::Authority;
use crate::invites::Invite;
use crate::state::StateDir;
use crate::token::InviteId;

struct Issuer {
    role: Role,
    state: StateDir,
    _dir: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        Authority::init(&state, &domain, &name("n1")).unwrap();
        let role = Role::load(&state).unwrap();
        Self {
            role,
            state,
            _dir: dir,
        }
    }

    fn invite(&self, id: u8, node: &str, made_at: u64) -> InviteId {
        let invite = Invite {
            node: node.into(),
            services: vec!["orders".into()],
            not_after: 1000,
            made_at,
            public_key: [id; 32],
        };
        let id = InviteId([id; 16]);
        Invites(&self.state).add(id, &invite, made_at).unwrap();
        id
    }

    /// Ends what `what`, revoked at the second 50, names.
    fn end(&self, what: Revoked, host: Option<&str>, service: Option<&str>) -> Ended {
        let mut revocations = Revocations::default();
        revocations.add(what, UNIX_EPOCH + Duration::from_secs(50));
        let revoked = RevokedName {
            host: host.map(str::to_owned),
            service: service.map(str::to_owned),
            issued_before: 50,
        };
        let ended = self
            .role
            .end_revoked(&name("n1"), &revoked, &revocations, 60);
        ended.unwrap()
    }

    fn is_taken_back(&self, id: InviteId) -> bool {
        matches!(
            Invites(&self.state).end(id).unwrap(),
            Some(End::Revoked { .. })
        )
    }
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

#[test]
fn a_revocation_left_invitations_of_its_name_open() {
    let issuer = Issuer::new();
    let open = issuer.invite(1, "n2", 40);
    let used = issuer.invite(2, "n2", 30);
    let later = issuer.invite(3, "n2", 51);
    let other = issuer.invite(4, "n3", 40);
    let spent = End::Spent {
        at: 45,
        from: "10.0.0.2:5".into(),
        wish: [1; 32],
        joined: None,
    };
    assert!(Invites(&issuer.state).finish(used, &spent).unwrap());
    let ended = issuer.end(Revoked::Host("n2".into()), Some("n2"), None);
    let listed: Vec<_> = ended
        .invitations
        .iter()
        .map(|one| (&*one.was, one.made_at))
        .collect();
    assert_eq!(listed, [("used", 30), ("open", 40)]);
    assert!(issuer.is_taken_back(open));
    assert!(
        ![used, later, other]
            .into_iter()
            .any(|id| issuer.is_taken_back(id))
    );
    // Once more, it is said how they ended.
    let again = issuer.end(Revoked::Host("n2".into()), Some("n2"), None);
    let listed: Vec<_> = again.invitations.iter().map(|one| &*one.was).collect();
    assert_eq!(listed, ["used", "taken back"]);
}

#[test]
fn a_revoked_service_ends_the_invitations_that_name_it() {
    let issuer = Issuer::new();
    let ids = [issuer.invite(1, "n2", 40), issuer.invite(2, "n3", 40)];
    let orders = SpiffeId::parse("spiffe://example.org/svc/orders").unwrap();
    let on = Revoked::IdentityOn(orders.clone(), "n3".into());
    issuer.end(on, Some("n3"), Some("orders"));
    assert_eq!(ids.map(|id| issuer.is_taken_back(id)), [false, true]);
    issuer.end(Revoked::Identity(orders), None, Some("orders"));
    assert_eq!(ids.map(|id| issuer.is_taken_back(id)), [true, true]);
}

#[test]
fn nothing_is_ended_that_no_revocation_in_force_covers() {
    let issuer = Issuer::new();
    let id = issuer.invite(1, "n2", 40);
    let ended = issuer.end(Revoked::Host("n9".into()), Some("n2"), None);
    assert!(ended.invitations.is_empty() && !issuer.is_taken_back(id));
}

#[test]
fn a_long_list_is_cut_off_and_all_of_it_ended() {
    let issuer = Issuer::new();
    let ids: Vec<_> = (0..30).map(|id| issuer.invite(id, "n2", 40)).collect();
    let ended = issuer.end(Revoked::Host("n2".into()), Some("n2"), None);
    assert_eq!((ended.invitations.len(), ended.left_out), (LISTED_MAX, 6));
    assert!(ids.into_iter().all(|id| issuer.is_taken_back(id)));
}
