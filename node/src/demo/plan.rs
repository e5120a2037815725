//! What the demo consists of: who runs where, who calls whom, and at which addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Three nodes, their apps, and the addresses at which apps call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) directory: PathBuf,
    pub(super) nodes: Vec<Node>,
    pub(super) apps: Vec<App>,
    pub(super) calls: Vec<Call>,
    ports: Ports,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) directory: PathBuf,
}

#[derive(Debug)]
pub(super) struct App {
    pub(super) node: &'static str,
    pub(super) service: &'static str,
    /// Empty if there is only one.
    pub(super) version: &'static str,
    pub(super) address: SocketAddr,
    pub(super) kind: Kind,
    /// The one who may call it.
    pub(super) allow: &'static str,
    pub(super) weight: u32,
    delay_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Echo,
}

/// Where apps of a node call a service, as whom.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) node: &'static str,
    pub(super) caller: &'static str,
    pub(super) callee: &'static str,
    pub(super) listen: SocketAddr,
    /// What the callee speaks.
    pub(super) kind: Kind,
    /// Whether its instances take turns, be they slow or not.
    pub(super) in_turn: bool,
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
        Ok(Self {
            directory: directory.to_owned(),
            nodes: nodes(directory, &mut ports)?,
            apps: apps(&mut ports)?,
            calls: calls(&mut ports)?,
            ports,
        })
    }

    /// Frees the ports for those who will use them.
    pub(super) fn release_ports(&mut self) {
        self.ports = Ports::default();
    }

    /// Where `caller` calls `callee`.
    pub(super) fn call(&self, caller: &str, callee: &str) -> &Call {
        let mut calls = self.calls.iter();
        calls
            .find(|call| (call.caller, call.callee) == (caller, callee))
            .expect("callers and callees are those of `calls`")
    }

    /// The callers that never rest: what to start, by name.
    pub(super) fn traffic(&self) -> [(&'static str, Vec<String>); 2] {
        let at = |caller, callee| self.call(caller, callee).listen;
        let web = [
            format!("--http={}/", at("web", "hello")),
            format!("--http={}/orders/17", at("web", "orders")),
            format!("--echo={}", at("web", "echo")),
        ];
        let guest = [format!("--http={}/", at("guest", "hello"))];
        [
            ("web", traffic(WEB_EVERY_MS, web)),
            ("guest", traffic(GUEST_EVERY_MS, guest)),
        ]
    }

    /// What `app` is started with.
    pub(super) fn arguments(&self, app: &App) -> Vec<String> {
        let listen = format!("--listen={}", app.address);
        if app.kind == Kind::Echo {
            return ["demo-app", "echo", &listen].map(str::to_owned).to_vec();
        }
        let name = if app.version.is_empty() {
            app.service
        } else {
            app.version
        };
        let mut arguments = ["demo-app", "http", &listen, "--name", name]
            .map(str::to_owned)
            .to_vec();
        arguments.extend([
            format!("--node={}", app.node),
            format!("--delay-ms={}", app.delay_ms),
        ]);
        let mut calls = self.calls.iter();
        let asks = calls.find(|call| (call.node, call.caller) == (app.node, app.service));
        arguments.extend(asks.map(|call| format!("--calls={}", call.listen)));
        arguments
    }
}

/// The first is the issuer.
fn nodes(directory: &Path, ports: &mut Ports) -> anyhow::Result<Vec<Node>> {
    let named = [(1, "n1"), (2, "n2"), (3, "n3")].into_iter();
    let nodes = named.map(|(number, name)| {
        Ok(Node {
            name,
            mesh: ports.udp(host(number))?,
            admin: ports.tcp(host(number))?,
            directory: directory.join(name),
        })
    });
    nodes.collect()
}

fn apps(ports: &mut Ports) -> anyhow::Result<Vec<App>> {
    let mut app = |number, node, service, allow, kind| -> anyhow::Result<App> {
        Ok(App {
            node,
            service,
            version: "",
            address: ports.tcp(host(number))?,
            kind,
            allow,
            weight: 100,
            delay_ms: 0,
        })
    };
    Ok(vec![
        App {
            version: "v1",
            ..app(2, "n2", "hello", "web", Kind::Http)?
        },
        app(2, "n2", "orders", "web", Kind::Http)?,
        App {
            weight: 200,
            ..app(2, "n2", "stock", "orders", Kind::Http)?
        },
        App {
            version: "v2",
            ..app(3, "n3", "hello", "web", Kind::Http)?
        },
        // The one to find.
        App {
            delay_ms: SLOW_MS,
            ..app(3, "n3", "stock", "orders", Kind::Http)?
        },
        app(3, "n3", "echo", "web", Kind::Echo)?,
    ])
}

fn calls(ports: &mut Ports) -> anyhow::Result<Vec<Call>> {
    let mut call = |number, node, caller, callee, kind| -> anyhow::Result<Call> {
        Ok(Call {
            node,
            caller,
            callee,
            listen: ports.tcp(host(number))?,
            kind,
            in_turn: false,
        })
    };
    Ok(vec![
        call(1, "n1", "web", "hello", Kind::Http)?,
        call(1, "n1", "web", "orders", Kind::Http)?,
        call(1, "n1", "web", "echo", Kind::Echo)?,
        // Allowed by nobody.
        call(1, "n1", "guest", "hello", Kind::Http)?,
        // By the usual balancing the slow instance would hardly get a call, and there would be nothing to find.
        Call {
            in_turn: true,
            ..call(2, "n2", "orders", "stock", Kind::Http)?
        },
    ])
}

fn traffic<const N: usize>(every_ms: u64, targets: [String; N]) -> Vec<String> {
    let mut arguments = vec!["demo-app".to_owned(), "traffic".to_owned()];
    arguments.push(format!("--every-ms={every_ms}"));
    arguments.extend(targets);
    arguments
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

    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }
}

impl App {
    /// For logs and messages: `stock-n3`.
    pub(super) fn process_name(&self) -> String {
        format!("{}-{}", self.service, self.node)
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

/// Three callees four times a second each, one of which asks a fourth, and a guest: 17 calls a second at most, which a
/// laptop does not notice.
const WEB_EVERY_MS: u64 = 250;
const GUEST_EVERY_MS: u64 = 1000;
/// Slow enough to stand out, and quick enough that nobody gives up.
pub(super) const SLOW_MS: u64 = 300;
