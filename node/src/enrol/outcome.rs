//! How an attempt to join ends: a closed list, which metrics and joiners share.

use serde::{Deserialize, Serialize};

/// How a request at the join port ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Outcome {
    /// A host was let in.
    Joined,
    /// The request is not what a joiner of this version sends.
    Malformed,
    /// The issuer that is to decide never made this invitation, or forgot it.
    Unknown,
    /// It is not signed with the token's key, or not for this connection.
    Tampered,
    /// The invitation is for another node.
    OtherNode,
    /// The invitation is for other services.
    OtherServices,
    /// An operator took the invitation back.
    Revoked,
    /// A host joined with it before.
    Spent,
    /// It is too late.
    Expired,
    /// A host of this name is alive in the mesh.
    NodeAlive,
    /// A signing request is not what it has to be.
    BadRequest,
    /// The issuer that made the invitation cannot be asked.
    HomeUnreachable,
    /// Something is wrong at the issuer.
    Internal,
}

/// A host is not let in: why, for programs and in one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    pub outcome: Outcome,
    pub why: String,
}

impl Outcome {
    const ALL: [Self; 13] = [
        Self::Joined,
        Self::Malformed,
        Self::Unknown,
        Self::Tampered,
        Self::OtherNode,
        Self::OtherServices,
        Self::Revoked,
        Self::Spent,
        Self::Expired,
        Self::NodeAlive,
        Self::BadRequest,
        Self::HomeUnreachable,
        Self::Internal,
    ];

    /// The label in metrics and logs, and the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Tampered => "tampered",
            Self::OtherNode => "other_node",
            Self::OtherServices => "other_services",
            Self::Revoked => "revoked",
            Self::Spent => "spent",
            Self::Expired => "expired",
            Self::NodeAlive => "node_alive",
            Self::BadRequest => "bad_request",
            Self::HomeUnreachable => "home_unreachable",
            Self::Internal => "internal",
        }
    }

    /// Reads [`Outcome::as_str`]; any other word is that of a newer issuer.
    pub fn parse(word: &str) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|outcome| outcome.as_str() == word)
            .unwrap_or(Self::Internal)
    }

    /// Whether another issuer, or the same one later, may decide otherwise.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::HomeUnreachable | Self::Internal)
    }

    /// What the operator at the joining host can do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Joined => "",
            Self::Malformed | Self::BadRequest => "use the same version of starling on both hosts",
            Self::Unknown
            | Self::Revoked
            | Self::Spent
            | Self::Expired
            | Self::OtherNode
            | Self::OtherServices => {
                "make a new token on an issuer: `starling invite --node NAME --service NAME`"
            }
            Self::Tampered => {
                "the token was changed on its way; make a new one on an issuer with `starling invite`"
            }
            Self::NodeAlive => {
                "stop the agent of that host first, or invite this one under another name"
            }
            Self::HomeUnreachable => {
                "start the issuer that made the token, or make another on an issuer that runs"
            }
            Self::Internal => "the log of the issuer tells more",
        }
    }
}

impl From<String> for Outcome {
    fn from(word: String) -> Self {
        Self::parse(&word)
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> Self {
        outcome.as_str().to_owned()
    }
}

impl Turned {
    pub fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        Self {
            outcome,
            why: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_one_word_everywhere() {
        for outcome in Outcome::ALL {
            let word = outcome.as_str();
            assert_eq!(Outcome::parse(word), outcome);
            assert_eq!(
                serde_json::to_string(&outcome).unwrap(),
                format!("\"{word}\"")
            );
        }
        assert_eq!(Outcome::parse("something new"), Outcome::Internal);
    }
}
