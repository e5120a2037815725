//! `starling nodes`: who is in the mesh?

use clap::Args;

use super::ask::{Ask, span};
use super::table::Table;
use crate::admin::view;
use crate::check::documents;

/// List the nodes of the mesh as this host's agent knows them
#[derive(Debug, Args)]
pub(super) struct Nodes {
    #[command(flatten)]
    ask: Ask,
}

impl Nodes {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.ask
            .print("/v1/nodes", |nodes: &Vec<view::Node>| render(nodes))
    }
}

fn render(nodes: &[view::Node]) -> String {
    let mut table = Table::new([
        "NODE", "STATE", "SEEN", "ADDRESS", "ZONE", "SERVICES", "CHANGED",
    ]);
    for node in nodes {
        let name = if node.is_self {
            format!("{} (this)", node.node)
        } else {
            node.node.clone()
        };
        table.row([
            name,
            node.state.clone(),
            node.liveness.clone(),
            node.addresses.first().cloned().unwrap_or_default(),
            node.zone.clone(),
            node.services.join(", "),
            format!("{} ago", span(node.age_s)),
        ]);
    }
    let notes = nodes.iter().filter(|node| node.documents_out_of_force > 0);
    let notes = notes.map(|node| {
        let count = node.documents_out_of_force;
        format!("{}: {}", node.node, documents::not_in_force(count.into()))
    });
    let notes: Vec<_> = notes.collect();
    match notes.is_empty() {
        true => table.render(),
        false => format!("{}\n\n{}", table.render(), notes.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let node = view::Node {
            node: "n1".into(),
            identity: "spiffe://example.org/node/n1".into(),
            state: "serving".into(),
            liveness: "alive".into(),
            addresses: vec!["10.0.0.1:7400".into(), "192.0.2.1:7400".into()],
            zone: "rack-1".into(),
            services: vec!["orders".into(), "web".into()],
            calls: vec![],
            unproven: vec![],
            age_s: 70,
            liveness_s: 70,
            seconds_left: 80_000,
            is_issuer: true,
            documents_out_of_force: 0,
            has_same_documents: true,
            is_self: true,
        };
        let other = view::Node {
            node: "n2".into(),
            is_self: false,
            documents_out_of_force: 1,
            addresses: vec![],
            services: vec![],
            ..node.clone()
        };
        let expected = "\
NODE       STATE    SEEN   ADDRESS        ZONE    SERVICES     CHANGED
n1 (this)  serving  alive  10.0.0.1:7400  rack-1  orders, web  1m 10s ago
n2         serving  alive  -              rack-1  -            1m 10s ago

n2: 1 document not in force";
        assert_eq!(render(&[node, other]), expected);
    }
}
