//! `match`: which calls a rule is for.

use std::collections::BTreeMap;

use http::{HeaderName, Method};
use toml::Spanned;

use super::raw;
use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::path::Pattern;
use crate::route::matcher::{Match, Want};
use crate::route::regex::Regex;

pub(super) fn check(raw: &raw::Match, checker: &mut Checker<'_>) -> Match {
    Match {
        path: raw.path.as_ref().and_then(|path| check_path(path, checker)),
        path_regex: raw
            .path_regex
            .as_ref()
            .and_then(|text| check_regex("path_regex", text.get_ref(), text, checker)),
        methods: listed("methods", &raw.methods, checker, check_method),
        headers: wants(&raw.headers, "headers", checker, check_header),
        query: wants(&raw.query, "query", checker, |name, _checker| {
            Some(name.get_ref().clone())
        }),
        callers: listed("callers", &raw.callers, checker, |name, checker| {
            checker.service_name(name)
        }),
        zones: listed("zones", &raw.zones, checker, |zone, _checker| {
            Some(zone.get_ref().clone())
        }),
    }
}

fn check_path(path: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Pattern> {
    Pattern::parse(path.get_ref())
        .map_err(|error| {
            let what = format!("`path` cannot be `{}`: {error}", shown(path.get_ref()));
            checker.problem(path.span(), what, error.hint());
        })
        .ok()
}

fn check_regex<T>(
    key: &str,
    text: &str,
    at: &Spanned<T>,
    checker: &mut Checker<'_>,
) -> Option<Regex> {
    Regex::parse(text)
        .map_err(|why| {
            let what = format!("`{key}` is not a usable expression: {why}");
            let hint = "bytes, not Unicode; always matched against the whole value; no look-around or back-references";
            checker.problem(at.span(), what, hint);
        })
        .ok()
}

fn check_method(method: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Method> {
    let text = method.get_ref();
    let parsed = Method::from_bytes(text.as_bytes()).ok();
    let is_upper = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if parsed.is_none() || !is_upper {
        let what = format!("`{}` is not a method", shown(text));
        checker.problem(method.span(), what, "capitals, as in \"GET\"");
        return None;
    }
    parsed
}

fn check_header(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<HeaderName> {
    let text = name.get_ref();
    let parsed = HeaderName::from_bytes(text.as_bytes()).ok();
    match parsed {
        Some(parsed) if parsed == http::header::HOST => {
            let what = "`host` is not seen as a header field";
            checker.problem(
                name.span(),
                what,
                "callers name the service, whatever its host is called",
            );
            None
        }
        Some(parsed) if parsed.as_str().starts_with("starling-") => {
            let what = format!("no app's request keeps `{parsed}`");
            checker.problem(name.span(), what, "who calls is `callers = [\"web\"]`");
            None
        }
        None => {
            let what = format!("`{}` is not the name of a header field", shown(text));
            checker.problem(name.span(), what, "");
            None
        }
        parsed => parsed,
    }
}

/// An empty list would match nothing; whoever means anything leaves the key out.
fn listed<T>(
    key: &str,
    raw: &Option<Spanned<Vec<Spanned<String>>>>,
    checker: &mut Checker<'_>,
    check: impl Fn(&Spanned<String>, &mut Checker<'_>) -> Option<T>,
) -> Vec<T> {
    let Some(list) = raw else {
        return Vec::new();
    };
    if list.get_ref().is_empty() {
        let what = format!("`{key}` is empty, so nothing matches");
        checker.problem(list.span(), what, "leave it out to match any");
    }
    list.get_ref()
        .iter()
        .filter_map(|one| check(one, checker))
        .collect()
}

fn wants<N>(
    raw: &Option<BTreeMap<Spanned<String>, Spanned<raw::Want>>>,
    key: &str,
    checker: &mut Checker<'_>,
    name: impl Fn(&Spanned<String>, &mut Checker<'_>) -> Option<N>,
) -> Vec<(N, Want)> {
    raw.iter()
        .flatten()
        .filter_map(|(written, want)| {
            let name = name(written, checker);
            let key = format!("{key}.{}", shown(written.get_ref()));
            Some((name?, check_want(&key, want, checker)?))
        })
        .collect()
}

fn check_want(key: &str, raw: &Spanned<raw::Want>, checker: &mut Checker<'_>) -> Option<Want> {
    match raw.get_ref() {
        raw::Want::Exact(text) => Some(Want::Exact(text.clone())),
        raw::Want::Present(true) => Some(Want::Present),
        raw::Want::Present(false) => Some(Want::Absent),
        raw::Want::Table(table) => match (&table.prefix, &table.regex) {
            (Some(prefix), None) => Some(Want::Prefix(prefix.clone())),
            (None, Some(text)) => check_regex(key, text, raw, checker).map(Want::Regex),
            _ => {
                let what = format!("`{key}` says not one thing");
                checker.problem(raw.span(), what, "either `prefix` or `regex`");
                None
            }
        },
    }
}
