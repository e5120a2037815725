//! Waiting for something to become true, never for time to pass.

use std::time::{Duration, Instant};

/// Polls until `condition` holds and returns how long that took. Fails the test after `within`.
#[track_caller]
pub fn wait_until(within: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    poll(within, what, || condition().then_some(()));
    began.elapsed()
}

/// Polls until `look` finds something and returns it. Fails the test after `within`.
#[track_caller]
pub fn poll<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    try_poll(within, &mut look).unwrap_or_else(|| panic!("waited {within:?} for {what}"))
}

/// Polls until `look` finds something, or gives up after `within`.
pub fn try_poll<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause();
    }
}

/// Lets time pass, where what is tested is that nothing happens meanwhile. `std::thread::park_timeout` may return at once.
pub fn let_pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that polls")]
fn pause() {
    std::thread::sleep(POLL);
}

/// Short against the two seconds that the tightest promise allows.
const POLL: Duration = Duration::from_millis(10);
