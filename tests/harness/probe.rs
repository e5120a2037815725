//! Calls on a clock, whatever became of those before: what a user who never stops trying would see.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http;
use crate::wait::let_pass;

/// `GET /` each 40 ms, each on a connection of its own, until it is stopped.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    ticking: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// When each call began, and its status; 0 if there was no answer.
    seen: Mutex<Vec<(Instant, u16)>>,
}

impl Probe {
    /// Calls `address`, which has to be one of this machine's own addresses.
    pub fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let ticking = shared.clone();
        Self {
            shared,
            ticking: Some(std::thread::spawn(move || ticking.tick(address))),
        }
    }

    /// Ends it and waits for all answers. The statuses of the calls that began after `when`, in the order of their ends.
    pub fn since(mut self, when: Instant) -> Vec<u16> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(ticking) = self.ticking.take() {
            ticking.join().expect("a caller does not panic");
        }
        let seen = self.shared.seen();
        let later = seen.iter().filter(|(began, _)| *began >= when);
        later.map(|(_, status)| *status).collect()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn tick(self: Arc<Self>, address: SocketAddr) {
        let mut calls = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let shared = self.clone();
            calls.push(std::thread::spawn(move || {
                let began = Instant::now();
                let status = http::get(address, "/").map_or(0, |answer| answer.status);
                shared.seen().push((began, status));
            }));
            let_pass(EVERY);
        }
        for call in calls {
            call.join().expect("a caller does not panic");
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, u16)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 25 a second: a door that is open for a tenth of a second is seen.
const EVERY: Duration = Duration::from_millis(40);
