//! What the demo writes: TOML as an operator would, identities from a CA on n1, and the addresses for a shell.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use starling_gossip::{NodeName, ServiceName};
use starling_transport::TrustDomain;

use super::plan::{App, Call, Kind, Node, Plan};
use crate::ca::{Authority, LIFETIME};
use crate::config::Config;
use crate::state::StateDir;

impl Plan {
    /// Writes it all, and reads it again as the agents will.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let trust_domain = TrustDomain::parse(TRUST_DOMAIN).context("our own trust domain")?;
        let mut authority = None;
        for node in &self.nodes {
            make_directory(&node.directory.join("services.d"))?;
            let state = StateDir::create(&node.state())?;
            let name = NodeName::parse(node.name)?;
            let authority = match &mut authority {
                Some(authority) => authority,
                none => none.insert(Authority::init(&state, &trust_domain, &name)?),
            };
            let services = self.identities(node);
            authority.write_bundle(&state, &name, &services?, LIFETIME)?;
            self.write_toml(node)?;
        }
        write(&self.directory.join("env"), &self.env())?;
        for node in &self.nodes {
            Config::load(&node.directory)?;
        }
        Ok(())
    }

    /// What apps on `node` are and call as.
    fn identities(&self, node: &Node) -> anyhow::Result<Vec<ServiceName>> {
        let offered = self.apps.iter().filter(|app| app.node == node.name);
        let called = self.calls.iter().filter(|call| call.node == node.name);
        let names = offered
            .map(|app| app.service)
            .chain(called.map(|call| call.caller));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        let parsed = names.into_iter().map(ServiceName::parse);
        Ok(parsed.collect::<Result<_, _>>()?)
    }

    fn write_toml(&self, node: &Node) -> anyhow::Result<()> {
        let services = node.directory.join("services.d");
        write(&node.directory.join("starling.toml"), &self.node_toml(node))?;
        for app in self.apps.iter().filter(|app| app.node == node.name) {
            write(&services.join(format!("{}.toml", app.service)), &app.toml())?;
        }
        let calls: Vec<_> = self
            .calls
            .iter()
            .filter(|call| call.node == node.name)
            .map(Call::toml)
            .collect();
        if calls.is_empty() {
            return Ok(());
        }
        let text = format!("# What apps on this host call.\n{}", calls.join("\n"));
        write(&services.join("calls.toml"), &text)
    }

    fn node_toml(&self, node: &Node) -> String {
        let others = self.nodes.iter().filter(|other| other.name != node.name);
        let seeds: Vec<_> = others.map(|other| format!("\"{}\"", other.mesh)).collect();
        format!(
            "# Node {name}, written by `starling demo`.\n\
             listen = \"{mesh}\"\n\
             seeds = [{seeds}]\n\
             state = {state}\n\
             \n\
             [admin]\n\
             socket = {socket}\n\
             listen = \"{admin}\"\n\
             \n\
             [limits]\n\
             drain = \"2s\"\n",
            name = node.name,
            mesh = node.mesh,
            seeds = seeds.join(", "),
            state = quoted(&node.state()),
            socket = quoted(&node.socket()),
            admin = node.admin,
        )
    }

    fn env(&self) -> String {
        let admins = self.nodes.iter().map(|node| {
            let name = node.name.to_uppercase();
            format!("{name}=http://{}\n", node.admin)
        });
        let calls = self.calls.iter().map(|call| {
            let name = format!("{}_{}", call.caller, call.callee).to_uppercase();
            format!("{name}=http://{}\n", call.listen)
        });
        let lines: String = admins.chain(calls).collect();
        format!(
            "# Addresses of the demo, for `. env` in a shell: dashboards, and where who calls whom.\n{lines}"
        )
    }
}

impl App {
    fn toml(&self) -> String {
        let Self {
            service,
            address,
            allow,
            weight,
            version,
            ..
        } = self;
        let (ip, port) = (address.ip(), address.port());
        let mut text = format!(
            "[[service]]\nname = \"{service}\"\naddress = \"{ip}\"\nport = {port}\nallow = [\"{allow}\"]\n"
        );
        if *weight != WEIGHT_USUAL {
            text += &format!("weight = {weight}\n");
        }
        if !version.is_empty() {
            text += &format!("labels = {{ version = \"{version}\" }}\n");
        }
        text + match self.kind {
            Kind::Http => {
                "protocol = \"http\"\nhealth = { kind = \"http\", path = \"/healthz\" }\n"
            }
            Kind::Echo => "protocol = \"tcp\"\nhealth = { kind = \"tcp\" }\n",
        }
    }
}

impl Call {
    fn toml(&self) -> String {
        let Self {
            caller,
            callee,
            listen,
            ..
        } = self;
        let mut more = match self.kind {
            // Programs of this host, and no page in a browser.
            Kind::Http => format!(
                "protocol = \"http\"\nhosts = [\"{listen}\", \"localhost\", \"{callee}\"]\n"
            ),
            Kind::Echo => "protocol = \"tcp\"\n".to_owned(),
        };
        if self.in_turn {
            more += "balance = { algorithm = \"round-robin\" }\n";
        }
        format!(
            "[[upstream]]\nservice = \"{callee}\"\nlisten = \"{listen}\"\nas = \"{caller}\"\n{more}"
        )
    }
}

/// A path as a TOML string. JSON's escapes are TOML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

const TRUST_DOMAIN: &str = "demo.example";
/// What an instance without a `weight` has.
const WEIGHT_USUAL: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    #[test]
    fn what_is_written_is_what_an_agent_loads() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a \"quoted\" directory");
        let plan = Plan::make(&odd).unwrap();
        plan.write().unwrap();
        for node in &plan.nodes {
            let config = Config::load(&node.directory).unwrap();
            assert_eq!(
                (config.listen, config.admin.listen),
                (node.mesh, node.admin)
            );
            assert_eq!(
                (&config.state, &config.admin.socket),
                (&node.state(), &node.socket())
            );
            assert_eq!(config.seeds.len(), 2);
            let identities = StateDir::open(&node.state()).unwrap().identities().unwrap();
            assert_eq!(identities.node.id().node_name(), Some(node.name));
            for name in config.services.iter().map(|service| &service.name) {
                assert!(identities.service(name.as_str()).is_some(), "{name}");
            }
            for name in config.upstreams.iter().map(|upstream| &upstream.caller) {
                assert!(identities.service(name.as_str()).is_some(), "{name}");
            }
        }
        let n3 = Config::load(&plan.nodes[2].directory).unwrap();
        let protocols: Vec<_> = n3
            .services
            .iter()
            .map(|service| (service.name.as_str(), service.protocol))
            .collect();
        assert_eq!(
            protocols,
            [
                ("echo", Protocol::Tcp),
                ("hello", Protocol::Http),
                ("stock", Protocol::Http)
            ]
        );
        let env = fs::read_to_string(odd.join("env")).unwrap();
        let orders = plan.call("web", "orders");
        assert!(
            env.contains(&format!("WEB_ORDERS=http://{}\n", orders.listen)),
            "{env}"
        );
    }
}
