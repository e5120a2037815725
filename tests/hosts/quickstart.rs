//! `examples/quickstart` as its page tells it: the same TOML, commands and addresses, on two hosts.

use std::net::Ipv4Addr;
use std::process::Command;

use harness::process::{Process, run};
use harness::{Need, Scratch, Wire, need, program, turn, wait_until};

#[test]
fn the_quickstart_works_as_written() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let scratch = Scratch::new();
    let mut wire = Wire::new();
    let n1 = wire.host_at("n1", Ipv4Addr::new(10, 0, 0, 1));
    let n2 = wire.host_at("n2", Ipv4Addr::new(10, 0, 0, 2));
    let [state1, state2] =
        ["n1-state", "n2-state"].map(|name| scratch.path().join(name).display().to_string());
    starling(&[
        "init",
        "--trust-domain",
        "example.org",
        "--node",
        "n1",
        "--service",
        "web",
        "--state",
        &state1,
    ]);
    let mut app = n2.command(program::path("python3"));
    app.args(["-m", "http.server", "--bind", "127.0.0.1", "8080"])
        .current_dir(scratch.directory("www"));
    scratch.write("www/bird", "starling\n");
    let _app = Process::spawn("app", app, &scratch.path().join("app.log"));
    let example = program::repository("examples/quickstart");
    let mut first = crate::agent(&n1, &example, &state1, scratch.path());
    let config = program::repository("examples/quickstart/n1")
        .display()
        .to_string();
    let token = starling(&[
        "invite",
        "--node",
        "n2",
        "--service",
        "hello",
        "--state",
        &state1,
        "--config",
        &config,
    ]);
    // It waits for the agent on n1 to open its join port.
    let mut join = n2.command(program::agent());
    join.args(["join", token.trim(), "--state", &state2]);
    run(join);
    let mut second = crate::agent(&n2, &example, &state2, scratch.path());

    let curl = || {
        let mut curl = n1.command(program::path("curl"));
        curl.args(["--silent", "--max-time", "10", "http://127.0.0.1:9001/bird"]);
        let output = curl.output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_until(crate::PATIENCE, "n1 to reach the app on n2", || {
        first.check();
        second.check();
        curl() == "starling\n"
    });
    let mut services = Command::new("nsenter");
    services
        .args(["--target", &first.pid().to_string(), "--mount", "--net"])
        .arg(program::agent())
        .arg("services");
    let shown = run(services);
    assert!(shown.contains("hello") && shown.contains("n2"), "{shown}");
}

fn starling(arguments: &[&str]) -> String {
    let mut command = Command::new(program::agent());
    command.args(arguments);
    run(command)
}
