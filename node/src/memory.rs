//! Giving memory back to the system after a peak.
//!
//! glibc returns only what is free at the end of its heap, so one small long-lived piece behind the buffers of a
//! thousand connections that are gone keeps all of it resident.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::host::Host;

/// How many connections of apps were open at most since somebody looked.
#[derive(Debug, Default)]
pub(crate) struct Peak(AtomicUsize);

impl Peak {
    /// There are `open` now.
    pub(crate) fn note(&self, open: usize) {
        self.0.fetch_max(open, Ordering::Relaxed);
    }
}

/// Looks now and then how many connections of apps are open, and gives memory back once many of them are gone. Never
/// ends.
pub(crate) async fn give_back(host: Arc<Host>) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        let open = host.connections_open();
        if host.peak.0.load(Ordering::Relaxed) >= open + GONE_MIN {
            host.peak.0.store(open, Ordering::Relaxed);
            trim();
        }
    }
}

/// Takes some milliseconds per 100 MB, in which nobody else can allocate.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc has no safe wrapper for this")]
fn trim() {
    // SAFETY: it takes no pointer, and glibc documents it as safe to call from any thread (MT-Safe).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators look after that themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Connections that have to be gone for it to pay: some 4 MiB.
const GONE_MIN: usize = 256;

/// How long memory stays after a peak, at most.
const EVERY: Duration = Duration::from_secs(5);

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::process::Command;

    use super::*;

    fn resident_bytes() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel has it");
        let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
        let pages = pages.expect("the second number is what is resident");
        pages * 4096
    }

    /// Other tests of this program take and give memory at the same time, so this one runs once more as a process.
    #[test]
    fn what_lies_before_a_piece_still_in_use_goes_back() {
        if std::env::var_os(ALONE).is_none() {
            let this = std::env::current_exe().expect("Linux says");
            let name = "memory::tests::what_lies_before_a_piece_still_in_use_goes_back";
            let alone = Command::new(this)
                .args(["--exact", name])
                .env(ALONE, "1")
                .output();
            let alone = alone.expect("it is running already");
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(
                alone.status.success() && said.contains("1 passed"),
                "{said}"
            );
            return;
        }
        let buffers: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; 8192]).collect();
        let behind = vec![1_u8; 64];
        let full = resident_bytes();
        drop(buffers);
        trim();
        let freed = full.saturating_sub(resident_bytes());
        drop(behind);
        assert!(freed > 24 << 20, "{freed} bytes of 32 MiB went back");
    }

    const ALONE: &str = "STARLING_TEST_ALONE";
}
