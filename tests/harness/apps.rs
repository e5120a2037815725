//! Real applications, as Debian ships them, that know nothing of the mesh.

mod nginx;
mod postgres;
mod redis;

pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;

use std::time::Duration;

/// A server on a busy machine; PostgreSQL takes the longest.
const START: Duration = Duration::from_secs(20);
