//! Many callers at once, each on a connection that it keeps.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::http::Client;

/// What the callers of a [`Load`] met.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers with status 200.
    pub good: u64,
    /// Anything else: when, and what.
    pub failures: Vec<(Instant, String)>,
    /// The longest that one request took.
    pub slowest: Duration,
}

/// Callers that send `GET path` over and over until they are stopped.
#[derive(Debug)]
pub struct Load<'scope> {
    callers: Vec<ScopedJoinHandle<'scope, Report>>,
    state: &'scope State,
}

/// Shared by the callers; outlives their scope.
#[derive(Debug, Default)]
pub struct State {
    stop: AtomicBool,
    good: AtomicU64,
}

impl<'scope> Load<'scope> {
    /// Starts `callers` threads on `host`.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        state: &'scope State,
        host: &'scope Host,
        callers: usize,
        address: SocketAddr,
        path: &'static str,
    ) -> Self {
        let caller = move || {
            host.enter();
            call(state, address, path)
        };
        Self {
            callers: (0..callers).map(|_| scope.spawn(caller)).collect(),
            state,
        }
    }

    /// Good answers so far.
    pub fn good(&self) -> u64 {
        self.state.good.load(Ordering::Relaxed)
    }

    /// Lets every caller finish its request, and adds up.
    pub fn stop(mut self) -> Report {
        self.state.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for caller in self.callers.drain(..) {
            let one = caller.join().expect("a caller does not panic");
            all.good += one.good;
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
        }
        all.failures.sort_by_key(|(when, _)| *when);
        all
    }
}

impl Report {
    /// From the first to the last failure.
    pub fn error_window(&self) -> Duration {
        match (self.failures.first(), self.failures.last()) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first),
            _ => Duration::ZERO,
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        // A failing test must not wait for ever for its callers.
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

fn call(state: &State, address: SocketAddr, path: &str) -> Report {
    let mut client = Client::new(address);
    let mut report = Report::default();
    while !state.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let outcome = client.get(path);
        report.slowest = report.slowest.max(began.elapsed());
        match outcome {
            Ok(answer) if answer.status == 200 => {
                report.good += 1;
                state.good.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let reason = answer.mesh_error().unwrap_or("the app's own");
                report
                    .failures
                    .push((began, format!("{} {reason}", answer.status)));
            }
            Err(error) => report.failures.push((began, error.to_string())),
        }
    }
    report
}
