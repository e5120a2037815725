//! From what was written to what is asked.

use std::collections::HashMap;
use std::sync::Arc;

use starling_gossip::ServiceName;
use starling_transport::TrustDomain;

use super::layered::{Layer, LayeredGrants};
use super::mode;
use super::rule::{Rule, Where};
use super::text::{InForce, Text};
use crate::config::policy::Mode;
use crate::config::{Config, Place, Service};

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
    /// Any of them allows what none denies: TOML and documents with one text.
    pub(super) grants: Vec<Rule>,
    /// So does any of these documents with several texts, by a grant in each text.
    pub(super) layered: Box<[LayeredGrants]>,
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
        let mut layered = Vec::new();
        for InForce { name, texts } in documents {
            for text in texts {
                denies.extend(text.rules(name, &text.document.denies, &service.name));
            }
            let granted = |text: &Text| -> Vec<Rule> {
                let rules = text.rules(name, &text.document.grants, &service.name);
                rules.collect()
            };
            match &texts[..] {
                [only] => grants.extend(granted(only)),
                texts => {
                    let layers = texts.iter().map(|text| Layer {
                        text: text.whole(name),
                        grants: granted(text).into(),
                    });
                    layered.extend(LayeredGrants::new(layers.collect()));
                }
            }
        }
        let (mode, mode_declared) = mode::strictest(config, service, documents);
        let rules = || {
            let in_texts = layered.iter().flat_map(LayeredGrants::rules);
            grants.iter().chain(&denies).chain(in_texts)
        };
        let has = |what: fn(&Rule) -> bool| rules().any(what);
        Self {
            service: service.clone(),
            trust_domain: trust_domain.clone(),
            mode,
            mode_declared,
            has_paths: has(Rule::has_paths),
            has_methods: has(Rule::has_methods),
            denies,
            grants,
            layered: layered.into(),
        }
    }

    /// Whether a rule names `caller`, so that its name may be a label of metrics.
    pub fn names(&self, caller: &str) -> bool {
        let in_texts = self.layered.iter().flat_map(LayeredGrants::rules);
        let mut rules = self.grants.iter().chain(&self.denies).chain(in_texts);
        rules.any(|rule| rule.names(caller))
    }
}
