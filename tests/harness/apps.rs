//! Applications that know nothing of the mesh: real ones, as Debian ships them, one that shows what it gets, and one whose
//! failings a test chooses.

mod mirror;
mod moody;
mod nginx;
mod postgres;
mod redis;

pub use mirror::mirror;
pub use moody::{Moody, Reply};
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;

use std::time::Duration;

/// A server on a busy machine; PostgreSQL takes the longest.
const START: Duration = Duration::from_secs(20);
