//! The body of a document of kind `policy`: rules for the whole mesh.

use std::path::Path;

use serde::Deserialize;
use starling_gossip::ServiceName;
use toml::Spanned;
use toml::de::DeTable;

use super::{
    Caller, Groups, Parts, Problems, Rule, Set, check_callers, check_groups, check_mode,
    groups_known,
};
use crate::config::check::Checker;
use crate::config::keys;
use crate::config::raw::policy as raw;

/// What an operator says for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Known in this document only.
    pub groups: Groups,
    /// For services that say nothing of their own.
    pub mode: Option<Set>,
    pub modes: Vec<ModeOf>,
    pub grants: Vec<DocumentRule>,
    pub denies: Vec<DocumentRule>,
}

/// A grant or denial, and the services it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRule {
    pub services: Vec<Caller>,
    pub rule: Rule,
}

/// The mode of some services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeOf {
    pub services: Vec<Caller>,
    pub set: Set,
}

impl Document {
    /// Reads the body of a document.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse_as(Path::new("policy"), text)
    }

    /// The same; `file` only serves messages.
    pub fn parse_as(file: &Path, text: &str) -> Result<Self, Problems> {
        let mut checker = Checker::new(file, text);
        let parsed = DeTable::parse(text).and_then(|mut table| {
            keys::remove_unknown_in_policy(table.get_mut(), &mut checker);
            raw::Document::deserialize(toml::de::Deserializer::from(table))
        });
        let document = match &parsed {
            Ok(raw) => Self::check(raw, &mut checker),
            Err(error) => {
                checker.refuse(error);
                Self::default()
            }
        };
        let mut problems = checker.finish();
        groups_known(document.callers(), &document.groups, &mut problems);
        problems.or(|| document)
    }

    fn check(raw: &raw::Document, checker: &mut Checker<'_>) -> Self {
        let groups = raw.groups.as_ref();
        let mut document = Self {
            groups: groups
                .map(|groups| check_groups(groups, checker))
                .unwrap_or_default(),
            ..Self::default()
        };
        match raw
            .mode
            .as_ref()
            .map(|modes| (modes.get_ref(), modes.span()))
        {
            Some((raw::Modes::Mesh(word), span)) => {
                document.mode = check_mode(&Spanned::new(span, word.clone()), checker);
            }
            Some((raw::Modes::Services(modes), _)) => {
                for mode in modes {
                    document.add_mode(mode, checker);
                }
            }
            None => {}
        }
        let mut rules = |rules: &Option<Vec<_>>| {
            let rules = rules.iter().flatten();
            rules
                .map(|rule| DocumentRule::check(rule, checker))
                .collect()
        };
        document.grants = rules(&raw.grant);
        document.denies = rules(&raw.deny);
        document
    }

    /// Without `services` it is the mode of the mesh, as `mode = "…"` cannot stand beside `[[mode]]`.
    fn add_mode(&mut self, raw: &Spanned<raw::Mode>, checker: &mut Checker<'_>) {
        let (span, raw) = (raw.span(), raw.get_ref());
        let hint = "one of \"enforce\", \"audit\", \"permissive\"";
        let mode = checker.required(raw.mode.as_ref(), &span, "mode", hint);
        let Some(set) = mode.and_then(|mode| check_mode(mode, checker)) else {
            return;
        };
        match &raw.services {
            Some(services) => {
                let services = check_callers("services", services, checker);
                self.modes.push(ModeOf { services, set });
            }
            None => match &self.mode {
                None => self.mode = Some(set),
                Some(first) => {
                    let what = "the mesh has a mode already";
                    let hint = format!("name `services` here, or at line {}", first.declared.line);
                    checker.problem(span, what, &hint);
                }
            },
        }
    }

    /// The strictest mode that this document names `service` for.
    pub fn mode_of(&self, service: &ServiceName) -> Option<&Set> {
        let named = self.modes.iter();
        let named = named.filter(|of| self.is_about(&of.services, service));
        named.map(|of| &of.set).min_by_key(|set| set.mode)
    }

    /// Whether `services`, as written in this document, names `service`.
    pub fn is_about(&self, services: &[Caller], service: &ServiceName) -> bool {
        services.iter().any(|named| match &named.who {
            super::Who::Any => true,
            super::Who::Service(name) => name == service,
            super::Who::Group(name) => {
                let group = self.groups.get(name);
                group.is_some_and(|group| group.members.contains(service))
            }
        })
    }

    fn callers(&self) -> impl Iterator<Item = &Caller> {
        let rules = self.grants.iter().chain(&self.denies);
        let rules = rules.flat_map(|rule| rule.services.iter().chain(&rule.rule.from));
        rules.chain(self.modes.iter().flat_map(|of| &of.services))
    }
}

impl DocumentRule {
    fn check(raw: &Spanned<raw::DocumentRule>, checker: &mut Checker<'_>) -> Self {
        let (span, raw) = (raw.span(), raw.get_ref());
        let hint = "who is called: `services = [\"orders\"]`, or [\"*\"] for all";
        let services = checker.required(raw.services.as_ref(), &span, "services", hint);
        let services = services.map(|services| check_callers("services", services, checker));
        let parts = Parts {
            from: raw.from.as_ref(),
            methods: raw.methods.as_ref(),
            paths: raw.paths.as_ref(),
        };
        Self {
            services: services.unwrap_or_default(),
            rule: parts.check(&span, checker),
        }
    }
}
