//! `starling services`: what is offered, and where?

use clap::Args;

use super::ask::{Ask, span};
use super::table::Table;
use crate::admin::view;

/// List the services of the mesh and their instances as this host's agent knows them
#[derive(Debug, Args)]
pub(super) struct Services {
    #[command(flatten)]
    ask: Ask,
}

impl Services {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.ask
            .print("/v1/services", |services: &Vec<view::Service>| {
                render(services)
            })
    }
}

fn render(services: &[view::Service]) -> String {
    let mut table = Table::new([
        "SERVICE", "NODE", "PROTOCOL", "LABELS", "WEIGHT", "HEALTH", "ZONE", "CHANGED",
    ]);
    for service in services {
        for instance in &service.instances {
            let labels: Vec<_> = instance
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            table.row([
                service.service.clone(),
                instance.node.clone(),
                instance.protocol.clone(),
                labels.join(" "),
                instance.weight.to_string(),
                health(instance),
                instance.zone.clone(),
                format!("{} ago", span(instance.age_s)),
            ]);
        }
    }
    table.render()
}

/// The worst that is known of it.
fn health(instance: &view::Instance) -> String {
    if instance.liveness != "alive" {
        return format!("node {}", instance.liveness);
    }
    match (instance.healthy, instance.ejected_s, instance.spared_s) {
        (false, ..) => "unhealthy".to_owned(),
        (true, Some(seconds), _) => format!("ejected for {}", span(seconds)),
        (true, None, Some(seconds)) => format!("spared for {}", span(seconds)),
        (true, None, None) => "healthy".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let good = view::Instance {
            node: "n1".into(),
            protocol: "http".into(),
            labels: [
                ("version".into(), "v1".into()),
                ("track".into(), "stable".into()),
            ]
            .into(),
            weight: 100,
            healthy: true,
            liveness: "alive".into(),
            ejected_s: None,
            spared_s: None,
            latency_us: None,
            in_flight: Some(3),
            address: "10.0.0.1:7400".into(),
            zone: String::new(),
            age_s: 5,
        };
        let ill = view::Instance {
            node: "n2".into(),
            healthy: false,
            labels: [].into(),
            ..good.clone()
        };
        let ejected = view::Instance {
            node: "n3".into(),
            ejected_s: Some(4),
            labels: [].into(),
            ..good.clone()
        };
        let gone = view::Instance {
            node: "n4".into(),
            liveness: "dead".into(),
            labels: [].into(),
            ..good.clone()
        };
        let expected = "\
SERVICE  NODE  PROTOCOL  LABELS                   WEIGHT  HEALTH          ZONE  CHANGED
orders   n1    http      track=stable version=v1  100     healthy         -     5s ago
orders   n2    http      -                        100     unhealthy       -     5s ago
orders   n3    http      -                        100     ejected for 4s  -     5s ago
orders   n4    http      -                        100     node dead       -     5s ago";
        let service = view::Service {
            service: "orders".into(),
            instances: vec![good, ill, ejected, gone],
        };
        assert_eq!(render(&[service]), expected);
    }
}
