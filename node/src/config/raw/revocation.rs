//! The shape of a document of kind `revocation`.

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::Text;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Document {
    pub(in crate::config) revoked: Option<Vec<Spanned<Revoked>>>,
}

/// One `[[revoked]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Revoked {
    pub(in crate::config) identity: Text,
    pub(in crate::config) host: Text,
    pub(in crate::config) issuer: Text,
    pub(in crate::config) line: Text,
    pub(in crate::config) public_key: Text,
    pub(in crate::config) issued_before: Time,
    pub(in crate::config) not_after: Time,
    pub(in crate::config) reason: Text,
}

type Time = Option<Spanned<Datetime>>;
