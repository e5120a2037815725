//! Sets of services as files, pipes and people see them: those that are denied while a policy is held back.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use starling_gossip::ServiceName;

use crate::policy::ServiceSet;

/// Not the text of a [`ServiceSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it names no services")]
pub struct CoverageError;

impl ServiceSet {
    /// For people: `all services`, or their names.
    pub fn describe(&self) -> String {
        match self {
            Self::All => "all services".to_owned(),
            Self::Only(names) => {
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

/// As files and pipes carry it. More names than `NAMES_MAX` are written as all services, which denies more, never less.
impl fmt::Display for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(names) if names.len() <= NAMES_MAX => {
                let names: Vec<_> = names.iter().map(ServiceName::as_str).collect();
                write!(f, "={}", names.join(","))
            }
            _ => f.write_str("*"),
        }
    }
}

impl FromStr for ServiceSet {
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
        names.map(Self::Only).ok_or(CoverageError)
    }
}

/// Services that are written down by name: 16 KiB of text.
pub(super) const NAMES_MAX: usize = 256;

/// Names in a message.
const SHOWN_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Document;

    fn check(body: &str, expected: &str) {
        let coverage = Document::parse(body).unwrap().services_named();
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
    fn a_text_that_names_no_services_is_refused() {
        for text in ["", "a", "=A B", "**", "=a\nb"] {
            assert_eq!(text.parse::<ServiceSet>(), Err(CoverageError), "{text:?}");
        }
    }
}
