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
        "the demo to print curl lines",
        || {
            demo.check();
            let lines = curl_lines(&demo.log());
            // The text comes in one piece, but not at once.
            (lines.len() >= 2 && demo.log().contains("Ctrl-C")).then_some(lines)
        },
    );
    assert!(
        std::fs::read_dir(&temporary).expect("it is ours").count() > 0,
        "a directory that a user can read"
    );
    let mut answers = String::new();
    for line in &lines {
        let mut shell = Command::new("timeout");
        shell.args(["20", "sh", "-c", line]);
        answers.push_str(&run(shell));
    }
    assert!(answers.contains("hello from v"), "{lines:#?}\n{answers}");

    let children = children(demo.pid());
    assert!(
        children.len() >= 6,
        "three agents and three apps: {children:?}"
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

/// What it prints to be pasted.
fn curl_lines(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.trim().trim_start_matches("$ "));
    lines
        .filter(|line| line.starts_with("curl "))
        .map(|line| line.split("  #").next().unwrap_or(line).to_owned())
        .collect()
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
