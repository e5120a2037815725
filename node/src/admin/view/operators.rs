//! `/v1/operators`: who signed what is held here, and whose word counts.

use serde::{Deserialize, Serialize};

/// One operator's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    pub operator: String,
    /// The key as a revocation names it.
    pub key: String,
    pub rank: u32,
    /// The kinds that the operator may sign.
    pub kinds: Vec<String>,
    /// How long the operator may sign yet; 0 if the grant has ended.
    pub grant_left_s: u64,
    /// By whose word the key is revoked: `root`, `own` or `senior`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
    /// What share of each room the key fills.
    pub fills: Vec<Fill>,
    /// The newest that the key signed of each document.
    pub held: Vec<Held>,
    /// What lists in force say of a revoked key, by whom.
    #[serde(default)]
    pub lists: Vec<ListEntry>,
}

/// How full one room is for one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// A kind, or `deletions`.
    pub room: String,
    pub names: usize,
    pub bytes: usize,
    /// Of what an agent takes from this operator, the fuller of names and bytes, in percent.
    pub percent: usize,
    /// Whether peers offered more than there is room for.
    #[serde(default)]
    pub is_over: bool,
}

/// One revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// `policy/orders`.
    pub document: String,
    pub revision: u64,
    pub hash: String,
    pub deleted: bool,
    pub age_s: u64,
    /// `counts`, `kept`, `unlisted` or `dropped`.
    pub standing: String,
    /// How many revisions were signed together with it, itself included.
    #[serde(default)]
    pub rows: usize,
}

/// What one list says of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The key that signed the list; zeros for the root.
    pub signer: String,
    pub document: String,
    pub revision: u64,
    pub hash: String,
    pub keep: bool,
}
