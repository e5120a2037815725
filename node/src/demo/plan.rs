//! What the demo consists of: addresses, TOML and identities.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use starling_gossip::{NodeName, ServiceName};
use starling_transport::TrustDomain;

use crate::ca::{Authority, LIFETIME};
use crate::config::Config;
use crate::state::StateDir;

/// Three nodes, three apps, and the addresses at which n1's apps would call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) directory: PathBuf,
    pub(super) nodes: Vec<Node>,
    pub(super) apps: Vec<App>,
    /// `hello` and `echo` as called by `web`, which they allow.
    pub(super) hello: SocketAddr,
    pub(super) echo: SocketAddr,
    /// `hello` as called by `guest`, which it does not allow.
    pub(super) denied: SocketAddr,
    ports: Ports,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    directory: PathBuf,
    identities: &'static [&'static str],
}

#[derive(Debug)]
pub(super) struct App {
    pub(super) node: &'static str,
    pub(super) service: &'static str,
    /// Empty if there is only one.
    pub(super) version: &'static str,
    pub(super) address: SocketAddr,
    kind: &'static str,
}

/// Free ports, held until the processes that want them start. In between, another program could take one; then that
/// process says so and the demo ends.
#[derive(Debug, Default)]
struct Ports {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Plan {
    /// Chooses addresses. Nothing is written yet.
    pub(super) fn make(directory: &Path) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let mut node = |number: u8, name, identities| -> anyhow::Result<Node> {
            let ip = host(number);
            let directory = directory.join(name);
            Ok(Node {
                name,
                mesh: ports.udp(ip)?,
                admin: ports.tcp(ip)?,
                directory,
                identities,
            })
        };
        let nodes = vec![
            node(1, "n1", &["web", "guest"])?,
            node(2, "n2", &["hello"])?,
            node(3, "n3", &["hello", "echo"])?,
        ];
        let mut app = |number, node, service, version, kind| -> anyhow::Result<App> {
            Ok(App {
                node,
                service,
                version,
                address: ports.tcp(host(number))?,
                kind,
            })
        };
        let apps = vec![
            app(2, "n2", "hello", "v1", "http")?,
            app(3, "n3", "hello", "v2", "http")?,
            app(3, "n3", "echo", "", "echo")?,
        ];
        let (hello, echo, denied) = (
            ports.tcp(host(1))?,
            ports.tcp(host(1))?,
            ports.tcp(host(1))?,
        );
        Ok(Self {
            directory: directory.to_owned(),
            nodes,
            apps,
            hello,
            echo,
            denied,
            ports,
        })
    }

    /// Writes what an operator would: TOML for each host, and state directories from the CA on n1.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let trust_domain = TrustDomain::parse(TRUST_DOMAIN).context("our own trust domain")?;
        let mut authority = None;
        for node in &self.nodes {
            make_directory(&node.directory.join("services.d"))?;
            let state = StateDir::create(&node.state())?;
            let authority = match &mut authority {
                Some(authority) => authority,
                none => none.insert(Authority::init(
                    &state,
                    &trust_domain,
                    &NodeName::parse(node.name)?,
                )?),
            };
            let services = node
                .identities
                .iter()
                .map(|name| ServiceName::parse(name))
                .collect::<Result<Vec<_>, _>>()?;
            authority.write_bundle(&state, &NodeName::parse(node.name)?, &services, LIFETIME)?;
            write(&node.directory.join("starling.toml"), &self.node_toml(node))?;
            for app in self.apps.iter().filter(|app| app.node == node.name) {
                write(
                    &node
                        .directory
                        .join(format!("services.d/{}.toml", app.service)),
                    &app.toml(),
                )?;
            }
        }
        write(
            &self.nodes[0].directory.join("services.d/web.toml"),
            &self.callers_toml(),
        )?;
        for node in &self.nodes {
            Config::load(&node.directory)?;
        }
        Ok(())
    }

    /// Frees the ports for those who will use them.
    pub(super) fn release_ports(&mut self) {
        self.ports = Ports::default();
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

    fn callers_toml(&self) -> String {
        let upstream = |service: &str, listen: SocketAddr, caller: &str| {
            format!(
                "[[upstream]]\nservice = \"{service}\"\nlisten = \"{listen}\"\nas = \"{caller}\"\n"
            )
        };
        format!(
            "# What apps on this host call. `web` is allowed by those it calls, `guest` by nobody.\n{}\n{}\n{}",
            upstream("hello", self.hello, "web"),
            upstream("echo", self.echo, "web"),
            upstream("hello", self.denied, "guest"),
        )
    }
}

impl Node {
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        // As text: the directory was checked to be writable in TOML, which is text.
        vec![
            "agent".to_owned(),
            "--config".to_owned(),
            self.directory.to_string_lossy().into_owned(),
        ]
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }
}

impl App {
    /// For logs and messages: `hello-v1`, `echo`.
    pub(super) fn process_name(&self) -> String {
        if self.version.is_empty() {
            self.service.to_owned()
        } else {
            format!("{}-{}", self.service, self.version)
        }
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        let listen = self.address.to_string();
        let name = if self.version.is_empty() {
            self.service
        } else {
            self.version
        };
        [
            "demo-app", self.kind, "--listen", &listen, "--name", name, "--node", self.node,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn toml(&self) -> String {
        let (name, ip, port) = (self.service, self.address.ip(), self.address.port());
        let common = format!(
            "[[service]]\nname = \"{name}\"\naddress = \"{ip}\"\nport = {port}\nallow = [\"web\"]\n"
        );
        match self.kind {
            "http" => format!(
                "{common}protocol = \"http\"\nlabels = {{ version = \"{}\" }}\n\
                 health = {{ kind = \"http\", path = \"/healthz\" }}\n",
                self.version
            ),
            _ => format!("{common}protocol = \"tcp\"\nhealth = {{ kind = \"tcp\" }}\n"),
        }
    }
}

impl Ports {
    fn tcp(&mut self, ip: IpAddr) -> anyhow::Result<SocketAddr> {
        let listener =
            TcpListener::bind((ip, 0)).with_context(|| format!("no free TCP port on {ip}"))?;
        let address = listener.local_addr()?;
        self.tcp.push(listener);
        Ok(address)
    }

    fn udp(&mut self, ip: IpAddr) -> anyhow::Result<SocketAddr> {
        let socket =
            UdpSocket::bind((ip, 0)).with_context(|| format!("no free UDP port on {ip}"))?;
        let address = socket.local_addr()?;
        self.udp.push(socket);
        Ok(address)
    }
}

/// All of 127.0.0.0/8 is this machine.
fn host(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
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

pub(super) const TRUST_DOMAIN: &str = "demo.example";

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
            [("echo", Protocol::Tcp), ("hello", Protocol::Http)]
        );
    }
}
