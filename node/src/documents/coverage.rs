//! Which services a policy is about: those that are denied while it is held back.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use starling_gossip::ServiceName;

use crate::config::policy::{Caller, Who};
use crate::policy::Document;

/// Services by name, or all there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    All,
    Services(BTreeSet<ServiceName>),
}

/// Not the text of a [`Coverage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it names no services")]
pub struct CoverageError;

impl Coverage {
    /// No service at all, as of a deletion.
    pub const NONE: Self = Self::Services(BTreeSet::new());

    /// The services whose calls the rules or the modes of `document` can decide.
    pub fn of(document: &Document) -> Self {
        if document.mode.is_some() {
            return Self::All;
        }
        let rules = document.grants.iter().chain(&document.denies);
        let named = rules.flat_map(|rule| &rule.services);
        let named = named.chain(document.modes.iter().flat_map(|of| &of.services));
        let mut services = BTreeSet::new();
        for Caller { who, .. } in named {
            match who {
                Who::Any => return Self::All,
                Who::Service(name) => drop(services.insert(name.clone())),
                Who::Group(name) => {
                    let group = document.groups.get(name);
                    services.extend(group.iter().flat_map(|group| group.members.clone()));
                }
            }
        }
        Self::Services(services)
    }

    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Services(mut mine), Self::Services(theirs)) => {
                mine.extend(theirs);
                Self::Services(mine)
            }
            _ => Self::All,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The body of a policy that denies every call to these services, whatever their mode. `None` if there are none.
    pub fn denial(&self) -> Option<String> {
        let services = match self {
            Self::All => "\"*\"".to_owned(),
            Self::Services(names) if names.is_empty() => return None,
            Self::Services(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
                quoted.join(", ")
            }
        };
        Some(format!(
            "[[deny]]\nservices = [{services}]\nfrom = [\"*\"]\n\n\
             [[mode]]\nservices = [{services}]\nmode = \"enforce\"\n"
        ))
    }

    /// For people: `all services`, or their names.
    pub fn describe(&self) -> String {
        match self {
            Self::All => "all services".to_owned(),
            Self::Services(names) => {
                let shown: Vec<_> = names
                    .iter()
                    .take(SHOWN_MAX)
                    .map(ServiceName::as_str)
                    .collect();
                match names.len().saturating_sub(SHOWN_MAX) {
                    0 => shown.join(", "),
                    more => format!("{} and {more} more", shown.join(", ")),
                }
            }
        }
    }
}

/// As files and pipes carry it. More names than [`NAMES_MAX`] are written as all services, which denies more, never less.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services(names) if names.len() <= NAMES_MAX => {
                let names: Vec<_> = names.iter().map(ServiceName::as_str).collect();
                write!(f, "={}", names.join(","))
            }
            _ => f.write_str("*"),
        }
    }
}

impl FromStr for Coverage {
    type Err = CoverageError;

    fn from_str(text: &str) -> Result<Self, CoverageError> {
        let Some(names) = text.strip_prefix('=') else {
            return (text == "*").then_some(Self::All).ok_or(CoverageError);
        };
        let names = names.split(',').filter(|name| !name.is_empty());
        let names: Option<BTreeSet<_>> = names
            .take(NAMES_MAX + 1)
            .map(|name| ServiceName::parse(name).ok())
            .collect();
        let names = names.filter(|names| names.len() <= NAMES_MAX);
        names.map(Self::Services).ok_or(CoverageError)
    }
}

/// Services that are written down by name: 16 KiB of text.
pub(super) const NAMES_MAX: usize = 256;

/// Names in a message.
const SHOWN_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let coverage = Coverage::of(&Document::parse(body).unwrap());
        assert_eq!(coverage.to_string(), expected, "{body}");
        assert_eq!(expected.parse(), Ok(coverage));
    }

    #[test]
    fn a_policy_is_about_the_services_that_it_names_and_not_about_their_callers() {
        check("", "=");
        let rule = |table: &str, service: &str| {
            format!("[[{table}]]\nservices = [\"{service}\"]\nfrom = [\"web\"]\n")
        };
        check(&rule("grant", "orders"), "=orders");
        check(
            &(rule("grant", "orders") + &rule("deny", "cart")),
            "=cart,orders",
        );
        check(&rule("deny", "*"), "*");
        check("mode = \"audit\"\n", "*");
        check("[[mode]]\nmode = \"audit\"\nservices = [\"db\"]\n", "=db");
        let group = "[groups]\nshop = [\"a\", \"b\"]\n";
        check(&(group.to_owned() + &rule("grant", "group:shop")), "=a,b");
        check(group, "=");
    }

    #[test]
    fn the_denial_in_its_place_can_be_read_and_covers_the_same() {
        let names: BTreeSet<_> = ["a", "b"]
            .map(|name| ServiceName::parse(name).unwrap())
            .into();
        for coverage in [Coverage::All, Coverage::Services(names)] {
            let denial = Document::parse(&coverage.denial().unwrap()).unwrap();
            assert_eq!(Coverage::of(&denial), coverage);
        }
        assert_eq!(Coverage::NONE.denial(), None);
    }

    #[test]
    fn a_text_that_names_no_services_is_refused() {
        for text in ["", "a", "=A B", "**", "=a\nb"] {
            assert_eq!(text.parse::<Coverage>(), Err(CoverageError), "{text:?}");
        }
    }
}
