//! The shape of `[[route]]`, and of a document of kind `route`, which holds the same but for the service's name.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::{Number, Text, Time, calls};

/// Values by name, each with its place.
type Named<T> = Option<BTreeMap<Spanned<String>, Spanned<T>>>;
type List = Option<Spanned<Vec<Spanned<String>>>>;
type Labels = Option<Spanned<BTreeMap<String, String>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    pub(in crate::config) service: Text,
    pub(in crate::config) rule: Option<Vec<Spanned<Rule>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rule {
    pub(in crate::config) name: Text,
    #[serde(rename = "match")]
    pub(in crate::config) matches: Option<Spanned<Match>>,
    pub(in crate::config) to: Labels,
    pub(in crate::config) split: Option<Spanned<Vec<Spanned<Part>>>>,
    pub(in crate::config) sticky: Option<Spanned<Sticky>>,
    pub(in crate::config) rewrite: Option<Spanned<Rewrite>>,
    pub(in crate::config) redirect: Option<Spanned<Redirect>>,
    pub(in crate::config) respond: Option<Spanned<Respond>>,
    pub(in crate::config) request_headers: Option<Spanned<Edits>>,
    pub(in crate::config) response_headers: Option<Spanned<Edits>>,
    pub(in crate::config) mirror: Option<Spanned<Mirror>>,
    pub(in crate::config) fault: Option<Spanned<Fault>>,
    pub(in crate::config) body_bytes: Number,
    pub(in crate::config) balance: Option<Spanned<calls::Balance>>,
    pub(in crate::config) retry: Option<Spanned<calls::Retry>>,
    pub(in crate::config) timeout: Option<Spanned<calls::Timeouts>>,
    pub(in crate::config) limits: Option<Spanned<calls::CallLimits>>,
    pub(in crate::config) outlier: Option<Spanned<calls::Outlier>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Match {
    pub(in crate::config) path: Text,
    pub(in crate::config) path_regex: Text,
    pub(in crate::config) methods: List,
    pub(in crate::config) headers: Named<Want>,
    pub(in crate::config) query: Named<Want>,
    pub(in crate::config) callers: List,
    pub(in crate::config) zones: List,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Part {
    pub(in crate::config) to: Labels,
    pub(in crate::config) weight: Option<Spanned<Percent>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Sticky {
    pub(in crate::config) header: Text,
    pub(in crate::config) cookie: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    pub(in crate::config) path: Text,
    pub(in crate::config) prefix: Text,
    pub(in crate::config) host: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Redirect {
    pub(in crate::config) status: Number,
    pub(in crate::config) scheme: Text,
    pub(in crate::config) host: Text,
    pub(in crate::config) path: Text,
    pub(in crate::config) prefix: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Respond {
    pub(in crate::config) status: Number,
    pub(in crate::config) body: Text,
    pub(in crate::config) content_type: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Edits {
    pub(in crate::config) remove: Option<Vec<Spanned<String>>>,
    pub(in crate::config) set: Named<String>,
    pub(in crate::config) add: Named<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Mirror {
    pub(in crate::config) service: Text,
    pub(in crate::config) to: Labels,
    pub(in crate::config) percent: Option<Spanned<Percent>>,
    pub(in crate::config) credentials: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Fault {
    pub(in crate::config) delay: Time,
    pub(in crate::config) delay_percent: Option<Spanned<Percent>>,
    pub(in crate::config) abort: Number,
    pub(in crate::config) abort_percent: Option<Spanned<Percent>>,
}

/// What a header field or query parameter must be: `"1"`, `true`, `false`, `{ prefix = "eu-" }` or `{ regex = "…" }`.
#[derive(Debug, Clone)]
pub(in crate::config) enum Want {
    Exact(String),
    Present(bool),
    Table(WantTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct WantTable {
    pub(in crate::config) prefix: Option<String>,
    pub(in crate::config) regex: Option<String>,
}

impl<'de> Deserialize<'de> for Want {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Want;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a text, true (there), false (not there), { prefix = \"…\" } or { regex = \"…\" }",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Want, E> {
                Ok(Want::Exact(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, is_there: bool) -> Result<Want, E> {
                Ok(Want::Present(is_there))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Want, A::Error> {
                WantTable::deserialize(MapAccessDeserializer::new(map)).map(Want::Table)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// A number from 0 to 100 as written, whole or not.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Percent(pub(in crate::config) f64);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Percent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number without quotes, such as 10 or 0.5")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Percent, E> {
                Ok(Percent(number as f64))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Percent, E> {
                Ok(Percent(number))
            }
        }
        deserializer.deserialize_any(Written)
    }
}
