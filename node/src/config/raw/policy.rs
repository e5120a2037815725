//! The shape of what says who may call: in `starling.toml`, in a `[[service]]`, and in documents of kind `policy`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

use super::Text;

type List = Option<Spanned<Vec<Spanned<String>>>>;

/// Names and their members.
pub(in crate::config) type Groups = BTreeMap<Spanned<String>, Spanned<Vec<Spanned<String>>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Policy {
    pub(in crate::config) mode: Text,
}

/// One `[[service.grant]]` or `[[service.deny]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rule {
    pub(in crate::config) from: List,
    pub(in crate::config) methods: List,
    pub(in crate::config) paths: List,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Document {
    pub(in crate::config) groups: Option<Groups>,
    pub(in crate::config) mode: Option<Spanned<Modes>>,
    pub(in crate::config) grant: Option<Vec<Spanned<DocumentRule>>>,
    pub(in crate::config) deny: Option<Vec<Spanned<DocumentRule>>>,
}

/// One `[[grant]]` or `[[deny]]` of a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct DocumentRule {
    pub(in crate::config) services: List,
    pub(in crate::config) from: List,
    pub(in crate::config) methods: List,
    pub(in crate::config) paths: List,
}

/// One `[[mode]]` of a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Mode {
    pub(in crate::config) services: List,
    pub(in crate::config) mode: Text,
}

/// `mode = "audit"` for the mesh, or `[[mode]]` for some services.
#[derive(Debug)]
pub(in crate::config) enum Modes {
    Mesh(String),
    Services(Vec<Spanned<Mode>>),
}

impl<'de> Deserialize<'de> for Modes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Modes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`mode = \"…\"` for the whole mesh or tables `[[mode]]`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Modes, E> {
                Ok(Modes::Mesh(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Modes, A::Error> {
                let mut modes = Vec::new();
                while let Some(mode) = list.next_element()? {
                    modes.push(mode);
                }
                Ok(Modes::Services(modes))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
