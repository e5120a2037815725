//! One grant or denial, ready to be asked.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use http::Method;
use starling_gossip::ServiceName;

use crate::config::Place;
use crate::config::policy::{self as written, Groups, Who};
use crate::path::{Normal, Pattern};

/// Where something was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// `file:line` of this host.
    File(Place),
    /// `policy/NAME@REVISION#LINE`; `policy/NAME@REVISION` where no line says so, but the whole text.
    Document {
        name: Arc<str>,
        revision: u64,
        line: Option<NonZeroUsize>,
    },
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => write!(f, "{place}"),
            Self::Document {
                name,
                revision,
                line,
            } => {
                // Below what a revoked operator signed there may be nothing that counts.
                if *revision == 0 {
                    return write!(f, "policy/{name} (no revision counts)");
                }
                write!(f, "policy/{name}@{revision}")?;
                line.map_or(Ok(()), |line| write!(f, "#{line}"))
            }
        }
    }
}

/// A grant or a denial for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    from: From,
    pub(super) methods: Box<[Method]>,
    pub(super) paths: Box<[Pattern]>,
    pub(super) declared: Where,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Any,
    /// In order.
    Services(Box<[ServiceName]>),
}

impl Rule {
    /// `groups` are those of the rule's own source.
    pub(super) fn new(rule: &written::Rule, groups: &Groups, declared: Where) -> Self {
        Self {
            from: From::new(rule.from.iter().map(|caller| &caller.who), groups),
            methods: rule.methods.as_slice().into(),
            paths: rule.paths.as_slice().into(),
            declared,
        }
    }

    /// What an entry of `allow` grants: everything.
    pub(super) fn everything(who: &Who, groups: &Groups, declared: Where) -> Self {
        Self {
            from: From::new([who], groups),
            methods: Box::default(),
            paths: Box::default(),
            declared,
        }
    }

    pub(super) fn is_from(&self, caller: &str) -> bool {
        match &self.from {
            From::Any => true,
            From::Services(names) => names
                .binary_search_by(|name| name.as_str().cmp(caller))
                .is_ok(),
        }
    }

    /// The services it is about; as written, `*` for every one.
    pub(super) fn callers(&self) -> Vec<&str> {
        match &self.from {
            From::Any => vec!["*"],
            From::Services(names) => names.iter().map(ServiceName::as_str).collect(),
        }
    }

    /// Whether the rule names `caller` itself, not only every service.
    pub(super) fn names(&self, caller: &str) -> bool {
        matches!(self.from, From::Services(_)) && self.is_from(caller)
    }

    /// Whether it looks at nothing but the caller.
    pub(super) fn is_unconditional(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    pub(super) fn has_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(super) fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether, as a grant, it is about such a request.
    pub(super) fn grants(&self, method: &Method, path: &Normal<'_>) -> bool {
        let methods = self.methods.is_empty() || self.methods.contains(method);
        methods && (self.paths.is_empty() || self.paths.iter().any(|one| one.matches(path)))
    }

    /// Whether, as a denial, it is about such a request. Apps tend to see more things as the same than we do, so a
    /// denial is read widely: methods in any case, `HEAD` as the `GET` it stands for, paths with or without a `/` at
    /// their end.
    pub(super) fn denies(&self, method: &Method, path: &Normal<'_>) -> bool {
        let is_denied = |ours: &Method| {
            ours.as_str().eq_ignore_ascii_case(method.as_str())
                || (*ours == Method::GET && method.as_str().eq_ignore_ascii_case("HEAD"))
        };
        let methods = self.methods.is_empty() || self.methods.iter().any(is_denied);
        methods
            && (self.paths.is_empty() || self.paths.iter().any(|one| one.matches_either_end(path)))
    }
}

impl From {
    fn new<'w>(callers: impl IntoIterator<Item = &'w Who>, groups: &Groups) -> Self {
        let mut names = Vec::new();
        for who in callers {
            match who {
                Who::Any => return Self::Any,
                Who::Service(name) => names.push(name.clone()),
                // A group that is not there was refused when the rule was read.
                Who::Group(group) => {
                    let members = groups.get(group).map(|group| group.members.iter());
                    names.extend(members.into_iter().flatten().cloned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Self::Services(names.into())
    }
}
