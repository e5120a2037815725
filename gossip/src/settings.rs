//! What a mesh is tuned by.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How [`Membership`](crate::Membership) behaves. [`Settings::new`] gives what a LAN needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The trust domain, such as `example.org`.
    pub trust_domain: String,
    /// Where to look for the mesh first: `host:port`. Host names are resolved again every minute.
    pub seeds: Vec<String>,
    /// Time between two rounds of reconciliation, at least 100 ms. Traffic grows with its inverse; changes travel as rumours in any
    /// case.
    pub interval: Duration,
    /// How long a manifest is good without a newer one. It is renewed at a third of that.
    pub ttl: Duration,
    /// How long a dead node is remembered, and gossiped to, before it is forgotten.
    pub dead_grace: Duration,
    /// Nodes we are willing to know, ourselves included. 256 is the size meant, 400 is the most: chitchat names all of them in each
    /// exchange.
    pub nodes_max: usize,
    /// File that keeps our generation, so that it grows though the clock goes back. `None` trusts the clock.
    pub generation_file: Option<PathBuf>,
    /// File that keeps the peers we have seen, so that we find the mesh though every seed is gone.
    pub peers_file: Option<PathBuf>,
    /// Directory that keeps the documents; it exists and nobody else writes there. `None` keeps them in memory.
    pub documents_dir: Option<PathBuf>,
    /// The wall clock.
    pub clock: Clock,
}

impl Settings {
    /// What a LAN needs, with no seeds and nothing kept on disk.
    pub fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            seeds: Vec::new(),
            interval: Duration::from_secs(1),
            ttl: Duration::from_secs(15 * 60),
            dead_grace: Duration::from_secs(10 * 60),
            nodes_max: 400,
            generation_file: None,
            peers_file: None,
            documents_dir: None,
            clock: Clock::system(),
        }
    }
}

impl Settings {
    /// What is outside its bounds, brought to them.
    pub(crate) fn within_bounds(self) -> Self {
        Self {
            interval: self.interval.max(INTERVAL_MIN),
            nodes_max: self.nodes_max.min(NODES_MAX),
            ..self
        }
    }
}

/// chitchat beats up to ten times per interval, and nobody believes more than 200 beats a second.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// With half as many former lives this is what fits chitchat's messages.
const NODES_MAX: usize = 400;

/// Tells the wall-clock time; tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since_1970 = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// A clock that returns what `now_ms` returns: milliseconds since 1970.
    pub fn from_fn(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }

    /// Seconds since 1970.
    pub fn now_s(&self) -> u64 {
        self.now_ms() / 1000
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ms)", self.now_ms())
    }
}
