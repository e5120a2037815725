//! Checks that a program makes: whatever its author takes for health. It runs as the agent's user, without a shell.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, Command};

use super::probe::Problem;

/// Passes if the program ends with status 0. Dropped before that, it ends the program and whatever that started.
pub(super) async fn run(command: &[String], app: SocketAddr) -> Result<(), Problem> {
    let (program, arguments) = command
        .split_first()
        .expect("checked with the configuration");
    let failed = |source| Problem::Run {
        program: program.clone(),
        source,
    };
    let child = Command::new(program)
        .args(arguments)
        // What the agent was started with, such as systemd's sockets, is not the program's.
        .env_clear()
        .env("PATH", PATH)
        .env("STARLING_APP", app.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (status, said) = Group(child).ended().await.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::Ended {
        program: program.clone(),
        status,
        said: one_line(&said),
    })
}

/// A program in a process group of its own.
struct Group(Child);

impl Group {
    /// How it ended, and how its words on standard error began.
    async fn ended(mut self) -> std::io::Result<(ExitStatus, Vec<u8>)> {
        let mut said = Vec::new();
        let mut stderr = self.0.stderr.take();
        let status = tokio::select! {
            status = self.0.wait() => status?,
            () = listen(stderr.as_mut(), &mut said) => self.0.wait().await?,
        };
        // Its last words may still be in the pipe; a child of its own that holds the pipe open is not waited for.
        let rest = listen(stderr.as_mut(), &mut said);
        let _cut_short = tokio::time::timeout(LAST_WORDS, rest).await;
        Ok((status, said))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Until it was waited for nobody else can have its number.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, so that the program never waits for a reader, and keeps the beginning.
async fn listen(stderr: Option<&mut ChildStderr>, said: &mut Vec<u8>) {
    let Some(stderr) = stderr else { return };
    keep(stderr, said).await;
}

async fn keep(reader: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    let mut buffer = [0; 512];
    while let Ok(bytes @ 1..) = reader.read(&mut buffer).await {
        let room = SAID_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..bytes.min(room)]);
    }
}

/// The first line, as a log line and a terminal can carry it.
fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.map_or_else(
        || "it said nothing".to_owned(),
        |line| line.trim().escape_debug().to_string(),
    )
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What of its words an operator gets to read.
const SAID_BYTES_MAX: usize = 200;
const LAST_WORDS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn shell(script: &str) -> Result<(), String> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let ran = run(&command, ([127, 0, 0, 1], 8080).into()).await;
        ran.map_err(|problem| problem.to_string())
    }

    #[tokio::test]
    async fn the_status_decides_and_the_first_words_are_told() {
        assert_eq!(shell("exit 0").await, Ok(()));
        assert_eq!(shell("echo fine >&2").await, Ok(()));
        for (script, problem) in [
            (
                "echo 'no\tway' >&2; echo more >&2; exit 3",
                "exit status: 3: no\\tway",
            ),
            ("exit 1", "exit status: 1: it said nothing"),
            ("kill -9 $$", "signal: 9 (SIGKILL): it said nothing"),
        ] {
            let found = shell(script).await.unwrap_err();
            assert_eq!(found, format!("/bin/sh ended with {problem}"));
        }
        let long = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert!(long.unwrap_err().len() < 300);
        let absent = run(&["/no/such".to_owned()], ([127, 0, 0, 1], 1).into()).await;
        let absent = absent.unwrap_err().to_string();
        assert!(absent.starts_with("/no/such cannot be run: "), "{absent}");
    }

    #[tokio::test]
    async fn it_knows_the_app_and_nothing_of_the_agent() {
        // `env` prints what the shell adds by itself as well.
        let known = "test \"$STARLING_APP\" = 127.0.0.1:8080 && test -z \"$CARGO_MANIFEST_DIR\"";
        assert_eq!(shell(known).await, Ok(()));
    }

    #[tokio::test]
    async fn what_takes_too_long_ends_with_all_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let (pid, script) = (
            directory.path().join("pid"),
            directory.path().join("script"),
        );
        let text = format!(
            "sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait",
            pid.display()
        );
        std::fs::write(&script, text).unwrap();
        let command = ["/bin/sh".to_owned(), script.display().to_string()];
        let check = tokio::spawn(async move { run(&command, ([127, 0, 0, 1], 1).into()).await });
        until(|| pid.exists()).await;
        let child = std::fs::read_to_string(&pid).unwrap();
        check.abort();
        let stat = format!("/proc/{}/stat", child.trim());
        until(|| !Path::new(&stat).exists() || is_zombie(&stat)).await;
    }

    /// Nobody may be there to wait for an orphan.
    fn is_zombie(stat: &str) -> bool {
        std::fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") Z "))
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "it did not happen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
