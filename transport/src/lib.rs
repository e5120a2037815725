//! How bytes get there: identities, mutually authenticated QUIC and HTTP/3.
//!
//! Only this crate names quinn, h3 and rustls. It knows nothing of services, routes or gossip: it proves who is at the
//! other end of a connection and carries requests, tunnels and messages between two proven identities.
#![warn(missing_docs)]

mod chain;
pub mod credential;
pub mod ended;
pub mod endpoint;
pub mod h3;
mod heard;
pub mod identities;
pub mod identity;
pub mod join;
pub mod line;
pub mod links;
pub mod local;
pub mod messages;
pub mod metrics;
pub mod path;
pub mod pool;
mod refused;
pub mod revocation;
pub mod session;
pub mod svid;
pub mod tls;
mod tuning;

pub use credential::Credential;
pub use ended::Ended;
pub use endpoint::{BindError, Callee, DialError, Endpoint, Options};
pub use identities::{Identities, IdentitySet, RefusedByPeer, WhyRefused};
pub use identity::{IdentityError, IdentityKind, SpiffeId, TrustDomain};
pub use line::{HostHash, Line, LineFull, LineName, LineNameError, Signers};
pub use local::{LocalRefusal, LocalSession};
pub use messages::{Courier, MessageError, Parcel};
pub use path::Path;
pub use pool::Pool;
pub use revocation::{KeyHash, KeyHashError, Revocations, Revoked, issuer_name};
pub use session::{Protocol, Session};
pub use svid::{DATED_BACK, Leaf, Refusal, Svid, SvidError, TrustBundle};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
