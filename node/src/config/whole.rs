//! What only shows when all files are seen together.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::problems::{Problem, Problems};
use super::{Config, Place, policy};

pub(super) fn check(config: &Config, problems: &mut Problems) {
    services_once(config, problems);
    addresses_once(config, problems);
    groups_known(config, problems);
    routes_once(config, problems);
}

fn services_once(config: &Config, problems: &mut Problems) {
    let mut seen = HashMap::new();
    for service in &config.services {
        match seen.get(&service.name) {
            None => drop(seen.insert(&service.name, &service.declared)),
            Some(first) => {
                let what = format!("service `{}` is declared twice", service.name);
                let hint =
                    format!("one node runs one instance of a service; the other is at {first}");
                problems.push(problem(&service.declared, what, hint));
            }
        }
    }
}

fn groups_known(config: &Config, problems: &mut Problems) {
    for service in &config.services {
        let rules = service.grants.iter().chain(&service.denies);
        let callers = service
            .allow
            .iter()
            .chain(rules.flat_map(|rule| &rule.from));
        policy::groups_known(callers, &config.groups, problems);
    }
}

fn routes_once(config: &Config, problems: &mut Problems) {
    let mut seen = HashMap::new();
    for route in &config.routes {
        match seen.get(&route.service) {
            None => drop(seen.insert(&route.service, &route.declared)),
            Some(first) => {
                let what = format!("`{}` has two routes", route.service);
                let hint = format!(
                    "rules are tried in order, so they stand together; the other is at {first}"
                );
                problems.push(problem(&route.declared, what, hint));
            }
        }
    }
}

/// Two listeners on one address cannot be, and a listener where the app itself listens would call itself.
fn addresses_once(config: &Config, problems: &mut Problems) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    taken.insert(
        config.admin.listen,
        "the admin listener ([admin] listen)".to_owned(),
    );
    for service in &config.services {
        // An app may well be the admin listener: that is how metrics are offered through the mesh.
        taken.entry(service.address).or_insert_with(|| {
            format!(
                "the app of service `{}` at {}",
                service.name, service.declared
            )
        });
    }
    for service in &config.services {
        let Some(plaintext) = service.plaintext else {
            continue;
        };
        let who = format!(
            "the plaintext address of service `{}` at {}",
            service.name, service.declared
        );
        match taken.get(&plaintext) {
            Some(other) => {
                let what = format!("`plaintext = \"{plaintext}\"` is taken");
                let hint = format!("choose another port or address; this is {other}");
                problems.push(problem(&service.declared, what, hint));
            }
            None => drop(taken.insert(plaintext, who)),
        }
    }
    for upstream in &config.upstreams {
        let who = format!(
            "the upstream `{}` at {}",
            upstream.service, upstream.declared
        );
        if let Some(other) = taken.get(&upstream.listen) {
            let what = format!(
                "upstream `{}` listens on {}, which is taken",
                upstream.service, upstream.listen
            );
            problems.push(problem(
                &upstream.declared,
                what,
                format!("choose another port; this is {other}"),
            ));
            continue;
        }
        taken.insert(upstream.listen, who);
    }
}

fn problem(at: &Place, what: String, hint: String) -> Problem {
    Problem {
        file: at.file.clone(),
        line: Some(at.line),
        what,
        hint: Some(hint),
    }
}
