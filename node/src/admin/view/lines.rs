//! Which line a key belongs to, and which hosts go with an issuer.

use serde::{Deserialize, Serialize};

use super::Gap;

/// Asked by `POST /v1/lines`: about the key of a certificate, about an issuer, or about a host, a service, or a service on a
/// host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineQuestion {
    pub key: Option<String>,
    pub issuer: Option<String>,
    pub host: Option<String>,
    pub service: Option<String>,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineAnswer {
    /// The line of the key, if it is known to this node or to an issuer that was asked.
    pub found: Option<FoundLine>,
    /// When the youngest line of the host or service began, in seconds since 1970.
    pub youngest: Option<u64>,
    /// Hosts that a revocation would throw out.
    pub holders: Vec<LineHolder>,
    /// So many more than are listed.
    pub left_out: usize,
    /// Whether the node that was asked about is known as an issuer.
    pub is_issuer: bool,
    /// Whether this node would be thrown out too.
    pub own: bool,
    /// Issuers that were not asked or did not answer.
    pub not_asked: Vec<Gap>,
}

/// The line of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLine {
    pub line: String,
    pub identity: String,
    pub host: Option<String>,
}

/// A host, and its identities that would be thrown out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineHolder {
    pub host: String,
    pub identities: Vec<String>,
}
