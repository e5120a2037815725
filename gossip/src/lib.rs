//! Who is in the mesh and what they offer.
//!
//! Each node signs one manifest of itself. [`Membership`] spreads it, takes in those of the others and keeps the
//! [`Catalogue`]: an immutable, verified snapshot that readers hold without waiting for anyone. A relaying node can delay a
//! manifest; it cannot alter, forge or replay one, and what it tries is refused and counted ([`metrics`]).
//!
//! The crate knows nothing of QUIC or TLS. It speaks through a [`Carrier`], signs with a [`Signer`] and trusts a [`Verifier`],
//! all three brought by the caller.
#![warn(missing_docs)]

mod budget;
pub mod carrier;
pub mod catalogue;
mod convergence;
mod core;
pub mod documents;
mod engine;
#[doc(hidden)]
pub mod fuzz;
mod guard;
pub mod local;
pub mod membership;
pub mod metrics;
pub mod names;
mod own;
pub mod proof;
mod pulse;
mod registry;
mod rumours;
pub mod settings;
mod state_file;
pub mod summary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod vetted;
mod wire;

pub use carrier::{Answer, Carrier, CarrierError, Inbound};
pub use catalogue::{Catalogue, Instance, Liveness, Member};
pub use documents::{Document, DocumentKey, Documents, Revision};
pub use local::{Caps, Local, LocalError, LocalService, State};
pub use membership::{Hint, Membership, StartError};
pub use names::{
    DocumentKind, DocumentName, Labels, NameError, NodeId, NodeName, OperatorName, ServiceName,
};
pub use proof::{ProofError, Proven, SignError, Signer, Verifier, verify_operator};
pub use settings::{Clock, Settings};
pub use summary::{CallEnd, Summary, SummaryEdge};
