//! Who may call: `allow`, `[[service.grant]]`, `[[service.deny]]`, `[groups]` and `mode`.
//!
//! Here is only what was written. What it means, together with the documents of the mesh, is made of it in
//! [`crate::policy`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use http::Method;
use starling_gossip::ServiceName;
use toml::Spanned;

use super::check::Checker;
use super::keys::{nearest, shown};
use super::problems::{Problem, Problems};
use super::{Place, raw};
use crate::path::Pattern;

mod document;
mod services;

pub use document::{Document, DocumentRule, ModeOf};
pub use services::ServiceSet;

/// What happens to calls that nothing allows. From strict to lax, so that the strictest of several is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// They are refused.
    Enforce,
    /// They go through, counted and logged.
    Audit,
    /// The same, and the service's `plaintext` address takes callers from outside of the mesh.
    Permissive,
}

/// A mode and where it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub mode: Mode,
    pub declared: Place,
}

/// Services by name, by group, or all. `Display` gives it back as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Service(ServiceName),
    /// `group:NAME`.
    Group(ServiceName),
    /// `*`: every service of this mesh.
    Any,
}

/// One entry of `allow` or `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub who: Who,
    pub declared: Place,
}

/// One grant or denial, for the service that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Never empty.
    pub from: Vec<Caller>,
    /// Empty means any.
    pub methods: Vec<Method>,
    /// Empty means any.
    pub paths: Vec<Pattern>,
    pub declared: Place,
}

/// Services under one name.
pub type Groups = BTreeMap<ServiceName, Group>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub members: Vec<ServiceName>,
    pub declared: Place,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Permissive => "permissive",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "{name}"),
            Self::Group(name) => write!(f, "{GROUP}{name}"),
            Self::Any => f.write_str(ANY),
        }
    }
}

impl Rule {
    /// Whether it looks at requests, which a tcp connection has none of.
    pub fn is_for_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    pub(super) fn check(raw: &Spanned<raw::policy::Rule>, checker: &mut Checker<'_>) -> Self {
        let span = raw.span();
        let raw = raw.get_ref();
        let parts = Parts {
            from: raw.from.as_ref(),
            methods: raw.methods.as_ref(),
            paths: raw.paths.as_ref(),
        };
        parts.check(&span, checker)
    }
}

type List = Spanned<Vec<Spanned<String>>>;

/// What grants and denials hold wherever they stand.
struct Parts<'r> {
    from: Option<&'r List>,
    methods: Option<&'r List>,
    paths: Option<&'r List>,
}

impl Parts<'_> {
    fn check(&self, span: &Range<usize>, checker: &mut Checker<'_>) -> Rule {
        let hint = "who calls: `from = [\"web\"]`, or [\"*\"] for every service of the mesh";
        let from = checker.required(self.from, span, "from", hint);
        let from = from.map(|from| check_callers("from", from, checker));
        let methods = self.methods.map(|methods| {
            let methods = filled("methods", methods, checker);
            methods
                .filter_map(|method| check_method(method, checker))
                .collect()
        });
        let paths = self.paths.map(|paths| {
            let paths = filled("paths", paths, checker);
            paths
                .filter_map(|path| check_pattern(path, checker))
                .collect()
        });
        Rule {
            from: from.unwrap_or_default(),
            methods: methods.unwrap_or_default(),
            paths: paths.unwrap_or_default(),
            declared: checker.place(span),
        }
    }
}

