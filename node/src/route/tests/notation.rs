//! A notation for tests, as short as rules are said aloud:
//!
//! ```text
//! cart v1=90 v2=10; GET /a/** x-beta=1 -> v2     service, where the rest goes; then rules, the first of which counts
//!     GET /cart x-beta:1 => v2                   a call => where it goes
//! ```
//!
//! Conditions: `GET|PUT`, `/path`, `re:/p.*`, `@caller|other`, `%zone`, header `x`, `!x`, `x=1`, `x^pre`, `x~re`, and the
//! same of a query parameter with `?` before its name. Targets: `v2`, `v1=90 v2=10`, `any`, `prefix:/p`, `rewrite:/p`,
//! `host:h`, `redirect:/p`, `redirect-prefix:/p`, `respond:503`.
//!
//! Rules become TOML and are read as a document is, so the table tests what operators write.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use starling_gossip::ServiceName;

use crate::path::Normal;
use crate::route::action::Outcome;
use crate::route::split::{Share, Split};
use crate::route::{Document, Facts, Http, Route};

/// A line of the table.
pub(super) enum Case<'t> {
    Nothing,
    Rules(&'t str),
    Call(&'t str, &'t str),
}

impl<'t> Case<'t> {
    pub(super) fn read(line: &'t str) -> Self {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return Self::Nothing;
        }
        match text.split_once(" => ") {
            Some((call, expected)) => Self::Call(call.trim(), expected.trim()),
            None => Self::Rules(text),
        }
    }
}

pub(super) fn route(text: &str) -> Route {
    let mut clauses = text.split("; ");
    let first = clauses.next().unwrap_or_default();
    let (service, rest) = first.split_once(' ').unwrap_or((first, ""));
    let mut body: String = clauses.map(|clause| rule(clause, text)).collect();
    if !rest.is_empty() {
        body += &rule(&format!("-> {rest}"), text);
    }
    let service = ServiceName::parse(service).unwrap();
    let document = Document::parse_as(Path::new("route"), &body);
    document
        .unwrap_or_else(|problems| panic!("{text}:\n{body}\n{problems}"))
        .of(service)
}

fn rule(clause: &str, text: &str) -> String {
    let (conditions, targets) = clause
        .split_once("-> ")
        .unwrap_or_else(|| panic!("no `->` in `{clause}` of {text}"));
    let conditions: Vec<_> = conditions.split_whitespace().collect();
    let path = conditions
        .iter()
        .find(|word| word.starts_with('/'))
        .map(|path| format!("path = '{path}'"));
    let regex = conditions.iter().find_map(|word| word.strip_prefix("re:"));
    let regex = regex.map(|regex| format!("path_regex = '{regex}'"));
    let methods = conditions.iter().find(|word| is_methods(word));
    let methods = methods.map(|methods| format!("methods = {}", list(methods)));
    let callers = conditions.iter().find_map(|word| word.strip_prefix('@'));
    let callers = callers.map(|callers| format!("callers = {}", list(callers)));
    let zones = conditions.iter().find_map(|word| word.strip_prefix('%'));
    let zones = zones.map(|zones| format!("zones = {}", list(zones)));
    let is_query = |word: &&&str| word.trim_start_matches('!').starts_with('?');
    let is_header = |word: &&&str| {
        let first = word.trim_start_matches('!').chars().next();
        first.is_some_and(|c| c.is_ascii_alphabetic())
            && !is_methods(word)
            && !word.starts_with("re:")
    };
    let query: Vec<_> = conditions
        .iter()
        .filter(is_query)
        .map(|word| want(&word.replacen('?', "", 1)))
        .collect();
    let query = (!query.is_empty()).then(|| format!("query = {{ {} }}", query.join(", ")));
    let headers: Vec<_> = conditions
        .iter()
        .filter(is_header)
        .map(|word| want(word))
        .collect();
    let headers = (!headers.is_empty()).then(|| format!("headers = {{ {} }}", headers.join(", ")));
    let all: Vec<_> = [path, regex, methods, callers, zones, query, headers]
        .into_iter()
        .flatten()
        .collect();
    format!(
        "[[rule]]\nmatch = {{ {} }}\n{}",
        all.join(", "),
        target(targets)
    )
}

fn is_methods(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_uppercase() || b == b'|')
}

fn list(words: &str) -> String {
    format!("{:?}", words.split('|').collect::<Vec<_>>())
}

