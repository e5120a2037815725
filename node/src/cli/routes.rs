//! `starling routes`: where do calls go?

use anyhow::Context;
use clap::Args;

use super::ask::Ask;
use super::table::Table;
use crate::admin::view;

/// Show the routes in force on this host: rules in order, where they send calls, who declared them
#[derive(Debug, Args)]
pub(super) struct Routes {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

impl Routes {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Some(service) = self.service.clone() else {
            return self
                .ask
                .print("/v1/routes", |routes: &Vec<view::Route>| render(routes));
        };
        self.ask.repeat(|| self.print(&service))
    }

    fn print(&self, service: &str) -> anyhow::Result<()> {
        let routes: Vec<view::Route> = self.ask.answer("/v1/routes")?;
        let routes: Vec<_> = routes
            .into_iter()
            .filter(|route| route.service == service)
            .collect();
        if self.ask.wants_json() {
            super::out::say_json(&serde_json::to_string(&routes).context("no JSON")?)?;
        } else if routes.is_empty() {
            super::out::say(&format!("{service} has no route: calls go to any instance"))?;
        } else {
            super::out::say(&render(&routes))?;
        }
        Ok(())
    }
}

fn render(routes: &[view::Route]) -> String {
    let mut table = Table::new(["SERVICE", "RULE", "CALLS", "GO TO", "INSTANCES", "DECLARED"]);
    for route in routes {
        for rule in &route.rules {
            table.row([
                route.service.clone(),
                rule.rule.trim_start_matches("rule ").to_owned(),
                rule.matches.clone(),
                rule.action.clone(),
                instances(&rule.targets),
                rule.declared.clone(),
            ]);
        }
    }
    let mut text = table.render();
    for route in routes {
        if let Some(replaced) = &route.replaced {
            let service = &route.service;
            text += &format!(
                "\nnote: this host's own route of `{service}` stands before the mesh's, {replaced}"
            );
        }
        for warning in &route.warnings {
            text += &format!("\n{warning}");
        }
    }
    text
}

/// How many each part has, and whether they are of use.
fn instances(targets: &[view::Target]) -> String {
    let counts = targets
        .iter()
        .map(|target| match (target.instances, target.is_usable) {
            (count, true) => count.to_string(),
            (0, false) => "none".to_owned(),
            (count, false) => format!("{count} (none usable)"),
        });
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let target = |subset: &str, percent, instances, is_usable| view::Target {
            subset: subset.into(),
            percent,
            instances,
            is_usable,
        };
        let rules = vec![
            view::Rule {
                rule: "rule \"beta\"".into(),
                matches: "x-beta=1".into(),
                action: "version=v2".into(),
                targets: vec![target("version=v2", 100.0, 0, false)],
                declared: "services.d/cart.toml:4".into(),
            },
            view::Rule {
                rule: "rule 2".into(),
                matches: "any call".into(),
                action: "90% version=v1, 10% version=v3".into(),
                targets: vec![
                    target("version=v1", 90.0, 2, true),
                    target("version=v3", 10.0, 1, false),
                ],
                declared: "services.d/cart.toml:8".into(),
            },
        ];
        let route = view::Route {
            service: "cart".into(),
            origin: "local".into(),
            declared: "services.d/cart.toml:1".into(),
            replaced: Some("route/cart@3:1".into()),
            rules,
            warnings: vec![
                "warning: services.d/cart.toml:4: no instance of `cart` has `version=v2`".into(),
            ],
        };
        let expected = "\
SERVICE  RULE    CALLS     GO TO                           INSTANCES             DECLARED
cart     \"beta\"  x-beta=1  version=v2                      none                  services.d/cart.toml:4
cart     2       any call  90% version=v1, 10% version=v3  2, 1 (none usable)    services.d/cart.toml:8
note: this host's own route of `cart` stands before the mesh's, route/cart@3:1
warning: services.d/cart.toml:4: no instance of `cart` has `version=v2`";
        let squeezed = |text: &str| {
            text.split('\n')
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&render(&[route])), squeezed(expected));
    }
}
