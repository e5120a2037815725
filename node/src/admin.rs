//! How the agent answers questions about itself: a unix socket for commands, loopback HTTP for monitoring.
//!
//! Both only read. What changes the agent is its configuration and signals, so there is nothing here to abuse.

pub mod server;
pub mod socket;
pub mod view;

pub use server::{Door, serve};
pub use socket::{Socket, SocketError};
pub use view::Source;
