//! A control group with little memory, in which the kernel ends what uses too much.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed when it is dropped, with what still runs in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// A new one, or why there cannot be one.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("starling-{}-{number}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (parent, version) = match root.join("memory").is_dir() {
            true => (root.join("memory"), Version::V1),
            false => (root.to_owned(), Version::V2),
        };
        let made = Self {
            path: parent.join(name),
            version,
        };
        fs::create_dir(&made.path).map_err(|error| format!("no control group: {error}"))?;
        match made.path.join(made.limit()).exists() {
            true => Ok(made),
            false => Err("control groups here do not limit memory".to_owned()),
        }
    }

    /// Has the kernel run out of memory in here with the process `pid` as its first choice.
    pub fn run_out_of_memory(&self, pid: u32) {
        self.put(pid);
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").expect("root may do that");
        self.set(self.limit(), &LIMIT_BYTES.to_string());
        if self.version == Version::V2 {
            self.set("memory.swap.max", "0");
        }
        // Holds what it reads until there is no more memory.
        let mut eater = Command::new("sh")
            .args(["-c", "read go; head -c 256M /dev/zero | tail"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        self.put(eater.id());
        // Only now does it begin.
        drop(eater.stdin.take());
        let _killed = eater.wait();
    }

    /// How many processes the kernel has killed in here.
    pub fn killed(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    fn limit(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    fn put(&self, pid: u32) {
        self.set("cgroup.procs", &pid.to_string());
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.path.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _gone = Command::new("kill").args(["-9", pid]).status();
        }
        // The last of them may need a moment.
        let removed = || fs::remove_dir(&self.path).is_ok();
        let _left_over = crate::wait::try_poll(PATIENCE, || removed().then_some(()));
    }
}

/// Room for the agent, and little more.
const LIMIT_BYTES: u64 = 64 << 20;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
