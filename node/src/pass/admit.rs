//! Whether a pass holds here and now.

use std::time::{Duration, SystemTime};

use http::HeaderName;
use starling_gossip::documents::{Grant, key_hash};
use starling_gossip::{
    DocumentKind, NodeName, OperatorName, ServiceName, Verifier, verify_operator,
};

use super::{LIFETIME_MAX, Pass, Signed, to_sign};
use crate::host::Host;
use crate::mesh::{BundleVerifier, unix_s};
use crate::telemetry::metrics;

/// A pass that holds, and whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub pass: Pass,
    pub operator: OperatorName,
}

/// Why a pass does not hold. A closed list: it is a metric's label, and it travels between agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    #[error("this is not a pass")]
    Malformed,
    #[error("the pass was signed for another mesh")]
    OtherMesh,
    #[error("no root of this mesh made the pass's operator")]
    Grant,
    #[error("the pass is altered or was not signed by its operator")]
    Signature,
    #[error("the key of the pass's operator is revoked")]
    Revoked,
    #[error("a revocation is missing on this node, so the pass's operator may be revoked")]
    Unsure,
    #[error("the grant of the pass's operator has ended or not begun")]
    GrantDates,
    #[error("the pass has ended")]
    Ended,
    #[error("the pass is not good yet; a clock is wrong")]
    Early,
    #[error("the pass is good for longer than a pass may be")]
    TooLong,
    #[error("the pass's operator has not the right to give it")]
    Right,
    #[error("the pass is for calls to other services")]
    Callee,
    #[error("the pass does not show the value of a header field that is asked for")]
    Header,
    #[error("the pass does not open dashboards")]
    See,
    #[error("the pass was made for another node to carry")]
    Node,
}

impl PassError {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OtherMesh => "other_mesh",
            Self::Grant => "grant",
            Self::Signature => "signature",
            Self::Revoked => "revoked",
            Self::Unsure => "unsure",
            Self::GrantDates => "grant_dates",
            Self::Ended => "ended",
            Self::Early => "early",
            Self::TooLong => "too_long",
            Self::Right => "right",
            Self::Callee => "callee",
            Self::Header => "header",
            Self::See => "see",
            Self::Node => "node",
        }
    }

    /// What puts it right.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Malformed => "copy all of it; `starling login` makes another one",
            Self::OtherMesh | Self::Grant => {
                "use an operator's file that `starling operator new` made with this mesh's root"
            }
            Self::Signature => "make another one",
            Self::Revoked | Self::GrantDates => {
                "`starling operator new` makes another operator, where the root's key is"
            }
            Self::Unsure => "`starling get` on that node tells which document it waits for",
            Self::Ended | Self::TooLong => "make another one, with a shorter --for if need be",
            Self::Early => "set the clocks of both hosts by NTP",
            Self::Right => {
                "`starling operator new --kinds tap,see` makes one who has, where the root's key is"
            }
            Self::Callee => "make one for this service: `starling login --tap NAME`",
            Self::Header => "make one that names it: --show NAME",
            Self::See => "`starling login` makes one that does",
            Self::Node => "make one for the node whose agent you ask: `starling login --node NAME`",
        }
    }
}

/// What somebody wants to do with a pass.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'w> {
    /// Open a dashboard.
    See,
    /// Look at calls to a service, with the values of some header fields.
    Tap {
        callee: &'w ServiceName,
        headers: &'w [HeaderName],
    },
}

/// Whether `text` lets `carrier`, the node that brings it, do what it wishes. Counts what it refuses.
pub fn admit(
    host: &Host,
    text: &str,
    carrier: &NodeName,
    wish: Wish<'_>,
) -> Result<Admitted, PassError> {
    let verifier = BundleVerifier::new(host.identities.clone());
    let documents = host.membership.documents();
    let is_revoked = |grant: &Grant| {
        let key = key_hash(&grant.public_key);
        documents.operators.is_revoked(&key, grant.rank)
    };
    let judge = Judge {
        trust_domain: host.trust_domain.as_str(),
        verifier: &verifier,
        is_revoked: &is_revoked,
        is_unsure: host.policy.has_stand_ins(),
        now_s: unix_s(SystemTime::now()),
    };
    let admitted = judge.admit(text, carrier, wish);
    admitted.inspect_err(|refusal| metrics::pass_refused(*refusal))
}

