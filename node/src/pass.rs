//! A pass: an operator's word that its bearer may look for a while, at a dashboard (`see`) or at calls (`tap`).
//!
//! It is signed by the operator's key and travels with the operator's grant, so every node checks it by itself, with the
//! root's trust alone, and nobody keeps a list of logins. It names the one node that may carry it: whoever else gets it,
//! such as a node that was asked by the first, cannot use it. It is a secret nevertheless, and is never logged.
//!
//! ```text
//! starling-pass1.<what it says>.<grant>.<signature>        base64url; what it says is JSON
//! ```

mod admit;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use starling_gossip::documents::SignedGrant;
use starling_gossip::{NodeName, ServiceName};

use crate::operator::{Operator, OperatorError};
use crate::random;

pub use admit::{Admitted, PassError, SEE, TAP, Wish, admit};

/// What an operator lets somebody look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The node that may carry it: whose dashboard it opens, and which asks the others.
    pub node: NodeName,
    /// Whether it opens the dashboard where a login is needed.
    pub sees: bool,
    /// The services whose calls it shows.
    pub taps: Taps,
    /// Header fields whose values it shows. The names of all can be seen, and values of secrets never.
    pub headers: Vec<HeaderName>,
    /// From when, in seconds since 1970.
    pub not_before: u64,
    /// Until when, in seconds since 1970.
    pub not_after: u64,
    /// Names it in logs, where its text must not stand.
    pub serial: Serial,
}

/// Services whose calls may be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taps {
    All,
    /// These; of none if it is empty.
    Only(BTreeSet<ServiceName>),
}

/// Names a pass. Random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Serial(pub [u8; 8]);

/// A pass as it was read, whose signature nobody looked at yet.
struct Signed {
    pass: Pass,
    grant: SignedGrant,
    /// What was signed, as far as the pass says it.
    content: Vec<u8>,
    signature: Vec<u8>,
}

/// The JSON in it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    node: String,
    see: bool,
    tap: BTreeSet<String>,
    headers: BTreeSet<String>,
    not_before: u64,
    not_after: u64,
    serial: String,
}

impl Pass {
    /// As text for its bearer. A secret.
    pub fn sign(&self, operator: &Operator) -> Result<String, OperatorError> {
        let content = serde_json::to_vec(&Content::of(self)).expect("texts and numbers are JSON");
        let (grant, signature) = operator.vouch(|grant| to_sign(grant, &content))?;
        let parts = [content, grant, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        Ok(format!("{PREFIX}{}", parts.join(".")))
    }

    /// How long it is good.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.not_after.saturating_sub(self.not_before))
    }
}

impl Taps {
    /// Whether calls to `callee` may be looked at.
    pub fn has(&self, callee: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Only(some) => some.contains(callee),
        }
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(some) if some.is_empty())
    }
}

impl Serial {
    /// A new one.
    pub fn random() -> std::io::Result<Self> {
        random::bytes().map(Self)
    }

    fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok()?;
        let serial = Self(number.to_be_bytes());
        (serial.to_string() == text).then_some(serial)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Signed {
    /// Reads what [`Pass::sign`] wrote.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut parts = text.strip_prefix(PREFIX)?.split('.');
        let mut part = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
        let (content, grant, signature) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            pass: serde_json::from_slice::<Content>(&content).ok()?.check()?,
            grant: SignedGrant::decode(&grant).ok()?,
            content,
            signature,
        })
    }
}

impl Content {
    fn of(pass: &Pass) -> Self {
        let taps = match &pass.taps {
            Taps::All => [ALL.to_owned()].into(),
            Taps::Only(some) => some.iter().map(ToString::to_string).collect(),
        };
        Self {
            node: pass.node.to_string(),
            see: pass.sees,
            tap: taps,
            headers: pass.headers.iter().map(ToString::to_string).collect(),
            not_before: pass.not_before,
            not_after: pass.not_after,
            serial: pass.serial.to_string(),
        }
    }

    fn check(self) -> Option<Pass> {
        let counts_ok = self.tap.len() <= TAPS_MAX && self.headers.len() <= HEADERS_MAX;
        if !counts_ok || self.not_after < self.not_before {
            return None;
        }
        let taps = if self.tap.len() == 1 && self.tap.contains(ALL) {
            Taps::All
        } else {
            let names = self.tap.iter().map(|name| ServiceName::parse(name).ok());
            Taps::Only(names.collect::<Option<_>>()?)
        };
        let headers = self.headers.iter().map(|name| name.parse().ok());
        Some(Pass {
            node: NodeName::parse(&self.node).ok()?,
            sees: self.see,
            taps,
            headers: headers.collect::<Option<_>>()?,
            not_before: self.not_before,
            not_after: self.not_after,
            serial: Serial::parse(&self.serial)?,
        })
    }
}

/// What the operator signs: never to be mistaken for a document, good for one mesh and with one grant only.
fn to_sign(grant: &SignedGrant, content: &[u8]) -> Vec<u8> {
    [
        b"starling-pass/1\0",
        grant.grant().trust_domain.as_bytes(),
        b"\0",
        digest(&SHA256, &grant.encode()).as_ref(),
        content,
    ]
    .concat()
}

const PREFIX: &str = "starling-pass1.";

/// Stands for all services.
pub const ALL: &str = "*";

/// Header fields whose values one pass shows. Somebody looks for something particular.
pub const HEADERS_MAX: usize = 16;

/// Services named in one pass; whoever needs more may have all.
pub const TAPS_MAX: usize = 16;

/// What it says takes 3 KiB at most and the grant 2 KiB, of which base64 makes four thirds. A request's head has room for it.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The longest a pass is good: it opens doors for whoever has it, so it should not outlive a working day.
pub const LIFETIME_MAX: Duration = Duration::from_secs(12 * 60 * 60);

#[cfg(test)]
mod tests;
