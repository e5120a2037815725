//! Hosts that are network namespaces: what crosses a wire, what happens when one is cut, and what a host's end costs.

mod churn;
mod discovery;
mod enrolment;
mod partition;
mod quickstart;
mod secrecy;
mod stories;
mod talks;

use std::time::Duration;

/// Within this, every agent knows of a change: the promise of the mesh.
const SEEN: Duration = Duration::from_secs(2);
/// For what only has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