/// What a pass is judged by.
pub(super) struct Judge<'j> {
    pub(super) trust_domain: &'j str,
    pub(super) verifier: &'j dyn Verifier,
    /// Whether the key in a grant is revoked.
    pub(super) is_revoked: &'j dyn Fn(&Grant) -> bool,
    /// Who is revoked is not known.
    pub(super) is_unsure: bool,
    pub(super) now_s: u64,
}

impl Judge<'_> {
    /// Costs a check of an Ed25519 signature and one of a root's; what can be refused without is refused first.
    pub(super) fn admit(
        &self,
        text: &str,
        carrier: &NodeName,
        wish: Wish<'_>,
    ) -> Result<Admitted, PassError> {
        let signed = Signed::parse(text).ok_or(PassError::Malformed)?;
        let grant = signed.grant.grant();
        if grant.trust_domain != self.trust_domain {
            return Err(PassError::OtherMesh);
        }
        self.check_dates(&signed)?;
        check_wish(&signed, carrier, wish)?;
        if self.is_unsure {
            return Err(PassError::Unsure);
        }
        let genuine = signed.grant.is_genuine(self.verifier);
        genuine.map_err(|_wrong| PassError::Grant)?;
        let message = to_sign(&signed.grant, &signed.content);
        let own = verify_operator(&grant.public_key, &message, &signed.signature);
        own.map_err(|_wrong| PassError::Signature)?;
        if (self.is_revoked)(grant) {
            return Err(PassError::Revoked);
        }
        Ok(Admitted {
            operator: grant.operator.clone(),
            pass: signed.pass,
        })
    }

    fn check_dates(&self, signed: &Signed) -> Result<(), PassError> {
        let (pass, grant) = (&signed.pass, signed.grant.grant());
        let slack = CLOCK_SLACK.as_secs();
        let has_begun = |from: u64| self.now_s.saturating_add(slack) >= from;
        let is_over = |until: u64| self.now_s > until.saturating_add(slack);
        if !has_begun(grant.not_before) || is_over(grant.not_after) {
            return Err(PassError::GrantDates);
        }
        if !has_begun(pass.not_before) {
            return Err(PassError::Early);
        }
        if is_over(pass.not_after) {
            return Err(PassError::Ended);
        }
        if pass.lifetime() > LIFETIME_MAX {
            return Err(PassError::TooLong);
        }
        Ok(())
    }
}

fn check_wish(signed: &Signed, carrier: &NodeName, wish: Wish<'_>) -> Result<(), PassError> {
    let pass = &signed.pass;
    if pass.node != *carrier {
        return Err(PassError::Node);
    }
    let mut kinds = signed.grant.grant().kinds.iter().map(DocumentKind::as_str);
    match wish {
        Wish::See if !pass.sees => Err(PassError::See),
        Wish::See if !kinds.any(|kind| kind == SEE) => Err(PassError::Right),
        Wish::Tap { callee, .. } if !pass.taps.has(callee) => Err(PassError::Callee),
        Wish::Tap { .. } if !kinds.any(|kind| kind == TAP) => Err(PassError::Right),
        Wish::Tap { headers, .. } if headers.iter().any(|name| !pass.headers.contains(name)) => {
            Err(PassError::Header)
        }
        Wish::See | Wish::Tap { .. } => Ok(()),
    }
}

/// The word in a grant that lets its operator give passes for dashboards.
pub const SEE: &str = "see";

/// The word in a grant that lets its operator give passes for calls.
pub const TAP: &str = "tap";

/// How far apart clocks may be. A pass is often good for minutes, so five as for certificates would be too much.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
