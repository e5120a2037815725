//! The tutorials, as somebody follows them: every command on the demo, and every line that the page shows is one that the
//! command prints, but for figures.

use std::fs;
use std::process::Command;
use std::time::Duration;

use harness::process::{Process, Signal, leashed};
use harness::wait::try_poll;
use harness::{Need, Scratch, need, poll, program, turn};

/// What the reader types, and what the page says comes of it.
#[derive(Debug)]
struct Step {
    commands: String,
    shown: Vec<String>,
}

/// A demo in `demo`, below a directory of its own, and a shell there that knows `starling`.
struct Reader {
    scratch: Scratch,
    demo: Process,
    /// Lines such as `. demo/env`, which hold for the rest of the terminal's life.
    environment: String,
}

#[test]
fn why_was_this_call_refused() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    follow("why-refused.md", |printed| printed.contains("hello from"));
}

#[test]
fn find_a_slow_service_in_five_minutes() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    // After the change one of the six may be the look whether the slow one is quick again.
    follow("find-a-slow-service.md", |printed| {
        let seconds = printed.lines().filter_map(|line| line.parse::<f64>().ok());
        let (slow, quick): (Vec<_>, Vec<_>) = seconds.partition(|seconds| *seconds > 0.25);
        slow.len() <= 1 && quick.len() >= 5
    });
}

/// Does all that the page says, until the last command prints what is `right`. The first one is the demo.
fn follow(page: &str, right: impl Fn(&str) -> bool) {
    let text = fs::read_to_string(program::repository("docs").join(page)).expect("it is there");
    let mut steps = steps(&text).into_iter();
    let first = steps.next().expect("a tutorial has steps");
    let mut reader = Reader::start(&first.commands);
    let last = steps.next_back().expect("a tutorial has steps");
    for step in steps {
        reader.take(&step, |_printed| true);
    }
    reader.take(&last, right);
    reader.demo.signal(Signal::INT);
    let status = reader.demo.wait(crate::PATIENCE);
    assert!(status.success(), "{status}\n{}", reader.demo.log());
}

/// The fences of a page: `sh`, and what comes of it in the `text` that follows, if any does.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let kind = line.strip_prefix("```").unwrap_or_default();
        if kind.is_empty() {
            continue;
        }
        let fence = lines.by_ref().take_while(|line| *line != "```");
        let fence: Vec<_> = fence.map(str::to_owned).collect();
        match kind {
            "sh" => steps.push(Step {
                commands: fence.join("\n"),
                shown: Vec::new(),
            }),
            "text" => steps.last_mut().expect("commands come first").shown = fence,
            _ => {}
        }
    }
    steps
}

impl Reader {
    fn start(command: &str) -> Self {
        assert_eq!(command, "starling demo --dir demo");
        let scratch = Scratch::new();
        let mut command = leashed(program::agent());
        command
            .args(["demo", "--dir", "demo"])
            .current_dir(scratch.path());
        let mut demo = Process::spawn("demo", command, &scratch.path().join("demo.log"));
        poll(Duration::from_secs(60), "the demo to run", || {
            demo.check();
            demo.log().contains("Ctrl-C").then_some(())
        });
        let programs = scratch.directory("bin");
        std::os::unix::fs::symlink(program::agent(), programs.join("starling"))
            .expect("a link can be made");
        Self {
            scratch,
            demo,
            environment: String::new(),
        }
    }

    /// Types the commands, again until they show what the page shows: a mesh takes a moment.
    #[track_caller]
    fn take(&mut self, step: &Step, right: impl Fn(&str) -> bool) {
        let (lasting, commands): (Vec<_>, Vec<_>) = step
            .commands
            .lines()
            .partition(|line| line.starts_with(". "));
        self.environment
            .extend(lasting.iter().map(|line| format!("{line}\n")));
        if commands.is_empty() {
            return;
        }
        let commands = commands.join("\n");
        let mut failure = String::new();
        let done = try_poll(crate::PATIENCE, || {
            self.demo.check();
            let (is_good, printed) = self.run(&commands);
            let missing = step.shown.iter().find(|line| !is_in(line, &printed));
            // One that shows something may end as it likes: `explain` fails where the call would.
            let is_done = is_good || !step.shown.is_empty();
            if is_done && missing.is_none() && right(&printed) {
                return Some(());
            }
            let wanted = missing.map_or("what is right", String::as_str);
            failure = format!("{commands}\ndoes not show\n{wanted}\nbut\n{printed}");
            None
        });
        assert!(done.is_some(), "{failure}");
    }

    fn run(&self, commands: &str) -> (bool, String) {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.scratch.path().join("bin");
        let mut shell = Command::new("timeout");
        shell
            .args(["20", "sh", "-c"])
            .arg(format!("{}{commands}", self.environment))
            .env("PATH", format!("{}:{path}", bin.display()))
            .current_dir(self.scratch.path());
        let output = shell.output().expect("a shell runs");
        let printed = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&printed).into_owned(),
        )
    }
}

/// Whether one line that was printed has all the words of `shown` in their order, but for those with digits.
fn is_in(shown: &str, printed: &str) -> bool {
    let words = || {
        let is_part = |c: char| c.is_alphanumeric() || "-_".contains(c);
        let words = shown.split(move |c| !is_part(c));
        words.filter(|word| !word.is_empty() && !word.contains(|c: char| c.is_ascii_digit()))
    };
    printed.lines().any(|line| {
        let mut rest = line;
        words().all(|word| match rest.split_once(word) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[test]
fn a_line_is_told_by_its_words_and_not_by_its_figures() {
    let printed = "CALLER  P99\nweb     3.5 ms\n";
    for (shown, is_there) in [
        ("web 301.2 ms", true),
        ("CALLER P50", true),
        ("ms web", false),
        ("guest 1 ms", false),
        ("", true),
    ] {
        assert_eq!(is_in(shown, printed), is_there, "{shown}");
    }
}