pub(super) fn check_mode(mode: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Set> {
    let declared = checker.place(&mode.span());
    let mode = checker.choice("mode", mode, MODES)?;
    Some(Set { mode, declared })
}

/// Names of services, groups and `*`.
pub(super) fn check_callers(key: &str, list: &List, checker: &mut Checker<'_>) -> Vec<Caller> {
    let names = filled(key, list, checker);
    names
        .filter_map(|name| check_caller(name, checker))
        .collect()
}

pub(super) fn check_caller(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Caller> {
    let who = match name.get_ref().as_str() {
        ANY => Who::Any,
        text => match text.strip_prefix(GROUP) {
            Some(group) => Who::Group(check_group_name(name, group, checker)?),
            None => Who::Service(checker.service_name(name)?),
        },
    };
    let declared = checker.place(&name.span());
    Some(Caller { who, declared })
}

pub(super) fn check_groups(raw: &raw::policy::Groups, checker: &mut Checker<'_>) -> Groups {
    let mut groups = Groups::new();
    for (name, members) in raw {
        let declared = checker.place(&name.span());
        let members = filled("a group", members, checker);
        let members = members
            .filter_map(|member| checker.service_name(member))
            .collect();
        if let Some(name) = check_group_name(name, name.get_ref(), checker) {
            groups.insert(name, Group { members, declared });
        }
    }
    groups
}

/// Problems for the groups that `callers` name and that nobody declared.
pub(super) fn groups_known<'c>(
    callers: impl IntoIterator<Item = &'c Caller>,
    groups: &Groups,
    problems: &mut Problems,
) {
    for caller in callers {
        let Who::Group(name) = &caller.who else {
            continue;
        };
        if groups.contains_key(name) {
            continue;
        }
        let known: Vec<_> = groups.keys().map(ServiceName::as_str).collect();
        let hint = match nearest(name.as_str(), &known) {
            Some(near) => format!("did you mean `{GROUP}{near}`?"),
            None if known.is_empty() => format!("declare it: `[groups]` and `{name} = [\"…\"]`"),
            None => format!("declared here: {}", known.join(", ")),
        };
        problems.push(Problem {
            file: caller.declared.file.clone(),
            line: Some(caller.declared.line),
            what: format!("there is no group `{name}`"),
            hint: Some(hint),
        });
    }
}

fn check_group_name(
    at: &Spanned<String>,
    name: &str,
    checker: &mut Checker<'_>,
) -> Option<ServiceName> {
    let parsed = ServiceName::parse(name);
    parsed
        .map_err(|error| {
            let what = format!("`{}` is not the name of a group: {error}", shown(name));
            checker.problem(at.span(), what, "");
        })
        .ok()
}

/// A list that, being there, must not be empty: nobody could tell whether nothing or everything was meant.
fn filled<'l>(
    key: &str,
    list: &'l List,
    checker: &mut Checker<'_>,
) -> std::slice::Iter<'l, Spanned<String>> {
    if list.get_ref().is_empty() {
        let hint = "name something, or leave the key out";
        checker.problem(list.span(), format!("`{key}` is empty"), hint);
    }
    list.get_ref().iter()
}

/// Methods are compared as they are written, in capitals.
fn check_method(method: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Method> {
    let text = method.get_ref();
    let is_plain = text
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    let parsed = Method::from_bytes(text.as_bytes()).ok();
    let parsed = parsed.filter(|_| is_plain && text.len() <= METHOD_BYTES_MAX);
    if parsed.is_none() {
        let upper = text.to_ascii_uppercase();
        let hint = if upper != *text && upper.bytes().all(|b| b.is_ascii_uppercase()) {
            format!("methods are in capitals: \"{}\"", shown(&upper))
        } else {
            "such as \"GET\" or \"POST\"; leave `methods` out for any".to_owned()
        };
        let what = format!("`{}` is not a method of HTTP", shown(text));
        checker.problem(method.span(), what, &hint);
    }
    parsed
}

pub(super) fn check_pattern(path: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Pattern> {
    let parsed = Pattern::parse(path.get_ref());
    parsed
        .map_err(|error| {
            let what = format!("`{}` matches nothing: {error}", shown(path.get_ref()));
            checker.problem(path.span(), what, error.hint());
        })
        .ok()
}

const MODES: &[(&str, Mode)] = &[
    ("enforce", Mode::Enforce),
    ("audit", Mode::Audit),
    ("permissive", Mode::Permissive),
];
const GROUP: &str = "group:";
const ANY: &str = "*";
/// `MKWORKSPACE` and its like are the longest that are registered.
const METHOD_BYTES_MAX: usize = 32;
