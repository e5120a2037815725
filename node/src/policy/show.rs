//! What was compiled, for people to read.

use super::audit::Audit;
use super::compile::Entry;
use super::layered::LayeredGrants;
use super::rule::Rule;
use crate::admin::view;

impl Entry {
    /// The rules of this service, and what was let through in spite of them.
    pub fn show(&self, audit: &Audit) -> view::Policy {
        let denies = self.denies.iter().map(|rule| rule.show("deny"));
        let grants = self.grants.iter().map(|rule| rule.show("allow"));
        let layered = self.layered.iter().flat_map(LayeredGrants::show);
        let rules = denies.chain(grants).chain(layered);
        let in_texts = self.layered.iter().flat_map(LayeredGrants::rules);
        let count = self.denies.len() + self.grants.len() + in_texts.count();
        let let_through = audit.of(self.service.name.as_str()).into_iter();
        view::Policy {
            mode: self.mode.to_string(),
            mode_declared: self.mode_declared.as_ref().map(ToString::to_string),
            rules: rules.take(RULES_MAX).collect(),
            more_rules: count.saturating_sub(RULES_MAX),
            let_through: let_through
                .take(CALLERS_MAX)
                .map(|one| view::LetThrough {
                    caller: one.caller,
                    why: one.why.to_owned(),
                    rule: (!one.rule.is_empty()).then_some(one.rule),
                    calls: one.calls,
                    age_s: one.last.elapsed().as_secs(),
                })
                .collect(),
        }
    }
}

impl LayeredGrants {
    /// The grants of each text, with the other texts that have to grant the call too.
    fn show(&self) -> impl Iterator<Item = view::PolicyRule> + '_ {
        let layers = self.layers().iter().enumerate();
        layers.flat_map(|(at, layer)| {
            let others = self.layers().iter().enumerate();
            let others = others.filter(move |(other, _)| *other != at);
            let others: Vec<_> = others.map(|(_, layer)| layer.text.to_string()).collect();
            layer.grants.iter().map(move |rule| view::PolicyRule {
                only_with: others[..others.len().min(TEXTS_MAX)].to_vec(),
                more_only_with: others.len().saturating_sub(TEXTS_MAX),
                ..rule.show("allow")
            })
        })
    }
}

impl Rule {
    fn show(&self, effect: &str) -> view::PolicyRule {
        let from = self.callers();
        view::PolicyRule {
            effect: effect.to_owned(),
            from: shown(&from[..from.len().min(CALLERS_MAX)]),
            more_from: from.len().saturating_sub(CALLERS_MAX),
            methods: shown(&self.methods),
            paths: shown(&self.paths),
            declared: self.declared.to_string(),
            only_with: Vec::new(),
            more_only_with: 0,
        }
    }
}

fn shown(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Rules shown of one service, callers of one rule, and other texts that have to grant the same: they are read by people,
/// and fit into an answer between agents.
const RULES_MAX: usize = 64;
const CALLERS_MAX: usize = 32;
const TEXTS_MAX: usize = 8;
