//! What the repository ships besides code: examples, the unit, TOML in the docs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::process::run;
use harness::{Need, Scratch, need, program};

/// Files below `directory` with this ending.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn validate(path: &Path, what: &Path) {
    let output = Command::new(program::agent())
        .arg("validate")
        .arg(path)
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}:\n{}",
        what.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_configuration_of_the_examples_is_valid() {
    need!(Need::Agent);
    let shipped: Vec<_> = ["examples", "deploy"]
        .iter()
        .flat_map(|place| files(&program::repository(place), ".toml"))
        .collect();
    assert!(!shipped.is_empty(), "there is no example");
    for file in shipped {
        validate(&file, &file);
    }
}

#[test]
fn every_piece_of_toml_in_the_docs_is_valid() {
    need!(Need::Agent);
    let scratch = Scratch::new();
    let mut pages = files(&program::repository("docs"), ".md");
    pages.extend(files(&program::repository("examples"), ".md"));
    pages.push(program::repository("README.md"));
    let mut checked = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap_or_default();
        for (number, piece) in toml_blocks(&text).into_iter().enumerate() {
            let file = scratch.write(&format!("{number}.toml"), piece);
            validate(&file, &page);
            checked += 1;
        }
    }
    assert!(checked > 0, "the docs show no TOML");
}

/// What stands between "```toml" and "```".
fn toml_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```toml" {
            let block: Vec<_> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[test]
fn systemd_takes_the_unit_as_it_is() {
    need!(Need::Program("systemd-analyze"));
    let units = files(&program::repository("deploy"), ".service");
    assert!(!units.is_empty(), "there is no unit");
    for unit in units {
        // It looks for the program the unit starts.
        let scratch = Scratch::new();
        let text = fs::read_to_string(&unit).expect("it is there");
        let here = scratch.path().join("starling");
        fs::copy("/bin/true", &here).expect("a program can be copied");
        let text = text.replace("/usr/local/bin/starling", &here.display().to_string());
        let text = text.replace("/usr/bin/starling", &here.display().to_string());
        let name = unit
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        let copy = scratch.write(&name, text);
        let mut command = Command::new(program::path("systemd-analyze"));
        command
            .args(["verify", "--man=no", "--recursive-errors=yes"])
            .arg(&copy);
        let output = command.output().expect("it runs");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && complaints.is_empty(),
            "{}: {complaints}",
            unit.display()
        );
        let mut command = Command::new(program::path("systemd-analyze"));
        command
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&copy);
        run(command);
    }
}

#[test]
fn advisories_are_ignored_only_for_a_reason() {
    let text = fs::read_to_string(program::repository("deny.toml")).expect("it is there");
    for line in text.lines().filter(|line| line.contains("RUSTSEC-")) {
        assert!(line.contains("reason = \""), "{line}");
    }
}

#[test]
fn every_alert_fires_on_its_fault_and_on_nothing_else() {
    need!(Need::Program("promtool"));
    let rules = program::repository("deploy").join("prometheus");
    for (command, file) in [
        (["check", "config"], "prometheus.yml"),
        (["test", "rules"], "starling.test.yml"),
    ] {
        let mut promtool = Command::new(program::path("promtool"));
        promtool.args(command).arg(file).current_dir(&rules);
        run(promtool);
    }
}
