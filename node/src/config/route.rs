//! `[[route]]` and documents of kind `route`: where calls to a service go. What it all means is in [`crate::route`].

mod action;
mod matches;
mod share;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use starling_gossip::ServiceName;
use toml::Spanned;
use toml::de::DeTable;

use super::check::Checker;
use super::keys;
use super::problems::Problems;
use super::raw::route as raw;
use crate::route::{Route, Rule};

impl Route {
    /// A route of this host's own files.
    pub(super) fn check(raw: &Spanned<raw::Route>, checker: &mut Checker<'_>) -> Option<Self> {
        let span = raw.span();
        let raw = raw.get_ref();
        let service = checker.required(
            raw.service.as_ref(),
            &span,
            "service",
            "whose callers it directs: `service = \"orders\"`",
        );
        let service = service.and_then(|name| checker.service_name(name));
        let rules = check_rules(raw, &span, checker);
        Some(Self {
            service: service?,
            rules,
            declared: checker.place(&span),
        })
    }

    /// The body of a document: the same without `service`, which is the document's name. `file` is how the document
    /// is called in messages.
    pub fn from_document(service: &ServiceName, file: &Path, body: &str) -> Result<Self, Problems> {
        let mut checker = Checker::new(file, body);
        let parsed = DeTable::parse(body).and_then(|mut table| {
            keys::remove_unknown_in_route(table.get_mut(), &mut checker);
            raw::Route::deserialize(toml::de::Deserializer::from(table))
        });
        let rules = match parsed {
            Ok(raw) => {
                if let Some(name) = raw
                    .service
                    .filter(|name| name.get_ref() != service.as_str())
                {
                    let what = format!("this document is the route of `{service}`");
                    checker.problem(name.span(), what, "leave `service` out");
                }
                raw.rule
            }
            Err(error) => {
                checker.refuse(&error);
                None
            }
        };
        let raw = raw::Route {
            service: None,
            rule: rules,
        };
        let span = 0..0;
        let rules = check_rules(&raw, &span, &mut checker);
        let route = Self {
            service: service.clone(),
            rules,
            declared: checker.place(&span),
        };
        checker.finish().or(|| route)
    }
}

fn check_rules(raw: &raw::Route, span: &Range<usize>, checker: &mut Checker<'_>) -> Vec<Arc<Rule>> {
    let rules = raw.rule.as_deref().unwrap_or_default();
    if rules.is_empty() && checker.is_good() {
        checker.problem(
            span.clone(),
            "a route without rules directs nothing",
            "add a rule, or leave the route out: calls then go to any instance",
        );
    }
    if let Some(rule) = rules.get(RULES_MAX) {
        let what = format!("a route has at most {RULES_MAX} rules");
        checker.problem(rule.span(), what, "each call looks at them one by one");
    }
    rules
        .iter()
        .take(RULES_MAX)
        .map(|rule| Arc::new(check_rule(rule, checker)))
        .collect()
}

fn check_rule(raw: &Spanned<raw::Rule>, checker: &mut Checker<'_>) -> Rule {
    let span = raw.span();
    let raw = raw.get_ref();
    let matches = raw
        .matches
        .as_ref()
        .map(|matches| matches::check(matches.get_ref(), checker))
        .unwrap_or_default();
    Rule {
        name: raw
            .name
            .as_ref()
            .map(|name| check_name(name, checker))
            .unwrap_or_default(),
        action: action::check(raw, &matches, checker),
        matches,
        declared: checker.place(&span),
    }
}

fn check_name(name: &Spanned<String>, checker: &mut Checker<'_>) -> String {
    let text = name.get_ref();
    let is_word = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b' '));
    if !is_word || text.is_empty() || text.len() > NAME_BYTES_MAX {
        checker.problem(
            name.span(),
            "`name` is not a plain word",
            "up to 63 characters of a-z A-Z 0-9 . _ - and space",
        );
    }
    text.clone()
}

/// A call looks at each: some ten microseconds for so many.
const RULES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 63;
