//! Which calls a rule is for. All conditions of a rule must hold; a condition with several values holds if one does.

use http::{HeaderMap, HeaderName, Method};
use starling_gossip::ServiceName;

use super::Facts;
use super::query;
use super::regex::Regex;
use crate::path::{Normal, Pattern};

/// The conditions of one rule. None at all match every call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    pub path: Option<Pattern>,
    /// Over the whole path.
    pub path_regex: Option<Regex>,
    /// Empty: any.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, Want)>,
    pub query: Vec<(String, Want)>,
    /// Empty: any.
    pub callers: Vec<ServiceName>,
    /// Zones of the calling host. Empty: any.
    pub zones: Vec<String>,
}

/// What a header field or query parameter must be. With several values, one that fits is enough; each is looked at on
/// its own, never joined with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

impl Match {
    /// Whether all conditions hold. Those on HTTP never hold for a TCP connection.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let caller_fits = self.callers.is_empty() || self.callers.contains(facts.caller);
        let zone_fits = self.zones.is_empty() || self.zones.iter().any(|zone| zone == facts.zone);
        if !(caller_fits && zone_fits) {
            return false;
        }
        let Some(http) = &facts.http else {
            return !self.is_about_http();
        };
        (self.methods.is_empty() || self.methods.contains(http.method))
            && self.path_holds(http.path)
            && self
                .headers
                .iter()
                .all(|(name, want)| want.holds(values(http.headers, name)))
            && self.query.iter().all(|(name, want)| {
                want.holds(
                    query::values(http.query, name)
                        .as_slice()
                        .iter()
                        .map(Vec::as_slice),
                )
            })
    }

    /// Whether the rule can only ever match HTTP requests.
    pub fn is_about_http(&self) -> bool {
        self.is_about_path()
            || !self.methods.is_empty()
            || !self.headers.is_empty()
            || !self.query.is_empty()
    }

    /// Whether a path must be normal to be judged.
    pub fn is_about_path(&self) -> bool {
        self.path.is_some() || self.path_regex.is_some()
    }

    /// Whether every call that `other` matches is surely matched by this one too. May be wrong in saying no.
    pub fn covers(&self, other: &Self) -> bool {
        let path = match (&self.path, &other.path) {
            (None, _) => true,
            (Some(mine), Some(theirs)) => mine.covers(theirs),
            (Some(_), None) => false,
        };
        path && (self.path_regex.is_none() || self.path_regex == other.path_regex)
            && all_of(&self.methods, &other.methods)
            && all_of(&self.callers, &other.callers)
            && all_of(&self.zones, &other.zones)
            && implied(&self.headers, &other.headers)
            && implied(&self.query, &other.query)
    }

    fn path_holds(&self, path: Option<&Normal<'_>>) -> bool {
        if !self.is_about_path() {
            return true;
        }
        let Some(path) = path else {
            return false;
        };
        self.path
            .as_ref()
            .is_none_or(|pattern| pattern.matches(path))
            && self
                .path_regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(path.as_str().as_bytes()))
    }
}

impl Want {
    fn holds<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(text) => values.any(|value| value == text.as_bytes()),
            Self::Prefix(text) => values.any(|value| value.starts_with(text.as_bytes())),
            Self::Regex(regex) => values.any(|value| regex.is_match(value)),
        }
    }

    /// Whether whatever `other` accepts is accepted.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, other) => *other != Self::Absent,
            (Self::Prefix(mine), Self::Exact(theirs) | Self::Prefix(theirs)) => {
                theirs.starts_with(mine)
            }
            (mine, other) => mine == other,
        }
    }
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .iter()
        .map(http::HeaderValue::as_bytes)
}

fn all_of<T: PartialEq>(mine: &[T], theirs: &[T]) -> bool {
    mine.is_empty() || (!theirs.is_empty() && theirs.iter().all(|one| mine.contains(one)))
}

fn implied<N: PartialEq>(mine: &[(N, Want)], theirs: &[(N, Want)]) -> bool {
    mine.iter().all(|(name, want)| {
        theirs
            .iter()
            .any(|(other, theirs)| other == name && want.covers(theirs))
    })
}
