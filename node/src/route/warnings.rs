//! What an operator probably did not mean, though it can be done.

use std::collections::BTreeSet;

use starling_gossip::ServiceName;

use super::action::Outcome;
use super::split::{Share, Subset};
use super::{Route, Rule};
use crate::config::{Place, Warning};

impl Route {
    /// Rules that nothing reaches.
    pub fn shadows(&self) -> Vec<Warning> {
        self.shadowed()
            .map(|(rule, earlier)| {
                let what = format!("no call to `{}` reaches {}", self.service, self.title(rule));
                let hint = format!(
                    "{} at {} takes all of them; put the narrower rule first",
                    self.title(earlier),
                    earlier.declared
                );
                Warning::new(&rule.declared, what, hint)
            })
            .collect()
    }

    /// Subsets without an instance. `has` tells whether any instance of a service is in a subset, if the service is
    /// known at all.
    pub fn unknown(&self, has: impl Fn(&ServiceName, &Subset) -> Option<bool>) -> Vec<Warning> {
        let mut told = BTreeSet::new();
        let mut warnings = Vec::new();
        for (place, service, subset) in self.targets() {
            let what = match has(service, subset) {
                Some(true) => continue,
                Some(false) => format!("no instance of `{service}` has `{subset}`"),
                None => format!("nobody offers `{service}`"),
            };
            if told.insert(what.clone()) {
                let hint = "`starling services` lists instances and their labels";
                warnings.push(Warning::new(place, what, hint.to_owned()));
            }
        }
        warnings
    }

    /// `rule "beta"`, or `rule 2`.
    pub fn title(&self, rule: &Rule) -> String {
        if !rule.name.is_empty() {
            return format!("rule \"{}\"", rule.name);
        }
        let number = self.rules.iter().position(|one| std::ptr::eq(&**one, rule));
        format!("rule {}", number.map_or(0, |number| number + 1))
    }

    /// Every place that calls may be sent to.
    fn targets(&self) -> impl Iterator<Item = (&Place, &ServiceName, &Subset)> {
        self.rules.iter().flat_map(|rule| {
            let forward = match &rule.action.outcome {
                Outcome::Forward(forward) => Some(forward),
                _ => None,
            };
            let parts = forward.into_iter().flat_map(|forward| &forward.split.parts);
            let parts = parts
                .filter(|part| part.share > Share::NONE)
                .map(|part| (&self.service, &part.to));
            let mirror = forward
                .and_then(|forward| forward.mirror.as_ref())
                .map(|mirror| (mirror.service.as_ref().unwrap_or(&self.service), &mirror.to));
            parts
                .chain(mirror)
                .map(|(service, subset)| (&rule.declared, service, subset))
        })
    }
}
