//! Agents on addresses of one machine: real applications through the mesh, and the agent as its operator meets it.

mod balance;
mod bounds;
mod dashboard;
mod databases;
mod demo;
mod documents;
mod edges;
mod enrolment;
mod fail_closed;
mod grpc;
mod http;
mod lifecycle;
mod local_calls;
mod matrix;
mod memory;
mod operators;
mod policy;
mod prometheus;
mod protocols;
mod remote;
mod resilience;
mod revocation;
mod routes;
mod shipped;
mod smuggling;
mod stages;
mod tap;
mod tcp;
mod tutorials;
mod websocket;
mod words;

use std::time::Duration;

/// Within this, every agent knows of a change: the promise of the mesh.
const SEEN: Duration = Duration::from_secs(2);
/// For what only has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
