//! What several memberships do together, in memory and on a clock that does not wait.

mod behaviour;
mod convergence;
mod documents;
mod simulation;
mod summaries;
mod trust;
