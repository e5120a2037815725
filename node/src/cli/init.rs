//! `starling init`: the first host of a new mesh.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use starling_gossip::{NodeName, ServiceName};
use starling_transport::TrustDomain;

use super::starter::{self, Starter};
use super::{ca, out};
use crate::ca::Authority;
use crate::state::StateDir;

/// Start a mesh: make its CA, and the identities of this first host
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Name of the mesh, such as example.org: a DNS name that you own
    #[arg(long, value_name = "DOMAIN", value_parser = TrustDomain::parse)]
    trust_domain: TrustDomain,
    /// Name of this host in the mesh [default: the host name up to its first dot]
    #[arg(long, value_name = "NAME", value_parser = NodeName::parse)]
    node: Option<NodeName>,
    /// A service that runs or calls here; may be repeated
    #[arg(long = "service", value_name = "NAME", value_parser = ServiceName::parse)]
    services: Vec<ServiceName>,
    /// Where to keep keys and certificates [default: /var/lib/starling]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long certificates of nodes and services live
    #[arg(long, value_name = "TIME", default_value = ca::LIFETIME, value_parser = humantime::parse_duration)]
    lifetime: Duration,
    #[command(flatten)]
    starter: Starter,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let node = self.node.map_or_else(node_from_host_name, Ok)?;
        crate::ca::check_lifetime(self.lifetime)?;
        self.starter
            .prepare(self.state.as_deref(), &self.services)?;
        let state = StateDir::create(&starter::state(self.state.as_deref()))?;
        let authority = Authority::init(&state, &self.trust_domain, &node)?;
        authority.write_bundle(&state, &node, &self.services, self.lifetime)?;
        let dir = state.path().display();
        out::say(&format!(
            "Mesh {} begins here, with node {node}{}.",
            self.trust_domain,
            ca::with(&self.services)
        ))?;
        out::say(&format!(
            "Keys and certificates are in {dir}; certificates live {}.",
            humantime::format_duration(self.lifetime)
        ))?;
        out::say(&format!(
            "The root key {dir}/ca/root.key is not needed here any more: move it to a safe place offline."
        ))?;
        out::say(
            "For another host: `starling invite --node NAME --service NAME`, and there `starling join`.",
        )?;
        self.starter.write(&starter::Facts {
            command: "init",
            state: self.state.as_deref(),
            seeds: &[],
            lifetime: Some(self.lifetime),
            services: &self.services,
        })?;
        Ok(())
    }
}

fn node_from_host_name() -> anyhow::Result<NodeName> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host name; use --node")?;
    let label = host
        .trim()
        .split('.')
        .next()
        .unwrap_or_default()
        .to_lowercase();
    NodeName::parse(&label).with_context(|| {
        format!(
            "the host name `{}` cannot name a node; use --node",
            host.trim()
        )
    })
}
