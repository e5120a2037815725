//! How the agent answers questions about itself: a unix socket for commands, loopback HTTP for monitoring and people.
//!
//! HTTP only reads. Over the socket, which only the agent's own user may open, operators hand in what they signed.

mod answer;
mod events;
mod origin;
mod page;
mod post;
mod remote;
mod scrape;
pub mod server;
pub mod socket;
mod tap;
pub mod view;

pub(crate) use origin::is_same_site;
pub use remote::Rules;
pub use server::{Door, serve};
pub use socket::{Socket, SocketError};
pub(crate) use tap::PASS;
pub use view::Source;
