//! What an eavesdropper on the wire sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Process, Signal, leashed};
use crate::program;
use crate::wait::wait_until;
use crate::wire::Wire;

/// tcpdump on the bridge of a [`Wire`]: every packet between hosts, whole.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts it and waits until it listens.
    pub fn start(wire: &Wire, directory: &Path) -> Self {
        let file = directory.join("wire.pcap");
        let mut command = leashed(program::path("ip"));
        command
            .args(["netns", "exec", wire.switch()])
            .arg(program::path("tcpdump"));
        // `-Z root`: it would otherwise give up the right to write there.
        // Immediate: otherwise the kernel hands packets over by the second, and the last ones never.
        command
            .args(["-i", "br0", "-s", "0", "--immediate-mode"])
            .args(["-U", "-B", "65536", "-Z", "root", "-w"])
            .arg(&file);
        let mut process = Process::spawn("tcpdump", command, &directory.join("tcpdump.log"));
        wait_until(START, "tcpdump", || {
            process.check();
            process.log().contains("listening on")
        });
        Self { process, file }
    }

    /// What it has written until now. On a busy machine that is less than it was handed: what must be seen is waited for.
    pub fn so_far(&self) -> Vec<u8> {
        fs::read(&self.file).unwrap_or_default()
    }

    /// Ends it and returns all it has seen.
    pub fn stop(mut self) -> Vec<u8> {
        self.process.signal(Signal::INT);
        self.process.wait(START);
        let log = self.process.log();
        assert!(
            log.contains("\n0 packets dropped by kernel"),
            "the capture has holes: {log}"
        );
        fs::read(&self.file).expect("it was written")
    }
}

/// Whether `marker` stands anywhere in `bytes`.
pub fn holds(bytes: &[u8], marker: &str) -> bool {
    let marker = marker.as_bytes();
    bytes.windows(marker.len()).any(|window| window == marker)
}

const START: Duration = Duration::from_secs(10);
