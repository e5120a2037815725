//! `starling demo`, as a stranger would try it.

use std::process::Command;
use std::time::Duration;

use harness::process::{Process, Signal, leashed, run};
use harness::{Need, Scratch, need, poll, program, turn, wait_until};

#[test]
fn the_demo_runs_its_curl_lines_work_and_nothing_is_left() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    let scratch = Scratch::new();
    let temporary = scratch.directory("tmp");
    let mut command = leashed(program::agent());
    command.arg("demo").env("TMPDIR", &temporary);
    let mut demo = Process::spawn("demo", command, &scratch.path().join("demo.log"));
    let lines = poll(
        Duration::from_secs(60),
        "the demo to print what to try",
        || {
            demo.check();
            // The text comes in one piece, but not at once.
            let text = demo.log();
            text.contains("Ctrl-C").then(|| pasted(&text))
        },
    );
    assert!(lines.len() >= 4, "{lines:#?}");
    let said = demo.log();
    let first = said.lines().filter(|line| !line.is_empty()).nth(1);
    assert!(
        first.is_some_and(|line| line.starts_with("Dashboard of n1: http://")),
        "{said}"
    );
    let page = dashboard(&said);
    assert!(page.contains("<title>starling</title>"), "{page}");
    assert!(
        std::fs::read_dir(&temporary).expect("it is ours").count() > 0,
        "a directory that a user can read"
    );
    // Which version answers is drawn, so the first line is pasted more than once.
    let mut answers: String = lines.iter().map(|line| paste(line)).collect();
    for _ in 0..20 {
        if answers.contains("hello from v1") && answers.contains("hello from v2") {
            break;
        }
        answers.push_str(&paste(&lines[0]));
    }
    for told in [
        "hello from v1",
        "hello from v2",
        "hello from stock",
        "starling-error: denied",
        "over the mesh",
        "starling_requests_total",
    ] {
        assert!(answers.contains(told), "no `{told}`: {lines:#?}\n{answers}");
    }

    let children = children(demo.pid());
    assert!(
        children.len() == 11,
        "three agents, six apps and two callers: {children:?}"
    );
    demo.signal(Signal::INT);
    let status = demo.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}\n{}", demo.log());
    assert_eq!(
        std::fs::read_dir(&temporary).expect("it is ours").count(),
        0,
        "it cleans up"
    );
    let gone = || {
        children
            .iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    wait_until(Duration::from_secs(5), "its processes to be gone", gone);
}

/// What it prints to be pasted into a shell: the indented lines that are no comments.
fn pasted(text: &str) -> Vec<String> {
    let (_, lines) = text
        .split_once("Try, in another terminal:")
        .unwrap_or_default();
    let lines = lines.lines().filter_map(|line| line.strip_prefix("  "));
    lines
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The page behind the first address that it prints.
fn dashboard(text: &str) -> String {
    let (_, address) = text.split_once("Dashboard of n1: ").unwrap_or_default();
    let address = address.lines().next().unwrap_or_default();
    paste(&format!("curl -s {address}"))
}

/// What a line prints in a shell. The telnet line ends by its time limit, so how a line ends tells nothing.
fn paste(line: &str) -> String {
    let mut shell = Command::new("timeout");
    shell.args(["20", "sh", "-c", line]);
    let output = shell.output().expect("a shell runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn children(parent: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let mut found: Vec<u32> = list
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    if found.is_empty() {
        // Children belong to the thread that made them.
        let mut pgrep = Command::new("ps");
        pgrep.args(["-o", "pid=", "--ppid", &parent.to_string()]);
        found = run(pgrep)
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect();
    }
    found
}
