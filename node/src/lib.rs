//! The starling agent: one per host. It carries the traffic of local applications to the right instance over mutually
//! authenticated HTTP/3, decides who may call whom, and shows what it knows.
//!
//! Read it like a request: [`outbound`] takes a local app's connection, [`balance`] picks an instance, the transport
//! crate carries it, [`inbound`] on the other host judges the caller and hands it to the app.

mod addresses;
pub mod admin;
pub mod agent;
pub mod apps;
pub mod balance;
pub mod body;
pub mod ca;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
mod conversation;
pub mod deadline;
mod demo;
mod detect;
pub mod documents;
pub mod enrol;
pub mod grpc;
pub mod guard;
mod hash;
pub mod headers;
pub mod health;
pub mod host;
pub mod inbound;
pub mod invites;
pub mod issuer;
mod key;
mod memory;
pub mod mesh;
pub mod notify;
pub mod operator;
pub mod outbound;
pub mod pass;
pub mod path;
mod percent;
pub mod plaintext;
pub mod policy;
pub mod proxy_protocol;
pub mod pump;
mod random;
pub mod reason;
pub mod renewal;
pub mod revocation;
pub mod route;
mod said;
pub mod scrape;
mod span;
pub mod state;
pub mod survey;
pub mod tap;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod token;
pub mod upgrade;
mod visible;
