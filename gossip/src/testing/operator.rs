//! Operators with real keys, for whose documents the network's root vouches.

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::Network;
use super::authority::new_key;
use crate::documents::{DocumentKey, Draft, DraftRow, Grant, SignedGrant, key_hash};
use crate::names::{DocumentKind, OperatorName};

/// An operator.
#[derive(Debug)]
pub struct Operator {
    key: Ed25519KeyPair,
    grant: SignedGrant,
}

impl Operator {
    /// An operator for these kinds, from an hour ago for a day.
    pub fn new(network: &dyn Network, name: &str, kinds: &[&str]) -> Self {
        Self::with(network, name, kinds, |_| {})
    }

    /// The same, with a grant that is changed before the root signs it.
    pub fn with(
        network: &dyn Network,
        name: &str,
        kinds: &[&str],
        change: impl FnOnce(&mut Grant),
    ) -> Self {
        let key = new_key();
        let mut grant = unsigned(network, name, kinds, &key);
        change(&mut grant);
        let signature = network.sign_as_root(&grant.to_sign());
        Self {
            key,
            grant: grant.signed(signature).unwrap(),
        }
    }

    /// One that made itself: its grant is signed with its own key.
    pub fn self_made(network: &dyn Network, name: &str, kinds: &[&str]) -> Self {
        let key = new_key();
        let grant = unsigned(network, name, kinds, &key);
        let signature = key.sign(&grant.to_sign()).as_ref().to_vec();
        Self {
            key,
            grant: grant.signed(signature).unwrap(),
        }
    }

    /// What names the operator's key.
    pub fn key_hash(&self) -> [u8; 32] {
        key_hash(&self.grant.grant().public_key)
    }

    /// A revision of `key`, such as `policy/orders`, issued now.
    pub fn draft(&self, network: &dyn Network, key: &str, revision: u64, body: &str) -> Draft {
        let DocumentKey { kind, name } = key.parse().unwrap();
        Draft {
            kind,
            issued: network.clock().now_s(),
            rows: vec![DraftRow {
                name,
                revision,
                replaces: None,
                deleted: false,
                body: body.into(),
            }],
        }
    }

    /// Signs a draft.
    pub fn sign(&self, draft: &Draft) -> Vec<u8> {
        let signature = self.key.sign(&draft.to_sign(&self.grant));
        draft.signed(&self.grant, signature.as_ref().to_vec())
    }

    /// A signed revision.
    pub fn write(&self, network: &dyn Network, key: &str, revision: u64, body: &str) -> Vec<u8> {
        self.sign(&self.draft(network, key, revision, body))
    }

    /// A signed deletion.
    pub fn delete(&self, network: &dyn Network, key: &str, revision: u64) -> Vec<u8> {
        let mut draft = self.draft(network, key, revision, "");
        draft.rows[0].deleted = true;
        self.sign(&draft)
    }
}

fn unsigned(network: &dyn Network, name: &str, kinds: &[&str], key: &Ed25519KeyPair) -> Grant {
    let now = network.clock().now_s();
    Grant {
        trust_domain: network.trust_domain().into(),
        operator: OperatorName::parse(name).unwrap(),
        public_key: key.public_key().as_ref().try_into().unwrap(),
        kinds: kinds
            .iter()
            .map(|kind| DocumentKind::parse(kind).unwrap())
            .collect(),
        rank: 1,
        not_before: now - 3600,
        not_after: now + 24 * 3600,
        serial: [7; 16],
    }
}
