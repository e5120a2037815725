//! The processes of the demo.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Agents and apps. Dropping it kills what still runs.
#[derive(Debug)]
pub(super) struct Children {
    program: PathBuf,
    logs: PathBuf,
    agents: Vec<Process>,
    apps: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

/// A process of the demo ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended ({how}); the end of its log:\n{tail}")]
pub(super) struct Ended {
    name: String,
    how: String,
    tail: String,
}

impl Children {
    /// None yet. All will run `program` and write their output to files in `logs`.
    pub(super) fn new(program: PathBuf, logs: PathBuf) -> Self {
        Self {
            program,
            logs,
            agents: Vec::new(),
            apps: Vec::new(),
        }
    }

    pub(super) fn spawn_agent(&mut self, name: &str, arguments: &[String]) -> anyhow::Result<()> {
        let process = self.spawn(name, arguments)?;
        self.agents.push(process);
        Ok(())
    }

    pub(super) fn spawn_app(&mut self, name: &str, arguments: &[String]) -> anyhow::Result<()> {
        let process = self.spawn(name, arguments)?;
        self.apps.push(process);
        Ok(())
    }

    /// Waits until one ends by itself. Cancel-safe.
    pub(super) async fn first_end(&mut self) -> Ended {
        let waits: Vec<_> = self
            .agents
            .iter_mut()
            .chain(&mut self.apps)
            .map(|process| Box::pin(process.end()))
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await.0
    }

    /// Asks the agents to leave, and the apps to end once no agent needs them. What does not is left to [`Self::kill`].
    pub(super) async fn stop(&mut self) {
        for group in [&mut self.agents, &mut self.apps] {
            for process in group.iter_mut() {
                process.terminate();
            }
            let ends = group.iter_mut().map(|process| process.child.wait());
            // Either way it goes on: to the next group, then to `kill`.
            let _ = timeout(STOP_WAIT, join_all(ends)).await;
        }
    }

    /// Ends at once whatever still runs.
    pub(super) async fn kill(&mut self) {
        for process in self.agents.iter_mut().chain(&mut self.apps) {
            // It fails only for one that has ended already, which is what we want.
            let _ = process.child.kill().await;
        }
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        fs::create_dir_all(&self.logs)
            .with_context(|| format!("cannot make {}", self.logs.display()))?;
        let log = self.logs.join(format!("{name}.log"));
        // To its end, wherever that is: it may be cut meanwhile.
        let output = File::options().append(true).create_new(true).open(&log);
        let output = output.with_context(|| format!("cannot make {}", log.display()))?;
        let child = Command::new(&self.program)
            .args(arguments)
            .arg(format!("--parent={}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is for us alone; we ask the children one group after the other.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Process {
            name: name.to_owned(),
            log,
            child,
        })
    }
}

impl Process {
    async fn end(&mut self) -> Ended {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("cannot be waited for: {error}"),
        };
        let tail = tail(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        Ended {
            name: self.name.clone(),
            how,
            tail,
        }
    }

    fn terminate(&self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            // The id is known as long as nobody waited for the process, so it cannot be another's by now.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// An idle agent leaves in a fraction of a second; its own grace is set to 2 s.
const STOP_WAIT: Duration = Duration::from_secs(5);
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` takes `--parent=…` as its first argument and ignores it.
    fn children(dir: &Path) -> Children {
        Children::new("/bin/sh".into(), dir.join("logs"))
    }

    fn script(text: &str) -> Vec<String> {
        vec!["-c".to_owned(), text.to_owned()]
    }

    #[tokio::test]
    async fn a_child_that_dies_is_told_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        children
            .spawn_app("steady", &script("exec sleep 60"))
            .unwrap();
        children
            .spawn_agent("n1", &script("seq 1 100; echo no luck >&2; exit 3"))
            .unwrap();
        let ended = children.first_end().await;
        assert_eq!(
            (ended.name.as_str(), ended.how.as_str()),
            ("n1", "exit status: 3")
        );
        let lines: Vec<_> = ended.tail.lines().collect();
        assert_eq!((lines[0], lines[14]), ("  87", "  no luck"));
        children.stop().await;
    }

    #[tokio::test]
    async fn children_end_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        children
            .spawn_agent("n1", &script("exec sleep 60"))
            .unwrap();
        children
            .spawn_app("hello", &script("exec sleep 60"))
            .unwrap();
        timeout(STOP_WAIT, children.stop()).await.unwrap();
        for process in children.agents.iter_mut().chain(&mut children.apps) {
            assert!(process.child.try_wait().unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn a_child_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        children
            .spawn_agent("n1", &script("trap '' TERM; while :; do sleep 0.1; done"))
            .unwrap();
        children.kill().await;
        assert!(children.agents[0].child.try_wait().unwrap().is_some());
    }
}