fn want(word: &str) -> String {
    if let Some(name) = word.strip_prefix('!') {
        return format!("'{name}' = false");
    }
    match word.find(['=', '^', '~']) {
        None => format!("'{word}' = true"),
        Some(at) => {
            let (name, value) = (&word[..at], &word[at + 1..]);
            match word.as_bytes()[at] {
                b'=' => format!("'{name}' = '{value}'"),
                b'^' => format!("'{name}' = {{ prefix = '{value}' }}"),
                _ => format!("'{name}' = {{ regex = '{value}' }}"),
            }
        }
    }
}

fn target(words: &str) -> String {
    let mut lines = String::new();
    let mut rewrites = Vec::new();
    let mut parts = Vec::new();
    for word in words.split_whitespace() {
        let of = |key: &str| word.strip_prefix(key);
        if let Some(path) = of("redirect:") {
            lines += &format!("redirect = {{ path = '{path}' }}\n");
        } else if let Some(prefix) = of("redirect-prefix:") {
            lines += &format!("redirect = {{ prefix = '{prefix}' }}\n");
        } else if let Some(status) = of("respond:") {
            lines += &format!("respond = {{ status = {status} }}\n");
        } else if let Some(path) = of("rewrite:") {
            rewrites.push(format!("path = '{path}'"));
        } else if let Some(prefix) = of("prefix:") {
            rewrites.push(format!("prefix = '{prefix}'"));
        } else if let Some(host) = of("host:") {
            rewrites.push(format!("host = '{host}'"));
        } else if let Some((version, weight)) = word.split_once('=') {
            parts.push(format!(
                "{{ to = {{ version = '{version}' }}, weight = {weight} }}"
            ));
        } else if word != "any" {
            lines += &format!("to = {{ version = '{word}' }}\n");
        }
    }
    if !rewrites.is_empty() {
        lines += &format!("rewrite = {{ {} }}\n", rewrites.join(", "));
    }
    if !parts.is_empty() {
        lines += &format!("split = [{}]\n", parts.join(", "));
    }
    lines
}

/// Where a call such as `GET /cart?a=1 x-beta:1 @web %rack-1`, or `tcp @web`, goes.
pub(super) fn decided(route: &Route, call: &str) -> String {
    let words: Vec<_> = call.split_whitespace().collect();
    let named = |mark: char, otherwise| {
        let found = words.iter().find_map(|word| word.strip_prefix(mark));
        found.unwrap_or(otherwise).to_owned()
    };
    let (caller, zone) = (
        ServiceName::parse(&named('@', "web")).unwrap(),
        named('%', ""),
    );
    if words[0] == "tcp" {
        let facts = Facts {
            caller: &caller,
            zone: &zone,
            http: None,
        };
        return describe(route, &facts, None);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in words[2..].iter().filter_map(|word| word.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(words[0].as_bytes()).unwrap();
    let path = route.is_about_path().then(|| Normal::of(words[1]));
    let Ok(path) = path.transpose() else {
        return "400".to_owned();
    };
    let query = words[1].split_once('?').map_or("", |(_, query)| query);
    let http = Http {
        method: &method,
        path: path.as_ref(),
        query,
        headers: &headers,
    };
    let facts = Facts {
        caller: &caller,
        zone: &zone,
        http: Some(http),
    };
    describe(route, &facts, path.as_ref())
}

fn describe(route: &Route, facts: &Facts<'_>, path: Option<&Normal<'_>>) -> String {
    let Some(rule) = route.decide(facts) else {
        return "none".to_owned();
    };
    let pattern = rule.matches.path.as_ref();
    match &rule.action.outcome {
        Outcome::Respond(respond) => respond.status.as_str().to_owned(),
        Outcome::Redirect(redirect) => {
            let response = redirect.response(path.unwrap(), pattern, None).unwrap();
            response.headers()["location"].to_str().unwrap().to_owned()
        }
        Outcome::Forward(forward) => {
            let request = Request::builder().uri("https://cart/old").body(()).unwrap();
            let (mut head, ()) = request.into_parts();
            forward.rewrite.apply(&mut head, path, pattern).unwrap();
            let mut text = shares(&forward.split);
            if forward.rewrite.path.is_some() {
                text += &format!(" as {}", head.uri.path_and_query().unwrap());
            }
            if forward.rewrite.host.is_some() {
                text += &format!(" at {}", head.uri.authority().unwrap());
            }
            text
        }
    }
}

fn shares(split: &Split) -> String {
    let version = |labels: &starling_gossip::Labels| {
        labels.get("version").map_or("any", |text| text).to_owned()
    };
    let parts = split.parts.iter().map(|part| {
        let version = version(part.to.labels());
        match part.share {
            Share::WHOLE if split.parts.len() == 1 => version,
            share => format!("{version}={}", f64::from(share.0) / 100.0),
        }
    });
    parts.collect::<Vec<_>>().join(" ")
}
