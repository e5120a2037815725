//! `[[route]]` and documents of kind `route`: where calls to a service go. What it all means is in [`crate::route`].

mod action;
mod document;
mod matches;
pub(super) mod share;

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use super::check::Checker;
use super::raw::route as raw;
use crate::route::{Route, Rule};

pub use document::Document;

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
        .enumerate()
        .map(|(at, rule)| Arc::new(check_rule(at + 1, rule, checker)))
        .collect()
}

fn check_rule(number: usize, raw: &Spanned<raw::Rule>, checker: &mut Checker<'_>) -> Rule {
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
        number: number.to_string(),
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
