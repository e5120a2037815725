//! The shape of the files. Nothing here is checked beyond its TOML type; values keep their place for messages.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

pub(super) mod calls;
pub(super) mod policy;
pub(super) mod revocation;
pub(super) mod route;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Number = Option<Spanned<Whole>>;
pub(super) type Time = Option<Spanned<Duration>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Text,
    pub(super) advertise: Text,
    pub(super) seeds: Option<Vec<Spanned<String>>>,
    pub(super) zone: Text,
    pub(super) state: Text,
    pub(super) admin: Option<Admin>,
    pub(super) log: Option<Log>,
    pub(super) trace: Option<Trace>,
    pub(super) limits: Option<Limits>,
    pub(super) policy: Option<policy::Policy>,
    pub(super) groups: Option<policy::Groups>,
    pub(super) issuer: Option<Issuer>,
    pub(super) service: Option<Vec<Spanned<Service>>>,
    pub(super) upstream: Option<Vec<Spanned<Upstream>>>,
    pub(super) route: Option<Vec<Spanned<route::Route>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Text,
    pub(super) listen: Text,
    pub(super) dashboard: Option<bool>,
    pub(super) remote: Text,
    pub(super) names: Option<Vec<Spanned<String>>>,
    pub(super) allow: Option<Vec<Spanned<String>>>,
    pub(super) certificate: Text,
    pub(super) key: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Text,
    pub(super) level: Text,
    pub(super) access: Option<AccessLog>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLog {
    pub(super) fields: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) sample: Option<Spanned<route::Percent>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trace {
    pub(super) endpoint: Text,
    pub(super) protocol: Text,
    pub(super) sample: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: Number,
    pub(super) streams_per_peer: Number,
    pub(super) header_bytes: Number,
    pub(super) pending: Number,
    pub(super) idle: Time,
    pub(super) wait: Time,
    pub(super) connect: Time,
    pub(super) drain: Time,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) listen: Text,
    pub(super) lifetime: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Text,
    pub(super) address: Text,
    pub(super) port: Number,
    pub(super) protocol: Text,
    pub(super) http: Text,
    pub(super) proxy_protocol: Text,
    pub(super) hosts: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) trust_headers: Option<Vec<Spanned<String>>>,
    pub(super) allow: Option<Vec<Spanned<String>>>,
    pub(super) grant: Option<Vec<Spanned<policy::Rule>>>,
    pub(super) deny: Option<Vec<Spanned<policy::Rule>>>,
    pub(super) mode: Text,
    pub(super) plaintext: Text,
    pub(super) labels: Option<Spanned<BTreeMap<String, String>>>,
    pub(super) weight: Number,
    pub(super) health: Option<Spanned<Health>>,
    pub(super) limits: Option<Spanned<calls::ServiceLimits>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) kind: Text,
    pub(super) path: Text,
    pub(super) service: Text,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) interval: Time,
    pub(super) timeout: Time,
    pub(super) up: Number,
    pub(super) down: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) service: Text,
    pub(super) listen: Text,
    #[serde(rename = "as")]
    pub(super) caller: Text,
    pub(super) protocol: Text,
    pub(super) hosts: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) balance: Option<Spanned<calls::Balance>>,
    pub(super) retry: Option<Spanned<calls::Retry>>,
    pub(super) timeout: Option<Spanned<calls::Timeouts>>,
    pub(super) limits: Option<Spanned<calls::CallLimits>>,
    pub(super) outlier: Option<Spanned<calls::Outlier>>,
}

/// A span of time as written. A type of its own so that a bare number is answered with how to write it.
#[derive(Debug, Clone)]
pub(super) struct Duration(pub(super) String);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit in quotes, such as \"30s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                Ok(Duration(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Written)
    }
}

/// A number as written, with words of its own for what is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number without quotes")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }
        deserializer.deserialize_i64(Written)
    }
}
