use starling_gossip::{NodeName, ServiceName};
use starling_transport::TrustDomain;

use super::*;
use crate::token::InviteId;

fn token(seed: u8) -> Token {
    Token {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        root_sha256: [1; 32],
        id: InviteId([2; 16]),
        seed: [seed; 32],
        node: NodeName::parse("n2").unwrap(),
        services: vec![ServiceName::parse("orders").unwrap()],
        not_after: 1_900_000_000,
        home: NodeName::parse("n1").unwrap(),
        issuers: vec!["10.0.0.1:7402".into()],
    }
}

fn wish() -> Wish {
    Wish {
        invite: "02".repeat(16),
        home: "n1".into(),
        node: "n2".into(),
        services: vec!["orders".into()],
        requests: vec!["AAAA".into()],
    }
}

#[test]
fn a_wish_counts_on_its_connection_with_its_token_only() {
    let (token, binding) = (token(3), [9; 32]);
    let asked = Asked::new(&wish(), &token, &binding);
    let key = token.public_key();
    assert!(asked.is_signed_by(&key, &binding));
    assert!(!asked.is_signed_by(&key, &[8; 32]));
    assert!(!asked.is_signed_by(&self::token(4).public_key(), &binding));
    let changed = Asked {
        wish: asked.wish.replace("orders", "admin"),
        ..asked.clone()
    };
    assert!(!changed.is_signed_by(&key, &binding));
    let broken = Asked {
        signature: "?".into(),
        ..asked
    };
    assert!(!broken.is_signed_by(&key, &binding));
}

#[test]
fn other_keys_are_another_wish() {
    let token = token(3);
    let one = Asked::new(&wish(), &token, &[0; 32]);
    let same = Asked::new(&wish(), &token, &[1; 32]);
    assert_eq!(one.hash(), same.hash());
    let other = Wish {
        requests: vec!["BBBB".into()],
        ..wish()
    };
    assert_ne!(one.hash(), Asked::new(&other, &token, &[0; 32]).hash());
}
