//! What becomes of invitations when one of their names is revoked.

use serde::{Deserialize, Serialize};

use super::Gap;
use crate::said;

/// Asked by `POST /v1/invitations`: which name was revoked. A host, a service, or a service on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedName {
    pub host: Option<String>,
    pub service: Option<String>,
    /// Of the revocation, in seconds since 1970.
    pub issued_before: u64,
}

/// Its answer: the invitations of that name that were made before its revocation, all of which are ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInvitations {
    pub invitations: Vec<EndedInvitation>,
    /// So many more were ended and are not listed.
    pub left_out: usize,
    /// Issuers that were not asked or did not answer.
    pub not_asked: Vec<Gap>,
}

/// One of them. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInvitation {
    /// The node that made it.
    pub issuer: String,
    pub invitation: String,
    pub node: String,
    pub services: Vec<String>,
    pub made_at: u64,
    /// What it was before: `open`, `used`, `taken back` or `expired`.
    pub was: String,
    /// When it was used or taken back, or when it expired or would have.
    pub at: u64,
    /// Where the host that used it came from.
    pub from: Option<String>,
}

impl EndedInvitation {
    /// What another node answered, marked as its words.
    pub(crate) fn of_another(self) -> Self {
        Self {
            issuer: said::word(&self.issuer),
            invitation: said::word(&self.invitation),
            node: said::word(&self.node),
            services: self.services.iter().map(|one| said::word(one)).collect(),
            was: match self.was.as_str() {
                "taken back" => self.was,
                other => said::word(other),
            },
            from: self.from.as_deref().map(said::word),
            ..self
        }
    }
}

/// Asked by `POST /v1/good-from`: who is to be invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    pub node: String,
    pub services: Vec<String>,
}

/// Its answer: the latest `issued_before`, in seconds since 1970, of the revocations of these names that are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodFrom {
    pub good_from: Option<u64>,
}
