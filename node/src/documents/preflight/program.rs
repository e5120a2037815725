//! The child as the agent sees it: started, fed, listened to, and taken apart when it ends.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::child::PANICKED;
use super::wire::{NotAReport, Report, Reports, encode};
use super::{End, Ending, Evidence, Patience, Runner, Text};

/// The program that checks documents.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program that runs, also if another one was put in its place.
    pub fn itself() -> Self {
        let parent = std::process::id().to_string();
        Self {
            path: "/proc/self/exe".into(),
            arguments: ["preflight", "--parent", &parent]
                .map(OsString::from)
                .into(),
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.path)
            .args(&self.arguments)
            // Nothing that the agent was started with is needed to read a text.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Starting one waits until it runs the program: a child that is stopped before must not stop the agent.
    async fn spawn_within(&self, wait: Duration) -> Result<Child, String> {
        let this = self.clone();
        let spawned = tokio::task::spawn_blocking(move || this.spawn());
        match timeout(wait, spawned).await {
            Ok(Ok(spawned)) => spawned.map_err(|error| error.to_string()),
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_elapsed) => Err(format!("it did not begin within {wait:?}")),
        }
    }

    async fn check(&self, texts: &[Text], patience: Patience) -> Ending {
        let mut ending = Ending::default();
        let mut child = match self.spawn_within(patience.to_begin()).await {
            Ok(child) => child,
            Err(why) => {
                ending.end = End::Stopped(format!("no child process can be started: {why}"));
                return ending;
            }
        };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut stderr = child.stderr.take();
        let mut said = Vec::new();
        let listening = async {
            let heard = listen(stdout, &mut ending, patience).await;
            if heard.is_err() {
                kill(&child);
            }
            (heard, child.wait().await)
        };
        let (_fed, (heard, status), ()) = tokio::join!(
            feed(stdin, texts),
            listening,
            keep(stderr.as_mut(), &mut said)
        );
        ending.end = match (heard, status) {
            (Err(why), _) => End::Stopped(why),
            (Ok(()), Ok(status)) => end(status, &said),
            (Ok(()), Err(error)) => End::Stopped(error.to_string()),
        };
        ending
    }
}

impl Runner for Program {
    fn run<'a>(&'a self, texts: &'a [Text], patience: Patience) -> BoxFuture<'a, Ending> {
        Box::pin(self.check(texts, patience))
    }
}

/// Ends a child that is not listened to any longer, with whatever it started; it may be gone already.
fn kill(child: &Child) {
    // Until it was waited for no other process can have its number.
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = id.and_then(Pid::from_raw) {
        let _gone = kill_process_group(group, Signal::KILL);
    }
}

/// A child that ends early closes its input, which its status tells better.
async fn feed(stdin: Option<ChildStdin>, texts: &[Text]) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    for text in texts {
        stdin.write_all(&encode(text)).await?;
    }
    stdin.shutdown().await
}

/// Takes in the child's reports until it closes its output. An error says why it is not listened to any longer.
async fn listen(
    stdout: Option<impl AsyncRead + Unpin>,
    ending: &mut Ending,
    patience: Patience,
) -> Result<(), String> {
    let Some(mut stdout) = stdout else {
        return Err("its output was not opened".to_owned());
    };
    let mut reports = Reports::default();
    let mut buffer = [0; 4096];
    loop {
        let wait = match ending.begun {
            0 => patience.to_begin(),
            _ => patience.to_go_on(),
        };
        let read = timeout(wait, stdout.read(&mut buffer)).await;
        let read = read.map_err(|_elapsed| format!("no report within {wait:?}"))?;
        let read = read.map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(());
        }
        reports.push(&buffer[..read]);
        let garbled = |_: NotAReport| "it said something else than a report".to_owned();
        while let Some(report) = reports.next().map_err(garbled)? {
            note(report, ending);
        }
    }
}

fn note(report: Report, ending: &mut Ending) {
    match report {
        Report::Begun => ending.begun += 1,
        Report::Covers(coverage) => ending.coverages.push((ending.done, coverage)),
        Report::Problem(problem) => ending.problems.push((ending.done, problem)),
        Report::Done => ending.done += 1,
    }
}

