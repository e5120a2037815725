//! Applications that know nothing of the mesh: real ones, as Debian ships them, and one that shows what it gets.

mod mirror;
mod nginx;
mod postgres;
mod redis;

pub use mirror::mirror;
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;

use std::time::Duration;

/// A server on a busy machine; PostgreSQL takes the longest.
const START: Duration = Duration::from_secs(20);
