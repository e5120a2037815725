//! Which services a document is about, and the denial of all calls to them.

use std::collections::BTreeSet;
use std::path::Path;

use starling_gossip::ServiceName;

use super::{Caller, Document, DocumentRule, Mode, ModeOf, Rule, Set, Who};
use crate::config::Place;

/// Some services, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceSet {
    All,
    Only(BTreeSet<ServiceName>),
}

impl ServiceSet {
    /// No service at all.
    pub const NONE: Self = Self::Only(BTreeSet::new());

    /// Whether there is none in it.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The services of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut ours), Self::Only(theirs)) => {
                ours.extend(theirs);
                Self::Only(ours)
            }
            _ => Self::All,
        }
    }
}

impl Default for ServiceSet {
    /// No services.
    fn default() -> Self {
        Self::NONE
    }
}

impl Document {
    /// The text of a document that is deleted or was never there: it says nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The services that a rule or a mode of this document can change anything for. A mode for the mesh is about all
    /// services: which of them have a mode of their own, only their hosts know.
    pub fn services_named(&self) -> ServiceSet {
        if self.mode.is_some() {
            return ServiceSet::All;
        }
        let rules = self.grants.iter().chain(&self.denies);
        let lists = rules.map(|rule| &rule.services);
        let mut lists = lists.chain(self.modes.iter().map(|of| &of.services));
        lists
            .try_fold(BTreeSet::new(), |mut named, services| {
                for service in services {
                    named.extend(self.members(service)?.iter().cloned());
                }
                Some(named)
            })
            .map_or(ServiceSet::All, ServiceSet::Only)
    }

    /// The services behind one entry of `services`; none for all. A group that is not declared was refused when the text
    /// was read; if one gets here it may have meant any service.
    fn members<'a>(&'a self, named: &'a Caller) -> Option<&'a [ServiceName]> {
        match &named.who {
            Who::Any => None,
            Who::Service(name) => Some(std::slice::from_ref(name)),
            Who::Group(group) => self.groups.get(group).map(|group| &group.members[..]),
        }
    }

    /// Denies all calls to `services`, whatever their mode. It stands in for a text that cannot be used, so its rule and
    /// mode have no line.
    pub fn deny_all_calls_to(services: &ServiceSet) -> Self {
        let declared = Place {
            file: Path::new("policy").into(),
            line: 0,
        };
        let caller = |who| Caller {
            who,
            declared: declared.clone(),
        };
        let services: Vec<_> = match services {
            ServiceSet::All => vec![caller(Who::Any)],
            ServiceSet::Only(names) if names.is_empty() => return Self::empty(),
            ServiceSet::Only(names) => names
                .iter()
                .cloned()
                .map(Who::Service)
                .map(caller)
                .collect(),
        };
        let rule = Rule {
            from: vec![caller(Who::Any)],
            methods: Vec::new(),
            paths: Vec::new(),
            declared: declared.clone(),
        };
        let set = Set {
            mode: Mode::Enforce,
            declared: declared.clone(),
        };
        Self {
            modes: vec![ModeOf {
                services: services.clone(),
                set,
            }],
            denies: vec![DocumentRule { services, rule }],
            ..Self::empty()
        }
    }
}