/// Reads to the end, so that the child never waits for a reader, and keeps the beginning.
async fn keep(stderr: Option<&mut (impl AsyncRead + Unpin)>, kept: &mut Vec<u8>) {
    let Some(stderr) = stderr else { return };
    let mut buffer = [0; 512];
    while let Ok(bytes @ 1..) = stderr.read(&mut buffer).await {
        let room = SAID_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..bytes.min(room)]);
    }
}

fn end(status: ExitStatus, said: &[u8]) -> End {
    let evidence = match (status.signal(), status.code()) {
        (None, Some(0)) => return End::Ended,
        (None, Some(code)) if code == i32::from(PANICKED) => Some(Evidence::Panic),
        // Without memory the standard library aborts, which says nothing of the text.
        (Some(libc::SIGABRT), _) if is_out_of_memory(said) => None,
        (Some(libc::SIGABRT), _) => Some(Evidence::Abrt),
        (Some(libc::SIGSEGV), _) => Some(Evidence::Segv),
        (Some(libc::SIGBUS), _) => Some(Evidence::Bus),
        (Some(libc::SIGILL), _) => Some(Evidence::Ill),
        (Some(libc::SIGXCPU), _) => Some(Evidence::Cpu),
        _ => None,
    };
    match evidence {
        Some(evidence) => End::Crashed(evidence),
        None => {
            let said = String::from_utf8_lossy(said);
            let line = said.lines().next().unwrap_or_default();
            End::Stopped(format!("{status}: {}", line.escape_debug()))
        }
    }
}

fn is_out_of_memory(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).contains("memory allocation of")
}

/// What is kept of a panic's message.
const SAID_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the agent makes of a child that says one `Begun` and then does as `script` says.
    async fn shell(script: &str) -> Ending {
        let script = format!("printf '\\001\\000\\000'; {script}");
        let program = Program {
            path: "/bin/sh".into(),
            arguments: ["-c", &script].map(OsString::from).into(),
        };
        let texts = [Text {
            key: "policy/a".parse().unwrap(),
            body: "x".into(),
        }];
        program.run(&texts, Patience::Answer).await
    }

    #[tokio::test]
    async fn how_a_child_ends_is_evidence_or_is_not() {
        for (script, expected) in [
            ("kill -SEGV $$", Some(Evidence::Segv)),
            ("kill -BUS $$", Some(Evidence::Bus)),
            ("kill -ILL $$", Some(Evidence::Ill)),
            ("kill -ABRT $$", Some(Evidence::Abrt)),
            ("kill -XCPU $$", Some(Evidence::Cpu)),
            ("exit 113", Some(Evidence::Panic)),
            ("kill -KILL $$", None),
            ("kill -TERM $$", None),
            ("exit 1", None),
            (
                "echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$",
                None,
            ),
            ("printf nonsense; sleep 60", None),
        ] {
            let ending = shell(script).await;
            assert_eq!((ending.begun, ending.done), (1, 0), "{script}");
            match (ending.end, expected) {
                (End::Crashed(evidence), Some(expected)) => assert_eq!(evidence, expected),
                (End::Stopped(_), None) => {}
                (end, expected) => panic!("{script}: {end:?}, not {expected:?}"),
            }
        }
        let done = shell("printf '\\004\\000\\000'").await;
        assert_eq!((done.done, done.end), (1, End::Ended));
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_no_evidence() {
        let program = Program {
            path: "/no/such".into(),
            arguments: Vec::new(),
        };
        let ending = program.run(&[], Patience::Batch).await;
        assert!(matches!(ending.end, End::Stopped(_)), "{ending:?}");
        assert_eq!(ending.begun, 0);
    }

    #[tokio::test]
    async fn it_is_given_nothing_of_the_agents_environment() {
        let ending = shell("test -z \"$CARGO_MANIFEST_DIR\" && test \"$(pwd)\" = /").await;
        assert_eq!(ending.end, End::Ended);
    }

    #[tokio::test]
    async fn what_hangs_is_ended() {
        let ending = shell("exec sleep 600").await;
        assert_eq!(ending.end, End::Stopped("no report within 3s".into()));
    }
}
