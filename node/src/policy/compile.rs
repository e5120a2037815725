//! From what was written to what is asked.

use std::collections::HashMap;
use std::sync::Arc;

use starling_gossip::ServiceName;
use starling_transport::TrustDomain;

use super::rule::{Rule, Where};
use crate::config::policy::{Document, Mode, Set};
use crate::config::{Config, Place, Service};

/// A document of kind `policy` that is in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The part of its key behind `policy/`.
    pub name: Arc<str>,
    pub revision: u64,
    pub document: Arc<Document>,
}

/// The policy for all services of this node at one time. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    entries: HashMap<ServiceName, Arc<Entry>>,
}

/// One service of this node and all that is said of who may call it.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub service: Service,
    pub(super) trust_domain: TrustDomain,
    /// What happens to calls that nothing allows.
    pub mode: Mode,
    /// Where the mode was set; none for the default.
    pub mode_declared: Option<Where>,
    /// Any of them denies.
    pub(super) denies: Vec<Rule>,
    /// Any of them allows what none denies.
    pub(super) grants: Vec<Rule>,
    /// Some rule looks at paths, so paths need the one form.
    pub(super) has_paths: bool,
    /// Some rule looks at methods.
    pub(super) has_methods: bool,
}

impl Snapshot {
    /// What `config` and `documents` say together.
    pub fn compile(trust_domain: &TrustDomain, config: &Config, documents: &[InForce]) -> Self {
        let entries = config.services.iter().map(|service| {
            let entry = Entry::compile(trust_domain, config, service, documents);
            (service.name.clone(), Arc::new(entry))
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// The service of this name, if it runs on this node.
    pub fn entry(&self, service: &str) -> Option<&Arc<Entry>> {
        self.entries.get(service)
    }

    /// All services of this node.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }
}

impl Entry {
    fn compile(
        trust_domain: &TrustDomain,
        config: &Config,
        service: &Service,
        documents: &[InForce],
    ) -> Self {
        let file = |place: &Place| Where::File(place.clone());
        let groups = &config.groups;
        let allow = service.allow.iter();
        let mut grants: Vec<_> = allow
            .map(|caller| Rule::everything(&caller.who, groups, file(&caller.declared)))
            .collect();
        let rule = |rule| Rule::new(rule, groups, file(&rule.declared));
        grants.extend(service.grants.iter().map(rule));
        let mut denies: Vec<_> = service.denies.iter().map(rule).collect();
        for source in documents {
            let Document {
                grants: theirs,
                denies: theirs_denied,
                ..
            } = &*source.document;
            grants.extend(source.rules(theirs, &service.name));
            denies.extend(source.rules(theirs_denied, &service.name));
        }
        let (mode, mode_declared) = mode(config, service, documents);
        let has = |what: fn(&Rule) -> bool| grants.iter().chain(&denies).any(what);
        Self {
            service: service.clone(),
            trust_domain: trust_domain.clone(),
            mode,
            mode_declared,
            has_paths: has(Rule::has_paths),
            has_methods: has(Rule::has_methods),
            denies,
            grants,
        }
    }

    /// Whether a rule names `caller`, so that its name may be a label of metrics.
    pub fn names(&self, caller: &str) -> bool {
        let mut rules = self.grants.iter().chain(&self.denies);
        rules.any(|rule| rule.names(caller))
    }
}

impl InForce {
    fn rules<'a>(
        &'a self,
        rules: &'a [crate::config::policy::DocumentRule],
        service: &'a ServiceName,
    ) -> impl Iterator<Item = Rule> + 'a {
        let about = rules
            .iter()
            .filter(|rule| self.document.is_about(&rule.services, service));
        about.map(|rule| {
            let declared = self.at(&rule.rule.declared);
            Rule::new(&rule.rule, &self.document.groups, declared)
        })
    }

    fn at(&self, place: &Place) -> Where {
        Where::Document {
            name: self.name.clone(),
            revision: self.revision,
            line: place.line,
        }
    }
}

/// The nearest that was set: for the service in a document, in its TOML, for the mesh in a document, for the node.
fn mode(config: &Config, service: &Service, documents: &[InForce]) -> (Mode, Option<Where>) {
    let in_file = |set: &Set| (set.mode, Where::File(set.declared.clone()));
    let found = strictest(documents, |document| document.mode_of(&service.name))
        .or_else(|| service.mode.as_ref().map(in_file))
        .or_else(|| strictest(documents, |document| document.mode.as_ref()))
        .or_else(|| config.mode.as_ref().map(in_file));
    match found {
        Some((mode, declared)) => (mode, Some(declared)),
        None => (Mode::Enforce, None),
    }
}

/// The strictest mode of those that `set` finds in documents.
fn strictest<'d>(
    documents: &'d [InForce],
    set: impl Fn(&'d Document) -> Option<&'d Set>,
) -> Option<(Mode, Where)> {
    let sets = documents.iter();
    let sets = sets.filter_map(|source| Some((source, set(&source.document)?)));
    let strictest = sets.min_by_key(|(_, set)| set.mode);
    strictest.map(|(source, set)| (set.mode, source.at(&set.declared)))
}
