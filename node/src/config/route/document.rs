//! The body of a document of kind `route`: the rules of one service, for callers everywhere.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use starling_gossip::ServiceName;
use toml::de::DeTable;

use super::check_rules;
use crate::config::check::Checker;
use crate::config::raw::route as raw;
use crate::config::{Place, Problems, keys};
use crate::route::{Route, Rule};

/// What an operator says for the whole mesh. The service is the document's name, which its body does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    rules: Vec<Arc<Rule>>,
    declared: Place,
}

impl Document {
    /// Reads a body; `file` only serves messages.
    pub fn parse_as(file: &Path, body: &str) -> Result<Self, Problems> {
        let mut checker = Checker::new(file, body);
        let parsed = DeTable::parse(body).and_then(|mut table| {
            keys::remove_unknown_in_route(table.get_mut(), &mut checker);
            raw::Route::deserialize(toml::de::Deserializer::from(table))
        });
        let raw = match parsed {
            Ok(raw) => raw,
            Err(error) => {
                checker.refuse(&error);
                raw::Route::default()
            }
        };
        if let Some(service) = &raw.service {
            let what = "a document of kind `route` is about the service that it is named after";
            checker.problem(service.span(), what, "leave `service` out");
        }
        let span = 0..0;
        let document = Self {
            rules: check_rules(&raw, &span, &mut checker),
            declared: checker.place(&span),
        };
        checker.finish().or(|| document)
    }

    /// The route of the service after which the document is named.
    pub fn of(&self, service: ServiceName) -> Route {
        Route {
            service,
            rules: self.rules.clone(),
            declared: self.declared.clone(),
        }
    }
}
