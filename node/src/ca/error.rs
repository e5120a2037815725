//! Why the CA did not do what it was asked.

use std::path::PathBuf;
use std::string::FromUtf8Error;
use std::time::Duration;

use starling_transport::{IdentityError, LineFull, Refusal, SpiffeId, SvidError};

use super::{BACKDATED, RequestError};
use crate::state::StateError;

/// Files written before the error stay; asking again replaces them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("{} holds no CA", state.display())]
    NoAuthority { state: PathBuf },
    #[error("the intermediate certificate of this issuer is revoked; what it signs is refused")]
    Revoked,
    #[error("{} is not the certificate of an issuer", path.display())]
    NotAnIntermediate { path: PathBuf },
    #[error("{} cannot be used", path.display())]
    Trust { path: PathBuf, source: SvidError },
    #[error("{} is not text", path.display())]
    NotText {
        path: PathBuf,
        source: FromUtf8Error,
    },
    #[error("{} belongs to {found}, not to {asked}", out.display())]
    OtherNode {
        out: PathBuf,
        found: SpiffeId,
        asked: SpiffeId,
    },
    #[error("a lifetime of {} is not between 1 second and 365 days", humantime::format_duration(*lifetime))]
    Lifetime { lifetime: Duration },
    #[error("{} is not here", path.display())]
    NoRootKey { path: PathBuf },
    #[error("the request is not signed")]
    Request(#[source] RequestError),
    #[error("not a name")]
    Name(#[source] IdentityError),
    /// The intermediate does not belong to its key or to the roots, or has ended.
    #[error("what this CA issues would be refused by its own mesh")]
    Refused(#[source] Refusal),
    #[error("what this CA issues cannot be used")]
    Unusable(#[source] SvidError),
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("{} is not the certificate of a root", path.display())]
    NotARoot { path: PathBuf },
    #[error("an operator's lifetime of {} is not between 1 second and 10 years", humantime::format_duration(*lifetime))]
    OperatorLifetime { lifetime: Duration },
    #[error("{} does not hold the rank of the operator made last", path.display())]
    Rank { path: PathBuf },
    #[error("cannot make the operator's grant")]
    Grant(#[source] starling_gossip::documents::GrantError),
    #[error("no issuer can renew it any more")]
    LineFull(#[from] LineFull),
    #[error(
        "certificates may begin to count at most {} from now",
        humantime::format_duration(BACKDATED)
    )]
    LineAhead,
    #[error("the signing ended: {0}")]
    Ended(String),
    #[error("no random bytes from the kernel")]
    Random(#[source] std::io::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

impl CaError {
    /// What puts it right.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exists { .. } => {
                "this host has an identity already; use another --state, or move the old directory away first".to_owned()
            }
            Self::NoAuthority { .. } => {
                "run this on the host where `starling init` was run, or name its state directory with --state".to_owned()
            }
            Self::NoRootKey { .. } => {
                "only the root's key makes issuers and operators; run this where it is kept, with --state of that place. \
                 Everything else works without it"
                    .to_owned()
            }
            Self::Revoked => {
                "use another issuer, or make this host one again: `starling ca add-issuer` where the root's key is. `starling get \
                 revocation` shows who revoked it, and why"
                    .to_owned()
            }
            Self::Rank { .. } => {
                "say the rank with --rank; the smaller of two may revoke the other's key".to_owned()
            }
            Self::OtherNode { .. } => "choose another --out: two hosts must not be one node".to_owned(),
            Self::Refused(_) => {
                "see `openssl x509 -text` of ca/intermediate.pem and trust.pem: do they belong together, has one ended?"
                    .to_owned()
            }
            Self::LineFull(_) => {
                "invite the host anew: `starling invite` on an issuer, and `starling join` there".to_owned()
            }
            Self::LineAhead => "give --after a moment that is not so far ahead, or wait; is a clock wrong?".to_owned(),
            Self::State(error) => return error.hint(),
            _ => return None,
        })
    }
}
