//! What tests that start real agents share: hosts, meshes of agents on them, the apps behind them and what looks on.
//!
//! A [`Host`] is a network namespace or an address of 127.0.0.0/8. A [`Mesh`] makes identities with `starling init` and
//! `starling ca issue`, writes TOML and runs one agent per host, as an operator would. Whatever a value here starts or
//! makes is gone when it is dropped; nothing else is touched.

pub mod apps;
pub mod browser;
pub mod capture;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod host;
pub mod http;
pub mod load;
pub mod mesh;
pub mod metrics;
pub mod peers;
pub mod probe;
pub mod process;
pub mod program;
pub mod scratch;
pub mod skip;
pub mod stream;
pub mod turn;
pub mod wait;
pub mod wire;

pub use host::Host;
pub use mesh::{Mesh, Node};
pub use process::Process;
pub use scratch::Scratch;
pub use skip::Need;
pub use wait::{let_pass, poll, wait_until};
pub use wire::Wire;
