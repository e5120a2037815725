//! What the operator declared for this host: `starling.toml` and `services.d/*.toml`, checked.
//!
//! Everything here is a plain value; loading it touches nothing but the files themselves. Whatever can be wrong in
//! them is found here, all at once, so that the code behind this border never meets a bad value.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::ServiceName;

/// One host's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// UDP address of the mesh port.
    pub listen: SocketAddr,
    /// Where other nodes reach the mesh port, if that is not what `listen` says.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes to ask first. Each is known to have a host and a port; names are resolved when dialled.
    pub seeds: Vec<String>,
    /// Failure domain of this host.
    pub zone: String,
    /// The state directory: keys, certificates and what the agent remembers.
    pub state: PathBuf,
    pub admin: Admin,
    pub log: Log,
    pub limits: Limits,
    /// Services that run on this host. Names are unique.
    pub services: Vec<Service>,
    /// Services that apps of this host call. Listen addresses are unique.
    pub upstreams: Vec<Upstream>,
}

/// Where the agent answers questions about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket for `starling status` and its like; mode 0600.
    pub socket: PathBuf,
    /// Loopback address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
}

/// How the agent logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// A level or a filter such as `info,starling_gossip=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What the agent may use at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections from and to local apps.
    pub connections: u32,
    /// Requests and tunnels that one peer connection carries at a time.
    pub streams_per_peer: u32,
    /// Bytes of all header fields of one request or response.
    pub header_bytes: u32,
    /// Requests that wait for an instance at a time.
    pub pending: u32,
    /// How long an app connection or a tunnel may carry nothing.
    pub idle: Duration,
    /// How long a request waits for an instance before it fails.
    pub wait: Duration,
    /// How long a connection attempt may take, to a peer or to an app.
    pub connect: Duration,
    /// Grace for what is in flight when the agent is asked to stop.
    pub drain: Duration,
}

/// A service that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// Where the app listens.
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// The version of HTTP spoken to the app.
    pub http: HttpVersion,
    /// Services that may call it. Nobody else may.
    pub allow: Vec<ServiceName>,
    pub labels: BTreeMap<String, String>,
    /// Its share among the instances of the service, 1 to 1000.
    pub weight: u16,
    pub health: Option<Health>,
    pub declared: Place,
}

/// A service that local apps call, and where they call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub service: ServiceName,
    /// Local address where apps connect.
    pub listen: SocketAddr,
    /// Who calls: the service identity shown to the callee. `as` in TOML.
    pub caller: ServiceName,
    /// What apps speak here, if not what the instances announce.
    pub protocol: Option<Protocol>,
    pub declared: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    H1,
    H2,
}

/// How the agent finds out whether an app works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub kind: HealthKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes in a row that make it healthy.
    pub up: u32,
    /// Failures in a row that make it unhealthy.
    pub down: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthKind {
    /// The port accepts a connection.
    Tcp,
    /// `GET path` answers 2xx or 3xx.
    Http { path: String },
}

/// Where in the files something was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}
