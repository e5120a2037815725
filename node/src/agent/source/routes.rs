//! Routes in force, with what this agent knows of the instances they lead to.

use starling_gossip::{Catalogue, Instance, ServiceName};
use tokio::time::Instant;

use crate::admin::view;
use crate::host::Host;
use crate::route::action::Outcome;
use crate::route::split::Subset;
use crate::route::{InForce, Route, Rule};

/// All routes, in order of their services' names.
pub(super) fn all(host: &Host) -> Vec<view::Route> {
    let catalogue = host.membership.catalogue();
    host.routes
        .load()
        .iter()
        .map(|in_force| route(host, &catalogue, in_force))
        .collect()
}

fn route(host: &Host, catalogue: &Catalogue, in_force: InForce<'_>) -> view::Route {
    let InForce {
        route,
        origin,
        replaced,
    } = in_force;
    let mut warnings = route.shadows();
    warnings.extend(route.unknown(|service, subset| has(catalogue, service, subset)));
    view::Route {
        service: route.service.to_string(),
        origin: origin.as_str().to_owned(),
        declared: route.declared.to_string(),
        replaced: replaced.map(|document| document.declared.to_string()),
        rules: route
            .rules
            .iter()
            .map(|one| rule(host, catalogue, route, one))
            .collect(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    }
}

fn rule(host: &Host, catalogue: &Catalogue, route: &Route, rule: &Rule) -> view::Rule {
    let parts = match &rule.action.outcome {
        Outcome::Forward(forward) => &forward.split.parts[..],
        Outcome::Redirect(_) | Outcome::Respond(_) => &[],
    };
    let balancer = host.balancer(&route.service);
    let targets = parts.iter().map(|part| view::Target {
        subset: part.to.to_string(),
        percent: f64::from(part.share.0) / 100.0,
        instances: members(catalogue, &route.service, &part.to).count(),
        is_usable: balancer.is_usable(Instant::now(), &part.to),
    });
    view::Rule {
        rule: route.title(rule),
        matches: rule.matches.to_string(),
        action: rule.action.to_string(),
        targets: targets.collect(),
        declared: rule.declared.to_string(),
    }
}

fn has(catalogue: &Catalogue, service: &ServiceName, subset: &Subset) -> Option<bool> {
    let is_known = !catalogue.instances(service.as_str()).is_empty();
    is_known.then(|| members(catalogue, service, subset).next().is_some())
}

fn members<'c>(
    catalogue: &'c Catalogue,
    service: &ServiceName,
    subset: &'c Subset,
) -> impl Iterator<Item = &'c Instance> {
    let instances = catalogue.instances(service.as_str()).iter();
    instances
        .map(|instance| &**instance)
        .filter(|instance| subset.holds(&instance.labels, &instance.zone))
}
