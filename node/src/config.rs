//! What the operator declared for this host: `starling.toml` and `services.d/*.toml`, checked.
//!
//! Everything here is a plain value; loading it touches nothing but the files themselves. Whatever can be wrong in
//! them is found here, all at once, so that the code behind this border never meets a bad value. `docs/configuration.md`
//! says the same to the operator, and a test compares the two.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod access;
mod admin;
mod calls;
mod check;
mod health;
mod hosts;
mod issuer;
mod keys;
mod limits;
mod load;
pub mod policy;
mod problems;
mod raw;
mod remote;
pub mod revocation;
pub mod route;
mod service;
mod trace;
mod upstream;
mod whole;

use crate::route::Route;

pub use access::AccessLog;
pub use admin::{Admin, Log, LogFormat, SOCKET};
pub use calls::{
    Algorithm, Balance, Budget, CallLimits, CallOverrides, CallSettings, Condition, Conditions,
    Key, Outlier, Rate, Retry, ServiceLimits, Timeouts, Zone,
};
pub(crate) use check::is_host_port;
pub use health::{Health, HealthKind};
pub use hosts::Hosts;
pub use issuer::Issuer;
pub use limits::Limits;
pub use load::Contents;
pub use policy::Mode;
pub use problems::{Problem, Problems, Warning};
pub use remote::{Files, Remote};
pub(crate) use service::AUTO;
pub use service::{HttpVersion, Protocol, Service};
pub use trace::{Collector, ExportProtocol, Trace};
pub use upstream::Upstream;

/// One host's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// UDP address of the mesh port. Needs a restart.
    pub listen: SocketAddr,
    /// Where other nodes reach the mesh port, if that is not what `listen` says. Needs a restart.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes to ask first. Each is known to have a host and a port; names are resolved when dialled.
    /// Needs a restart.
    pub seeds: Vec<String>,
    /// Failure domain of this host, empty if there is only one. Needs a restart.
    pub zone: String,
    /// The state directory: keys, certificates and what the agent remembers. Needs a restart.
    pub state: PathBuf,
    pub admin: Admin,
    pub log: Log,
    pub trace: Trace,
    pub limits: Limits,
    /// What happens to calls that nothing allows, unless something nearer says otherwise. Reloadable.
    pub mode: Option<policy::Set>,
    /// Names for several services. Reloadable.
    pub groups: policy::Groups,
    pub issuer: Issuer,
    /// Services that run on this host. Names are unique. Reloadable.
    pub services: Vec<Service>,
    /// Services that apps of this host call. Listen addresses are unique. Reloadable.
    pub upstreams: Vec<Upstream>,
    /// Where calls of this host's apps go. At most one for a service. Reloadable.
    pub routes: Vec<Route>,
}

impl Default for Config {
    /// What an empty directory means.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], MESH_PORT)),
            advertise: None,
            seeds: Vec::new(),
            zone: String::new(),
            state: PathBuf::from(STATE),
            admin: Admin::default(),
            log: Log::default(),
            trace: Trace::default(),
            limits: Limits::default(),
            mode: None,
            groups: policy::Groups::new(),
            issuer: Issuer::default(),
            services: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }
}

/// Where in the files something was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    /// Counted from 1; 0 for what stands in no text.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Reads `data` as configuration, for fuzzing: any bytes give settings or problems, never a panic.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let file = Path::new("starling.toml");
    if let Err(problems) = Config::from_bytes(file, data) {
        let all = problems.iter().collect::<Vec<_>>();
        assert!(!all.is_empty(), "refused without a problem");
        assert!(
            all.iter().all(|problem| problem.line.is_some()),
            "a problem without a line: {problems}"
        );
    }
}

/// The directory read by `starling agent` unless told otherwise.
pub const DIRECTORY: &str = "/etc/starling";
/// The state directory unless told otherwise.
pub const STATE: &str = "/var/lib/starling";
/// The mesh port unless told otherwise.
const MESH_PORT: u16 = 7400;

#[cfg(test)]
mod tests;
